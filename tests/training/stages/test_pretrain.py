# SPDX-License-Identifier: Apache-2.0
"""The losses of pre-training: independent of packing, equal to a plain twin; masks and prompt drops per sample."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.steps import assert_equal_gradients, first_step, gradients, loss_and_gradients
from tests.world import TinyWorld, train
from unigen.config.load import load_config
from unigen.data.batch import Sample
from unigen.data.mixture import SampleStream
from unigen.data.sources import open_mixture
from unigen.reference.losses import task_losses_slowly
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.loop import Trainer
from unigen.training.stages.pretrain import PretrainStage


@pytest.fixture
def config(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    return tiny_world.config(tmp_path, "pretrain")


@pytest.fixture
def drawing(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """Drawing rows alone, half of the prompts dropped."""
    return tiny_world.config(tmp_path, training={"samples_per_step": {"t2i": 4}, "prompt_drop_prob": 0.5})


@pytest.mark.parametrize("stage_name", ["pretrain", "sft"])
@pytest.mark.parametrize("image_softmax", ["full", "codes"])
def test_the_loss_and_its_gradients_equal_the_plain_twin(
    tiny_world: TinyWorld, tmp_path: Path, stage_name: str, image_softmax: str
) -> None:
    config = tiny_world.config(tmp_path, stage_name, training={"image_softmax": image_softmax})
    stage, samples = first_step(config)
    assert isinstance(stage, PretrainStage)
    loss, found = loss_and_gradients(stage, samples)
    image_tokenizer, tower = stage._frozen
    vocabulary = Vocabulary.from_tokenizer(stage._tokenizer, image_tokenizer.codebook_size)
    stage.zero_grad()
    slow = task_losses_slowly(
        stage.model,
        vocabulary,
        samples,
        encode_image=lambda pixels: image_tokenizer.encode(pixels[None])[0],
        encode_features=lambda one: tower.features(type(one).stack([one]))[0],
        image_softmax=image_softmax,
    )
    assert set(slow) == {"t2i", "mmu", "lm"}
    total = sum(slow.values())
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    assert_equal_gradients(found, gradients(stage))


def test_packed_and_unpacked_rows_have_equal_losses_and_gradients(config: Path) -> None:
    """One row for all samples, and rows that hold a single one."""
    packed, samples = first_step(config, "training.tokens_per_row=2000")
    assert len(next(iter(packed.batches(samples))).input_ids_RL) < len(samples) / 2
    expected_loss, expected = loss_and_gradients(packed, samples)
    alone, same = first_step(config, "training.rows_per_micro_batch=1")
    assert [one.key for one in same] == [one.key for one in samples]
    scales = {name: 1 / count for name, count in alone.counts(same).items()}
    loss = 0.0
    for sample in same:
        (batch,) = alone.batches([sample])
        total, _ = alone(alone.encode(batch), scales)
        total.backward()
        loss += float(total.detach())
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_equal_gradients(gradients(alone), expected)


@pytest.mark.parametrize("rows", [1, 2])
def test_several_micro_batches_give_the_gradients_of_one(tiny_world: TinyWorld, tmp_path: Path, rows: int) -> None:
    config = tiny_world.config(tmp_path, training={"samples_per_step": {"t2i": 12, "mmu": 6, "lm": 6}})
    one, samples = first_step(config, "training.tokens_per_row=300", "training.rows_per_micro_batch=100")
    several, same = first_step(config, "training.tokens_per_row=300", f"training.rows_per_micro_batch={rows}")
    assert len(list(one.batches(samples))) == 1
    assert len(list(several.batches(same))) > 1
    loss, expected = loss_and_gradients(one, samples)
    found_loss, found = loss_and_gradients(several, same)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(found, expected)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_activations_changes_no_gradient(config: Path, recompute: str) -> None:
    plain, samples = first_step(config)
    _, expected = loss_and_gradients(plain, samples)
    thrifty, same = first_step(config, f"training.recompute={recompute}")
    _, found = loss_and_gradients(thrifty, same)
    assert_equal_gradients(found, expected)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_activations_are_computed_again_also_where_weights_were_loaded(config: Path, recompute: str) -> None:
    assert train(config, "training.steps=1") == 0
    run = config.parent / "run"
    stage, samples = first_step(
        config,
        "model.initialization=pretrained",
        f"model.pretrained={run}",
        f"training.recompute={recompute}",
        f"experiment.output_dir={run}2",
    )
    (batch,) = stage.batches(samples)
    calls = []
    stage.model.llm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    total, _ = stage(stage.encode(batch), {"t2i": 1.0})
    total.backward()
    assert len(calls) == (1 if recompute == "none" else 2)


def test_masks_and_prompt_drops_differ_between_samples_and_ranks(drawing: Path) -> None:
    rows = _drawing_rows(drawing, ranks=2)
    masks = [row.code_images[0].mask_I for row in rows]
    assert len({mask.tobytes() for mask in masks if mask is not None}) > len(rows) / 2
    lengths = {row.document.length for row in rows}
    dropped = [row for row in rows if row.document.length == min(lengths)]
    assert 0.2 < len(dropped) / len(rows) < 0.8


def test_masks_and_prompt_drops_do_not_depend_on_the_number_of_ranks(drawing: Path) -> None:
    one, two = _drawing_rows(drawing, ranks=1), _drawing_rows(drawing, ranks=2)
    by_key = {row.key: row for row in one}
    assert sorted(by_key) == sorted(row.key for row in two)
    for row in two:
        twin = by_key[row.key]
        assert row.document == twin.document
        assert np.array_equal(row.code_images[0].mask_I, twin.code_images[0].mask_I)


def test_masks_change_from_one_visit_to_the_next(drawing: Path) -> None:
    visits: dict[str, set[bytes]] = {}
    for row in _drawing_rows(drawing, ranks=1, steps=20):
        visits.setdefault(row.key, set()).add(row.code_images[0].mask_I.tobytes())
    assert max(len(masks) for masks in visits.values()) > 1


def _drawing_rows(config: Path, ranks: int, steps: int = 10) -> list[Sample]:
    """What all ranks see in the first steps."""
    settings = load_config(config)
    prepare = Trainer(settings).stage.prepare
    rows = []
    for rank in range(ranks):
        mixture = open_mixture(settings.data, settings.experiment.seed)
        stream = SampleStream(
            mixture, settings.training.samples_per_step, prepare, lanes=4, seed=0, rank=rank, world_size=ranks
        )
        for _, part in zip(range(steps), stream, strict=False):
            rows += [sample for _, sample in part.samples]
    return rows
