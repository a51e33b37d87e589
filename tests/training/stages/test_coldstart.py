# SPDX-License-Identifier: Apache-2.0
"""The stage `coldstart`: its loss and gradients against the slow twin and finite differences, its memory, what it trains."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.tiny_uae import RESOLUTION, processor, small_uae
from tests.training.steps import assert_equal_gradients, gradients, loss_and_gradients
from tests.uae_stages import uae_config
from tests.world import TinyWorld
from unigen.config.load import load_config
from unigen.data.batch import Sample
from unigen.data.draws import Draws
from unigen.data.sample import RawSample
from unigen.errors import ConfigError
from unigen.objectives.flow_matching import sampling_sigmas
from unigen.reference.cold_start import cold_loss
from unigen.training.stages.coldstart import ColdstartStage
from unigen.training.stages.uae import UaeStart

CAPTIONS = ("a red circle", "two blue squares and a triangle above them")
DRAWING = {"steps": 3, "guidance_scale": 2.0}


class TinyFeatures:
    """A network of one layer, whose features depend on every pixel."""

    def __init__(self) -> None:
        self._weight = torch.randn(6, 3 * RESOLUTION**2, generator=torch.Generator().manual_seed(0)) / 10

    def features(self, pixels_N3HW: Tensor) -> Tensor:
        return torch.tanh(pixels_N3HW.flatten(1) @ self._weight.to(pixels_N3HW.dtype).T)


def open_stage(world: TinyWorld, folder: Path, *words: str, **model: Any) -> ColdstartStage:
    path = uae_config(world, folder, "coldstart", coldstart=DRAWING)
    config = load_config(path, words)
    return ColdstartStage(config, UaeStart(small_uae(**model), processor()), torch.device("cpu"), TinyFeatures())


def samples_of(stage: ColdstartStage) -> list[Sample]:
    pictures = [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB")]
    raws = [RawSample(words, "t2i", (picture,), words) for words, picture in zip(CAPTIONS, pictures, strict=True)]
    return [stage.prepare(raw, Draws(0, raw.key, 0)) for raw in raws]


@pytest.mark.parametrize(("scale", "is_masked"), [(1.0, False), (2.0, False), (2.0, True)])
def test_loss_and_gradients_are_those_of_the_images_one_by_one(
    scale: float, is_masked: bool, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    stage = open_stage(tiny_world, tmp_path, f"coldstart.guidance_scale={scale}", decoder_text_mask=is_masked)
    samples = samples_of(stage)
    loss, found = loss_and_gradients(stage, samples)
    stage.zero_grad()
    null = stage.template.draw_prompt(stage.uae.config.negative_prompt)
    expected = sum(
        (
            cold_loss(
                stage.uae,
                sample,
                null,
                TinyFeatures().features,
                sigmas=sampling_sigmas(3, stage.uae.config.shift).tolist(),
                scale=scale,
                latent_shape=(4, 4, 4),
                padding_id=processor().tokenizer.pad_token_id,
            )
            for sample in samples
        ),
        torch.zeros(()),
    ) / len(samples)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    expected.backward()
    plain = gradients(stage)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=1e-5)


def test_gradients_are_the_differences_of_losses(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """In float64, along a direction in the weights of each part."""
    stage = open_stage(tiny_world, tmp_path).double()
    nn.Module.double(stage.uae.vae)
    for module in stage.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm_in_float64, module)  # type: ignore[method-assign]
    (batch,) = stage.batches(samples_of(stage))
    batch.target_images = [image.double() for image in batch.target_images]
    stage(batch, {"features": 1.0})[0].backward()
    for part in ("llm.model.language_model.", "projector.", "decoder."):
        chosen = [one for name, one in stage.model.named_parameters() if name.startswith(part)]
        torch.manual_seed(0)
        direction = [torch.randn_like(one) for one in chosen]
        slope = sum(float((one.grad * way).sum()) for one, way in zip(chosen, direction, strict=True))
        assert abs(slope) > 1e-3
        losses = []
        for size in (1e-6, -1e-6):
            _move(chosen, direction, size)
            losses.append(float(stage(batch, {"features": 1.0})[0].detach()))
            _move(chosen, direction, -size)
        assert slope == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4), part


@torch.no_grad()
def _move(parameters: list[nn.Parameter], direction: list[Tensor], size: float) -> None:
    for parameter, way in zip(parameters, direction, strict=True):
        parameter.add_(way, alpha=size)


def _norm_in_float64(norm: Any, states: Tensor) -> Tensor:
    """What the libraries' norms do, which round to float32."""
    epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
    found = states * (states.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return found if norm.weight is None else found * norm.weight


def test_steps_that_are_computed_again_give_the_same_gradients_and_hold_less(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    held: dict[tuple[bool, int], int] = {}
    found = {}
    for checkpoints in (True, False):
        for steps in (2, 6):
            words = (f"coldstart.steps={steps}", f"coldstart.checkpoint_steps={str(checkpoints).lower()}")
            stage = open_stage(tiny_world, tmp_path, *words)
            (batch,) = stage.batches(samples_of(stage))
            held[checkpoints, steps] = _held_bytes(stage, batch)
            found[checkpoints] = gradients(stage)
    assert_equal_gradients(found[True], found[False])
    growth = {kind: held[kind, 6] - held[kind, 2] for kind in (True, False)}
    assert growth[True] < growth[False] / 20


def _held_bytes(stage: ColdstartStage, batch: Any) -> int:
    """Of what a forward pass holds for its backward pass."""
    kept: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        total, _ = stage(batch, {"features": 1.0})
    size = sum(kept.values())
    total.backward()
    return size


def test_language_model_projector_and_decoder_learn_and_the_rest_does_not(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    stage = open_stage(tiny_world, tmp_path)
    optimizer = torch.optim.SGD([one for one in stage.parameters() if one.requires_grad], lr=0.02)
    (batch,) = stage.batches(samples_of(stage))
    losses = []
    for _ in range(4):
        total, sums = stage(batch, {"features": 0.5})
        losses.append(float(sums["features"]))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert not any(one.requires_grad for name, one in stage.named_parameters() if ".visual." in name)
    assert not any(name.startswith("model.vae") or "_encoder" in name for name, _ in stage.named_parameters())


def test_empty_batches_count_for_nothing_but_go_the_same_way(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage = open_stage(tiny_world, tmp_path)
    total, _ = stage(stage.empty_batch(), {"features": 1.0})
    total.backward()
    assert float(total.detach()) == 0.0
    trained = {name for name, one in stage.named_parameters() if one.requires_grad}
    assert gradients(stage).keys() == trained


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["coldstart.encoder.kind=detector"], r"coldstart\.encoder\.kind.*detector"),
        (["coldstart.encoder.weight=2"], r"coldstart\.encoder\.weight"),
        (["coldstart.steps=0"], "coldstart.steps is 0"),
        (["training.samples_per_step={mmu: 2}"], "samples_per_step"),
        (["model.family=unigen"], "set model.family=uae"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    words: list[str], complaint: str, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(uae_config(tiny_world, tmp_path, "coldstart"), words)
