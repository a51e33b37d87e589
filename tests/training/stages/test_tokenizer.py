# SPDX-License-Identifier: Apache-2.0
"""The image tokenizer's stage: its loss is the weighted sum of its terms, and the two sides of the adversary stay apart."""

from pathlib import Path

import pytest

from tests.training.steps import first_step, gradients, loss_and_gradients
from tests.world import TinyWorld, metrics, train

WEIGHTS = {"l1_weight": 1.0, "l2_weight": 4.0, "commitment_weight": 0.25, "entropy_weight": 0.1}


def test_the_total_is_the_weighted_sum_of_the_terms_that_are_logged(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path, "tokenizer", tokenizer_stage=WEIGHTS)) == 0
    for line in metrics(tmp_path / "run"):
        expected = sum(weight * line[f"loss/{name.removesuffix('_weight')}"] for name, weight in WEIGHTS.items())
        assert line["loss/total"] == pytest.approx(expected, rel=1e-5)


def test_reconstructions_get_better(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path, "tokenizer", training={"steps": 25})) == 0
    errors = [line["loss/l2"] for line in metrics(tmp_path / "run")]
    assert errors[-1] < 0.7 * errors[0]


def test_micro_batches_change_no_term_of_single_images(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """The entropy of codes is over a batch, so it is left out here."""
    config = tiny_world.config(tmp_path, "tokenizer", tokenizer_stage={**WEIGHTS, "entropy_weight": 0.0})
    whole, samples = first_step(config)
    parts, same = first_step(config, "training.rows_per_micro_batch=3")
    assert loss_and_gradients(parts, same)[0] == pytest.approx(loss_and_gradients(whole, samples)[0], rel=1e-5)


def test_the_discriminator_learns_from_its_own_term_alone(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Were the generator's term to reach it, its gradient would change with that term's weight."""
    found = []
    for weight in (0.1, 10.0):
        config = tiny_world.config(tmp_path / str(weight), "tokenizer", tokenizer_stage={"adversarial_weight": weight})
        stage, samples = first_step(config)
        loss_and_gradients(stage, samples)
        found.append(gradients(stage))
    judge = [name for name in found[0] if name.startswith("discriminator.")]
    assert judge
    for name in judge:
        assert found[0][name].equal(found[1][name])
    assert any(not found[0][name].equal(found[1][name]) for name in found[0] if name.startswith("model.decoder"))
