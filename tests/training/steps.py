# SPDX-License-Identifier: Apache-2.0
"""One global step of a run, taken apart."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unigen.config.load import load_config
from unigen.data.batch import Sample
from unigen.training.loop import Trainer
from unigen.training.stages.stage import Stage


def first_step(config: Path, *overrides: str) -> tuple[Stage, list[Sample]]:
    """The stage of a run before its first update, and the samples of its first step."""
    trainer = Trainer(load_config(config, overrides))
    return trainer.stage, next(iter(trainer.loader))


def loss_and_gradients(stage: Stage, samples: Sequence[Sample]) -> tuple[float, dict[str, Tensor]]:
    """Sum of the mean losses of all tasks as the loop computes it, and its gradients by the parameters' names."""
    scales = {name: 1 / count for name, count in stage.counts(samples).items()}
    stage.zero_grad()
    loss = 0.0
    for batch in stage.batches(samples):
        total, _ = stage(stage.encode(batch), scales)
        total.backward()
        loss += float(total.detach())
    return loss, gradients(stage)


def gradients(stage: Stage) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in stage.named_parameters() if one.grad is not None}


def assert_equal_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to 1e-5 of the largest entry of each."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (found[name] - gradient).abs().max() / gradient.abs().max().clamp_min(1e-6)
        assert error < 1e-5, f"{name}: {error}"
    assert any(bool(gradient.any()) for gradient in expected.values())
