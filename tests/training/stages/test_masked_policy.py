# SPDX-License-Identifier: Apache-2.0
"""UniGen as a policy: equal to its plain twin, any micro-batches; a run learns what it is rewarded for, and goes on exactly."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.masked_policy import policy_config
from tests.tiny import tiny_unigen
from tests.training.stages.test_dpo import nudge
from tests.training.steps import assert_equal_gradients, first_step, gradients
from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, metrics, train, weights
from unigen.cli.main import main
from unigen.models.checkpoints import load_unigen
from unigen.reference.maskgit import trajectory_log_probs_slowly
from unigen.reference.policy_gradient import clipped_loss_slowly
from unigen.training.stages.masked_policy import KL, MaskedPolicyStage
from unigen.training.stages.policy import LOSS, PromptSample, Rollout
from unigen.training.stages.reference import adapter_off
from unigen.training.stages.stage import Update

LORA = {"lora": {"rank": 2, "alpha": 4}}


@pytest.fixture
def config(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    return policy_config(tiny_world, tmp_path)


def opened(config: Path, *overrides: str) -> tuple[MaskedPolicyStage, list[PromptSample]]:
    stage, samples = first_step(config, "training.samples_per_step={t2i: 3}", *overrides)
    assert isinstance(stage, MaskedPolicyStage)
    return stage, samples  # type: ignore[return-value]


def drawn(stage: MaskedPolicyStage, samples: Sequence[PromptSample]) -> list[Rollout]:
    """Rollouts with advantages of their own."""
    stage.eval()
    with torch.no_grad():
        rollouts = stage.roll_out([request for sample in samples for request in stage._requests(sample, 0)])
    stage.train()
    return [Rollout(one.judged, one.record, (-1) ** number * (0.5 + number)) for number, one in enumerate(rollouts)]


def loss_and_gradients(stage: MaskedPolicyStage, rollouts: Sequence[Rollout]) -> tuple[float, dict[str, Tensor]]:
    scales = {name: stage.loss_weights().get(name, 1.0) / count for name, count in stage.counts(rollouts).items()}
    stage.zero_grad()
    loss = 0.0
    for batch in stage.batches(rollouts):
        total, _ = stage(stage.encode(batch), scales)
        total.backward()
        loss += float(total.detach())
    return loss, gradients(stage)


def slow_log_probs(stage: MaskedPolicyStage, rollout: Rollout) -> Tensor:
    template = stage.pipeline.template
    prompt, nothing = template.draw_prompt(rollout.record.prompt), template.draw_prompt("")
    image = rollout.record.trajectory
    return trajectory_log_probs_slowly(stage.model, stage._vocabulary, prompt, nothing, image, stage._settings)


def slow_loss(stage: MaskedPolicyStage, rollouts: Sequence[Rollout], clip_range: float) -> Tensor:
    """Image by image and code by code; its value is that of the plain formula in floats."""
    terms, values = [], []
    for rollout in rollouts:
        log_probs_I = slow_log_probs(stage, rollout)
        for log_prob, old in zip(log_probs_I, rollout.record.trajectory.log_probs_I.tolist(), strict=True):
            ratio, clipped = (log_prob - old).exp(), (log_prob - old).exp().clamp(1 - clip_range, 1 + clip_range)
            terms.append(-torch.minimum(rollout.advantage * ratio, rollout.advantage * clipped))
            values.append(clipped_loss_slowly(float(log_prob.detach()), old, rollout.advantage, clip_range))
    loss = torch.stack(terms).mean()
    assert float(loss.detach()) == pytest.approx(sum(values) / len(values), rel=1e-4)
    return loss


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_the_loss_and_its_gradients_equal_the_plain_twin(config: Path, guidance: float) -> None:
    stage, samples = opened(config, f"grpo.masked.guidance_scale={guidance}", "grpo.group_size=2")
    rollouts = drawn(stage, samples[:1])
    nudge(stage)
    loss, found = loss_and_gradients(stage, rollouts)
    stage.zero_grad()
    expected = slow_loss(stage, rollouts, 0.2)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_equal_gradients(found, gradients(stage))


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("rows", [2, 8])
def test_the_policy_that_drew_has_the_probabilities_of_its_record(config: Path, guidance: float, rows: int) -> None:
    """Of every single code, cached steps against whole rows in packed batches; the second update is on another policy."""
    words = [f"grpo.masked.guidance_scale={guidance}", f"training.rows_per_micro_batch={rows}"]
    stage, samples = opened(config, "grpo.updates_per_rollout=2", *words)
    first, second = stage.updates(samples)
    assert ratios(stage, first).sub(1).abs().max() <= 1e-4
    nudge(stage)
    assert ratios(stage, second).sub(1).abs().max() > 1e-2


def ratios(stage: MaskedPolicyStage, update: Update) -> Tensor:
    found = []
    for batch in update.batches:
        tensors: dict[str, Tensor] = batch.tensors  # type: ignore[attr-defined]
        with torch.no_grad():
            log_probs_T = stage._distributions(tensors).gather(1, tensors["codes_T"][:, None])[:, 0]
        found.append((log_probs_T - tensors["old_log_probs_T"]).exp())
    whole = torch.cat(found)
    assert len(whole) == update.counts[LOSS]
    return whole


@pytest.mark.parametrize(("guidance", "tokens_per_row", "rows"), [(0.0, 100, 2), (3.0, 170, 1)])
def test_micro_batches_and_packing_change_neither_loss_nor_gradients(
    config: Path, guidance: float, tokens_per_row: int, rows: int
) -> None:
    words = ["model.max_text_tokens=64", f"grpo.masked.guidance_scale={guidance}"]
    whole, samples = opened(config, *words, "training.tokens_per_row=8000")
    parts, _ = opened(
        config, *words, f"training.tokens_per_row={tokens_per_row}", f"training.rows_per_micro_batch={rows}"
    )
    rollouts = drawn(whole, samples)
    for stage in (whole, parts):
        nudge(stage)
    assert len(list(whole.batches(rollouts))) == 1
    assert len(list(parts.batches(rollouts))) > 2
    loss, expected = loss_and_gradients(whole, rollouts)
    found_loss, found = loss_and_gradients(parts, rollouts)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(found, expected)


def test_steps_that_fix_no_code_have_no_rows(config: Path) -> None:
    stage, samples = opened(config, "grpo.masked.steps=20", "training.tokens_per_row=8000")
    rollouts = drawn(stage, samples[:1])
    batches = list(stage.batches(rollouts))
    assert sum(batch.num_images for batch in batches) == len(rollouts) * 16
    assert sum(len(batch.tensors["codes_T"]) for batch in batches) == stage.counts(rollouts)[LOSS] == len(rollouts) * 16


def test_the_divergence_is_from_the_model_without_its_adapter(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = policy_config(tiny_world, tmp_path, training=LORA, grpo={"kl_weight": 0.5})
    stage, samples = opened(config)
    rollouts = drawn(stage, samples[:1])
    (batch,) = stage.batches(rollouts)
    assert float(stage(batch, {})[1][KL]) == pytest.approx(0, abs=1e-6)
    nudge(stage)
    found = float(stage(batch, {})[1][KL])
    own = torch.cat([slow_log_probs(stage, one).detach() for one in rollouts])
    with adapter_off(stage.model):  # type: ignore[arg-type]
        reference = torch.cat([slow_log_probs(stage, one).detach() for one in rollouts])
    expected = sum(math.exp(r - p) - (r - p) - 1 for p, r in zip(own.tolist(), reference.tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-3)
    assert found > 0.01
    loss, _ = loss_and_gradients(stage, rollouts)
    stage._grpo = type(stage._grpo)(**{**vars(stage._grpo), "kl_weight": 0.0})
    without, _ = loss_and_gradients(stage, rollouts)
    assert loss - without == pytest.approx(0.5 * found / len(own), rel=1e-3)


def test_a_run_draws_more_of_what_is_rewarded_and_not_where_advantages_are_shuffled(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    found = {}
    for name, shuffled in (("policy", False), ("control", True)):
        config = policy_config(
            tiny_world,
            tmp_path / name,
            grpo={"group_size": 8, "shuffle_advantages": shuffled, "masked": {"steps": 2}},
            training={"rows_per_micro_batch": 32},
        )
        assert train(config, "training.steps=24") == 0
        rewards = [line["reward/total"] for line in metrics(tmp_path / name / "run")]
        found[name] = sum(rewards[-6:]) / 6 - sum(rewards[:6]) / 6
    spread = metrics(tmp_path / "policy" / "run")[0]["reward/group_deviation"]
    assert found["policy"] > spread
    assert found["control"] < 0.5 * found["policy"]  # it drifts either way
    first = metrics(tmp_path / "policy" / "run")[0]
    assert first["policy/ratio"] == pytest.approx(1, abs=1e-4)
    assert first["policy/ratio_deviation"] <= 1e-4
    assert first["policy/clipped_fraction"] == 0
    assert 0 < first["policy/entropy"] <= math.log(64)


@pytest.mark.parametrize("training", [{}, LORA], ids=["whole", "adapter"])
def test_a_stopped_run_goes_on_bitwise(tiny_world: TinyWorld, tmp_path: Path, training: dict[str, Any]) -> None:
    grpo = {"updates_per_rollout": 2, **({"kl_weight": 0.1} if training else {})}
    whole, stopped = (
        policy_config(tiny_world, tmp_path / name, training={**training, "ema_decay": 0.9}, grpo=grpo)
        for name in ("whole", "stopped")
    )
    assert train(whole, "training.steps=4") == 0
    assert train(stopped, "training.steps=2") == 0
    assert train(stopped, "training.steps=4") == 0
    assert_equal_weights(weights(tmp_path / "stopped/run"), weights(tmp_path / "whole/run"))
    last, expected = (metrics(tmp_path / name / "run")[-1] for name in ("stopped", "whole"))
    assert last["reward/total"] == expected["reward/total"]


def test_images_without_a_reward_are_named_and_the_run_goes_on(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewards = {"redness": {"kind": "callable", "function": "tests.toy_rewards:redness_of_some"}}
    assert train(policy_config(tiny_world, tmp_path, grpo={"rewards": rewards})) == 0
    lines = metrics(tmp_path / "run")
    assert any(0 < line["reward/missing_fraction"] < 1 for line in lines)
    assert all(math.isfinite(line["loss/policy"]) for line in lines if "loss/policy" in line)
    assert lines[-1]["training/non_finite_steps"] == 0
    assert "reward redness: asked/prompts/train.jsonl/" in capsys.readouterr().out


def test_where_all_images_are_as_good_nothing_changes(tiny_world: TinyWorld, tmp_path: Path) -> None:
    rewards = {"same": {"kind": "callable", "function": "tests.toy_rewards:sameness"}}
    assert train(policy_config(tiny_world, tmp_path, grpo={"rewards": rewards})) == 0
    assert all(line["groups/without_spread"] == 1 for line in metrics(tmp_path / "run"))
    assert_equal_weights(weights(tmp_path / "run"), weights(tiny_world.root / "checkpoints" / "tiny-unigen"))


def test_an_adapter_is_all_that_is_trained_and_saved(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Over a model that reads through a tower: its projector stays as it is and is not saved again."""
    base = tiny_unigen(tmp_path / "base", reads_features=True)
    model = {"pretrained": str(base), "vision_tower": "tiny-siglip-vision"}
    assert train(policy_config(tiny_world, tmp_path, model=model, training=LORA)) == 0
    assert all("lora_" in name for name in weights(tmp_path / "run"))
    saved = load_unigen(tmp_path / "run/checkpoint-3/unwrapped_model", tiny_world.root)
    before, after = load_unigen(base).state_dict(), saved.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed
    assert all("_proj.weight" in name for name in changed)


def test_prompts_that_have_no_room_are_left_out_and_counted(tiny_world: TinyWorld, tmp_path: Path) -> None:
    lines = ["a red circle " * 200, *("a red circle" for _ in range(7))]
    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(lines))
    sources = {"asked": {"format": "prompts", "task": "t2i", "paths": [str(asked)]}}
    config = policy_config(tiny_world, tmp_path, data={"sources": sources, "max_bad_fraction": 1.0})
    assert train(config, "training.steps=2") == 0
    assert metrics(tmp_path / "run")[-1]["data/bad/too_long"] >= 1


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("grpo.group_size=1", "grpo.group_size is 1"),
        ("grpo.clip_range=0", "grpo.clip_range is 0"),
        ("grpo.kl_weight=0.1", "there is no training.lora"),
        ("training.lora={dropout: 0.1}", "training.lora.dropout is 0.1"),
        ("grpo.masked.steps=0", "grpo.masked.steps is 0"),
        ("grpo.flow.steps=4", "grpo.flow means nothing"),
        ("training.prompt_drop_prob=0.2", "training.prompt_drop_prob means nothing"),
        (
            "data.sources.asked={task: t2i, format: webdataset, paths: [a.tar]}",
            "data.sources.asked.format is webdataset",
        ),
        ("model.pretrained=null", "model.pretrained is null"),
    ],
)
def test_what_cannot_work_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], override: str, named: str
) -> None:
    assert train(config, override) == 2
    assert named in capsys.readouterr().err


def test_there_is_nothing_to_inspect_before_the_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(config), "--output", str(config.parent / "page.html")]) == 2
    assert "draws what it learns from while it runs" in capsys.readouterr().err
