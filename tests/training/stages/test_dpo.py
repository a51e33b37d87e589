# SPDX-License-Identifier: Apache-2.0
"""Preference optimisation: equal to its plain twin, any reference, any micro-batches; a run learns and goes on exactly."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_unigen
from tests.training.steps import assert_equal_gradients, first_step, gradients, loss_and_gradients
from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, metrics, train, weights
from unigen.data.batch import Sample
from unigen.models.checkpoints import load_unigen
from unigen.objectives.preference import MaskedCodes
from unigen.reference.preference import image_log_probs_slowly, preference_loss_slowly
from unigen.training.stages.dpo import DpoStage
from unigen.training.stages.row_losses import supervised_states
from unigen.training.stages.stage import Stage

LORA = {"lora": {"rank": 2, "alpha": 4}}


@pytest.fixture
def config(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    return tiny_world.config(tmp_path, "dpo")


def opened(config: Path, *overrides: str) -> tuple[DpoStage, list[Sample]]:
    stage, samples = first_step(config, *overrides)
    assert isinstance(stage, DpoStage)
    return stage, samples


def log_ratios(stage: DpoStage, samples: Sequence[Sample]) -> torch.Tensor:
    """Policy less reference of all pairs, as the loss takes them."""
    found = []
    for batch in stage.batches(samples):
        batch = stage.encode(batch)
        codes = stage._masked_codes(batch)
        found.append(stage._log_probs(stage.model, batch, codes) - stage._reference_log_probs(batch, codes))
    return torch.cat(found)


def loss_of_the_plain_twin(stage: DpoStage, samples: Sequence[Sample], beta: float, sft_weight: float) -> torch.Tensor:
    """One pair after another, each of its rows in a forward pass of its own, from the stage's model and its second copy."""
    num_chosen = sum(sample.num_targets for sample in samples)
    total = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        states, targets, images, reference = [], [], [], []
        for number, row in enumerate((sample, sample.rejected)):
            assert row is not None
            (batch,) = super(DpoStage, stage).batches([row])
            batch = stage.encode(batch)
            states.append(supervised_states(stage.model, batch))
            targets.append(batch.targets_RL.flatten()[batch.supervised_T])
            images.append(torch.full_like(targets[-1], number))
            codes = MaskedCodes(targets[-1], torch.zeros_like(targets[-1]), 1, slice(0, 0))
            copy = stage._reference[0]
            assert copy is not None
            reference += image_log_probs_slowly(supervised_states(copy, batch), copy.output_embedding_VD, codes)
        both = MaskedCodes(torch.cat(targets), torch.cat(images), 2, slice(0, 0))
        pair, by_reference = torch.tensor([[0, 1]]), torch.stack(reference)[None].detach()
        scales = {"beta": beta, "scale": 1 / len(samples), "sft_scale": sft_weight / num_chosen}
        head = stage.model.output_embedding_VD
        total = total + preference_loss_slowly(torch.cat(states), head, both, pair, by_reference, **scales)
    return total


def nudge(stage: Stage) -> None:
    """Weights that are no longer the reference's."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_loss_and_its_gradients_equal_the_plain_twin(config: Path, sft_weight: float) -> None:
    stage, samples = opened(config, f"dpo.sft_weight={sft_weight}")
    nudge(stage)
    scales = {name: stage.loss_weights().get(name, 1.0) / count for name, count in stage.counts(samples).items()}
    (batch,) = stage.batches(samples)
    total, _ = stage(stage.encode(batch), scales)
    total.backward()
    found = gradients(stage)
    stage.zero_grad()
    expected = loss_of_the_plain_twin(stage, samples, beta=0.1, sft_weight=sft_weight)
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_equal_gradients(found, gradients(stage))


@pytest.mark.parametrize(("tokens_per_row", "rows"), [(100, 2), (170, 1)])
def test_micro_batches_and_packing_change_neither_loss_nor_gradients(
    config: Path, tokens_per_row: int, rows: int
) -> None:
    words = ["training.samples_per_step={t2i: 7}", "model.max_text_tokens=64"]
    whole, samples = opened(config, *words, "training.tokens_per_row=2000")
    parts, same = opened(
        config, *words, f"training.tokens_per_row={tokens_per_row}", f"training.rows_per_micro_batch={rows}"
    )
    for stage in (whole, parts):
        nudge(stage)
    assert len(list(whole.batches(samples))) == 1
    assert len(list(parts.batches(same))) > 2
    loss, expected = loss_and_gradients(whole, samples)
    found_loss, found = loss_and_gradients(parts, same)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(found, expected)


@pytest.mark.parametrize(
    ("reference", "normalization"),
    [("copy", "sum"), ("copy", "mean"), ("precomputed", "sum"), ("adapter_off", "sum")],
)
def test_before_the_first_step_policy_and_reference_are_one(
    tiny_world: TinyWorld, tmp_path: Path, reference: str, normalization: str
) -> None:
    training = LORA if reference == "adapter_off" else {}
    dpo = {"reference": reference, "normalization": normalization}
    config = tiny_world.config(tmp_path, "dpo", dpo=dpo, training=training)
    stage, samples = opened(config)
    assert torch.equal(log_ratios(stage, samples), torch.zeros(8, 2))
    other_rows, same = opened(config, "training.tokens_per_row=300", f"experiment.output_dir={tmp_path / 'other'}")
    assert log_ratios(other_rows, same).abs().max() <= 1e-4
    nudge(stage)
    assert log_ratios(stage, samples).abs().max() > 0.01


def test_bfloat16_compares_like_with_like(config: Path) -> None:
    stage, samples = opened(config, "training.precision=bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_ratios(stage, samples), torch.zeros(8, 2))


def test_a_run_prefers_what_is_chosen_and_saves_a_model(tiny_world: TinyWorld, config: Path) -> None:
    # Eight pairs a step, each with masks of its own: a single step says little.
    assert train(config, "training.steps=40", "optimizer.learning_rate=1e-3") == 0
    run = config.parent / "run"
    lines = metrics(run)
    first, last = lines[0], lines[-1]
    assert first["loss/preference"] == first["loss/total"] == pytest.approx(0.693147, abs=1e-5)
    assert (first["preference/reward_margin"], first["preference/kl_estimate"]) == (0.0, 0.0)
    assert sum(line["preference/reward_accuracy"] for line in lines[-10:]) / 10 >= 0.8
    assert last["preference/reward_margin"] > 0.5
    assert last["loss/preference"] < 0.5
    assert last["preference/kl_estimate"] != 0.0
    assert load_unigen(run / "checkpoint-40" / "unwrapped_model", tiny_world.root)


def test_with_a_term_for_the_chosen_images_they_become_likelier(config: Path) -> None:
    assert train(config, "training.steps=6", "dpo.sft_weight=2.0") == 0
    lines = metrics(config.parent / "run")
    for line in lines:
        expected = line["loss/preference"] + 2.0 * line["loss/chosen_images"]
        assert line["loss/total"] == pytest.approx(expected, rel=1e-5)
    assert lines[-1]["loss/chosen_images"] < lines[0]["loss/chosen_images"]


def test_numbers_computed_ahead_make_the_run_of_a_second_copy(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Several visits to each pair, and a first epoch that does not end at a step."""
    words = ["training.steps=5", "training.samples_per_step={t2i: 7}", "data.num_workers=1"]
    for reference in ("copy", "precomputed"):
        assert train(tiny_world.config(tmp_path / reference, "dpo", dpo={"reference": reference}), *words) == 0
    one, other = (metrics(tmp_path / name / "run") for name in ("copy", "precomputed"))
    for line, same in zip(one, other, strict=True):
        names = [name for name in line if name.startswith(("loss/", "preference/"))]
        assert len(names) == 7
        assert {name: line[name] for name in names} == {name: same[name] for name in names}
    assert_equal_weights(weights(tmp_path / "copy" / "run"), weights(tmp_path / "precomputed" / "run"))
    table = (tmp_path / "precomputed/run/reference/log_probs.jsonl").read_text().splitlines()[1:]
    visits = [json.loads(line)["visit"] for line in table]
    assert len(visits) == 5 * 7
    assert set(visits) == {0, 1}


@pytest.mark.parametrize("reference", ["precomputed", "adapter_off"])
def test_a_stopped_run_goes_on_bitwise(tiny_world: TinyWorld, tmp_path: Path, reference: str) -> None:
    training: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}} if reference == "adapter_off" else {}
    whole, stopped = (
        tiny_world.config(tmp_path / name, "dpo", dpo={"reference": reference}, training=training)
        for name in ("whole", "stopped")
    )
    assert train(whole, "training.steps=4") == 0
    assert train(stopped, "training.steps=2") == 0
    assert train(stopped, "training.steps=4") == 0
    assert_equal_weights(weights(tmp_path / "stopped/run"), weights(tmp_path / "whole/run"))


def test_another_reference_than_at_the_beginning_is_refused(
    tiny_world: TinyWorld, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_unigen(tmp_path / "other")
    model = load_unigen(other)
    with torch.no_grad():
        model.llm.model.norm.weight += 0.1
    model.save_pretrained(other)
    assert train(config, "training.steps=1") == 0
    assert train(config, "training.steps=2", f"model.pretrained={other}") == 2
    error = capsys.readouterr().err
    assert "reference/weights.json" in error
    assert "model.pretrained" in error


def test_numbers_that_were_computed_with_other_settings_are_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, "training.steps=1", "dpo.reference=precomputed") == 0
    assert train(config, "training.steps=2", "dpo.reference=precomputed", "training.prompt_drop_prob=0.5") == 2
    assert "training.prompt_drop_prob=0.1, but it is 0.5 now" in capsys.readouterr().err


def test_an_adapter_is_all_that_is_trained_and_saved(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Over a model that reads through a tower: its projector stays as it is and is not saved again."""
    base = tiny_unigen(tmp_path / "base", reads_features=True)
    for reference in ("adapter_off", "copy"):
        config = tiny_world.config(
            tmp_path / reference,
            "dpo",
            model={"pretrained": str(base), "vision_tower": "tiny-siglip-vision"},
            training=LORA,
            dpo={"reference": reference},
        )
        assert train(config) == 0
    one, other = (metrics(tmp_path / name / "run")[-1]["loss/total"] for name in ("adapter_off", "copy"))
    assert one == pytest.approx(other, rel=1e-5)
    saved = tmp_path / "adapter_off/run/checkpoint-3/unwrapped_model"
    assert all("lora_" in name for name in weights(tmp_path / "adapter_off/run"))
    trained, before = load_unigen(saved, tiny_world.root).state_dict(), load_unigen(base).state_dict()
    changed = {name for name in before if not torch.equal(trained[name], before[name])}
    assert changed
    assert all("_proj.weight" in name for name in changed)
    assert json.loads((saved / "config.json").read_text())["vision_tower"] == "tiny-siglip-vision"


def test_the_projector_of_a_whole_model_stays_as_it_is(tiny_world: TinyWorld, tmp_path: Path) -> None:
    base = tiny_unigen(tmp_path / "base", reads_features=True)
    model = {"pretrained": str(base), "vision_tower": "tiny-siglip-vision"}
    assert train(tiny_world.config(tmp_path, "dpo", model=model)) == 0
    before, after = load_unigen(base).state_dict(), weights(tmp_path / "run")
    assert torch.equal(after["mm_projector.0.weight"], before["mm_projector.0.weight"])
    assert not torch.equal(after["llm.model.norm.weight"], before["llm.model.norm.weight"])


def test_a_model_that_reads_must_say_through_which_tower(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_unigen(tmp_path / "base", reads_features=True)
    assert train(tiny_world.config(tmp_path, "dpo", model={"pretrained": str(base)})) == 2
    assert "model.vision_tower" in capsys.readouterr().err


def test_a_pair_that_no_forward_pass_can_hold_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "training.rows_per_micro_batch=1") == 2
    assert "training.tokens_per_row" in capsys.readouterr().err
