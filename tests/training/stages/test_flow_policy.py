# SPDX-License-Identifier: Apache-2.0
"""UAE's decoder as a policy: probabilities of what it drew, the loss against the slow twin, windows, and what rewards teach."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.steps import first_step, gradients
from tests.uae_stages import STEPS, stopped_and_gone_on, uae_config
from tests.world import TinyWorld, metrics, train, weights
from unigen.models.uae_checkpoints import load_uae
from unigen.objectives.flow_matching import sampling_sigmas
from unigen.reference.flow_policy import (
    SlowTerm,
    slow_log_prob,
    slow_policy_loss,
    slow_step_divergence,
    slow_transition,
)
from unigen.training.stages.flow_policy import KL, FlowPolicyStage
from unigen.training.stages.policy import LOSS, PolicyBatch, PromptSample, Rollout
from unigen.training.stages.reference import adapter_off

LORA = {"rank": 2, "alpha": 4}
FLOW = {"steps": 4, "prompts": "given"}
CASES = ["kind=sde", "kind=cps", "guidance_scale=1"]


def policy_config(
    world: TinyWorld, folder: Path, reward: str = "redness", grpo: dict[str, Any] | None = None, **sections: Any
) -> Path:
    rewards = {"red": {"kind": "callable", "function": f"tests.image_rewards:{reward}"}}
    given = grpo or {}
    flow = {**FLOW, **given.get("flow", {})}
    whole = {"group_size": 3, "rewards": rewards, **given, "flow": flow}
    training = {"lora": LORA, "samples_per_step": {"t2i": 2}, **sections.pop("training", {})}
    return uae_config(world, folder, "grpo_generation", grpo=whole, training=training, **sections)


def begun(config: Path, *overrides: str) -> tuple[FlowPolicyStage, list[PromptSample]]:
    stage, samples = first_step(config, *overrides)
    assert isinstance(stage, FlowPolicyStage)
    return stage, samples  # type: ignore[return-value]


def learnt(stage: FlowPolicyStage, samples: Sequence[PromptSample], monkeypatch: pytest.MonkeyPatch) -> list[Rollout]:
    """The rollouts of a global step, with their advantages."""
    found: list[Rollout] = []
    make = stage.batches
    monkeypatch.setattr(stage, "batches", lambda rollouts: (found.extend(rollouts), make(rollouts))[1])
    stage.updates(samples)
    monkeypatch.setattr(stage, "batches", make)
    return found


def loss_of(
    stage: FlowPolicyStage, batches: Sequence[PolicyBatch], num_terms: int
) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Total of an update, its gradients, and the mean of everything that is watched."""
    weights_of = {LOSS: 1.0, **stage.loss_weights()}
    scales = {name: weights_of[name] / num_terms for name in (LOSS, KL)}
    stage.zero_grad()
    loss, sums = 0.0, dict[str, float]()
    for batch in batches:
        total, parts = stage(batch, scales)
        total.backward()
        loss += float(total.detach())
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value) / num_terms
    return loss, gradients(stage), sums


def move(stage: FlowPolicyStage, size: float) -> None:
    """Change what is trained a little, so that the policy is not the one that drew any more."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in stage.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to a thousandth of the largest entry of each: a log-probability divides what rounding moves by a small width."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name


@pytest.mark.parametrize("case", CASES)
def test_in_the_first_update_the_ratio_of_probabilities_is_one(
    case: str, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = begun(policy_config(tiny_world, tmp_path), f"grpo.flow.{case}")
    rollouts = learnt(stage, samples, monkeypatch)
    alone = [batch for one in rollouts for batch in stage.batches([one])]  # not as they were drawn
    assert len(alone) == 3 * len(rollouts) == 3 * 6
    for batch in [*stage.batches(rollouts), *alone]:
        _, sums = stage(batch, {})
        assert float(sums["policy/ratio_deviation"]) <= 1e-4 * len(batch.keys)
    move(stage, 0.1)
    deviations = [float(stage(batch, {})[1]["policy/ratio_deviation"]) for batch in alone]
    assert max(deviations) > 1e-3


@pytest.mark.parametrize(
    ("case", "form"),
    [("kind=sde", "exact"), ("kind=cps", "exact"), ("guidance_scale=1", "released"), ("window=start", "released")],
)
def test_loss_and_gradient_are_those_of_the_terms_one_by_one(
    case: str, form: str, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("grpo.flow.trained_steps=2", "model.uae.decoder_text_mask=true") if case == "window=start" else ()
    words = ("grpo.kl_weight=0.5", f"grpo.kl_form={form}", "grpo.clip_range=0.003", f"grpo.flow.{case}", *more)
    stage, samples = begun(policy_config(tiny_world, tmp_path), *words)
    rollouts = learnt(stage, samples, monkeypatch)
    move(stage, 0.02)
    num_terms = stage.counts(rollouts)[LOSS]
    found, moved, sums = loss_of(stage, list(stage.batches(rollouts)), num_terms)
    assert 0 < sums["policy/clipped_fraction"] < 1
    stage.zero_grad()
    expected = _slow_loss(stage, rollouts)
    expected.backward()
    assert found == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    assert_near(moved, gradients(stage))


def _slow_loss(stage: FlowPolicyStage, rollouts: Sequence[Rollout]) -> Tensor:
    grpo = stage._config.grpo
    sigmas, settings = sampling_sigmas(grpo.flow.steps, stage.uae.config.shift).tolist(), stage._settings()
    losses = []
    for one in rollouts:
        for step in one.record.steps:
            states = (one.record.prompt, one.record.null, step.number, step.sample_Chw, step.next_Chw)
            term = SlowTerm(*states, float(step.log_prob), one.advantage)
            told = (term, sigmas, settings, grpo.flow.guidance_scale)
            is_masked = stage.uae.config.decoder_text_mask
            found = slow_transition(stage.uae, *told, is_masked=is_masked)
            with torch.no_grad(), adapter_off(stage.model):  # type: ignore[arg-type]
                reference = slow_transition(stage.uae, *told, is_masked=is_masked)
            length = sigmas[step.number] - sigmas[step.number + 1]
            divergence = slow_step_divergence(found, reference, length, grpo.kl_form)
            loss = slow_policy_loss(slow_log_prob(found, term, settings), term, grpo.clip_range)
            losses.append(loss + grpo.kl_weight * divergence)
    return torch.stack(losses).mean()


def test_batches_of_any_size_give_the_same_gradient_and_empty_ones_none(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = begun(policy_config(tiny_world, tmp_path), "grpo.kl_weight=0.5")
    rollouts = learnt(stage, samples, monkeypatch)
    move(stage, 0.02)
    num_terms = stage.counts(rollouts)[LOSS]
    loss, expected, _ = loss_of(stage, list(stage.batches(rollouts)), num_terms)
    parts = [batch for one in reversed(rollouts) for batch in stage.batches([one])]
    again, found, _ = loss_of(stage, [*parts, stage.empty_batch()], num_terms)
    assert again == pytest.approx(loss, rel=1e-4)
    assert_near(found, expected)
    nothing, zero, _ = loss_of(stage, [stage.empty_batch()], num_terms)
    assert nothing == 0
    assert zero.keys() == expected.keys()  # else ranks would wait for each other
    assert not any(bool(gradient.any()) for gradient in zero.values())


def test_layers_that_are_computed_again_give_the_same_gradient(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = policy_config(tiny_world, tmp_path, grpo={"kl_weight": 0.5})
    (plain, samples), (again, _) = begun(config), begun(config, "training.recompute=full")
    rollouts = learnt(plain, samples, monkeypatch)
    found = []
    for stage in (plain, again):
        move(stage, 0.02)
        found.append(loss_of(stage, list(stage.batches(rollouts)), stage.counts(rollouts)[LOSS]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_near(found[1][1], found[0][1])


@pytest.mark.parametrize("size", [1, 2])
def test_a_window_of_few_steps_is_all_that_is_noisy_and_trained(
    size: int, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = policy_config(tiny_world, tmp_path, grpo={"flow": {"steps": 6}, "group_size": 2})
    stage, samples = begun(config, f"grpo.flow.trained_steps={size}")
    for visit in range(2):
        again = [replace(sample, visit=visit) for sample in samples]
        (update,) = stage.updates(again)
        numbers = set[int]().union(*(batch.tensors["numbers_B"].tolist() for batch in update.batches))
        start = min(numbers)
        assert numbers == set(range(start, start + size))
        assert update.counts[LOSS] == size * 4
        assert stage._draw_window(again[::-1]) == (start, start + size)
    drawn = [stage._draw_window([replace(sample, visit=visit) for sample in samples]) for visit in range(60)]
    assert {start for start, _ in drawn} == set(range(3 - size + 1))


def test_the_last_step_is_neither_noisy_nor_trained(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = begun(policy_config(tiny_world, tmp_path))
    (first, *_) = learnt(stage, samples, monkeypatch)
    assert [step.number for step in first.record.steps] == [0, 1, 2]


def test_the_images_of_a_group_are_drawn_from_one_prompt_and_no_two_are_equal(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = begun(policy_config(tiny_world, tmp_path, reward="sameness"), "grpo.flow.prompts=written")
    monkeypatch.setattr("unigen.generation.uae.UaePipeline.ask_requests", _number_of_image)
    rollouts = learnt(stage, samples, monkeypatch)
    groups = [rollouts[:3], rollouts[3:]]
    for group, sample, words in zip(groups, samples, ["picture 0", "picture 1"], strict=True):
        assert {one.judged.prompt for one in group} == {words}
        assert {one.judged.key for one in group} == {sample.key}
        assert all(one.judged.original is sample.content.original for one in group)
    assert len({one.judged.image.tobytes() for one in rollouts}) == 6


def _number_of_image(self: Any, requests: Any, **settings: Any) -> Any:
    return (f"picture {number}" for number, _ in enumerate(requests))


def test_captions_are_written_as_the_key_says_and_may_be_empty(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("grpo.flow.prompts=written", "grpo.caption.max_new_tokens=3", "grpo.caption.temperature=0.5")
    stage, samples = begun(policy_config(tiny_world, tmp_path), *short)
    rollouts = learnt(stage, samples, monkeypatch)
    again = learnt(stage, samples[::-1], monkeypatch)
    assert {one.judged.prompt for one in rollouts} == {one.judged.prompt for one in again}
    assert len({one.judged.prompt for one in rollouts}) == len(samples)
    empty = [replace(sample, content=replace(sample.content, prompt="")) for sample in samples]
    (update,) = stage.updates(empty)
    assert update.counts[LOSS] == 18
    loss, _, _ = loss_of(stage, list(update.batches), 18)
    assert math.isfinite(loss)


def test_images_without_a_reward_are_left_out_and_named_and_groups_without_spread_teach_nothing(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = policy_config(tiny_world, tmp_path, reward="redness_if_bright", grpo={"group_size": 6})
    stage, samples = begun(config)
    (update,) = stage.updates(samples)
    missing, number = update.measured["reward/missing_fraction"]
    assert 0 < missing < number
    assert len(update.notes) == missing
    assert all("red" in note and samples[0].key.split("/")[0] in note for note in update.notes)
    assert update.counts[LOSS] <= 3 * (number - missing)
    same = policy_config(tiny_world, tmp_path / "same", reward="nothing", training={"steps": 2})
    assert train(same) == 0
    before = load_uae(tiny_world.root / "checkpoints" / "tiny-uae").state_dict()
    merged = load_uae(tmp_path / "same" / "run" / "checkpoint-2" / "unwrapped_model", tiny_world.root).state_dict()
    assert all(torch.equal(merged[name], tensor) for name, tensor in before.items())
    assert metrics(tmp_path / "same" / "run")[-1]["groups/without_spread"] == 1


def test_a_second_update_from_the_same_rollouts_is_off_the_policy(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = policy_config(tiny_world, tmp_path, training={"steps": 1}, optimizer={"learning_rate": 0.01})
    stage, samples = begun(config, "grpo.updates_per_rollout=2")
    first, second = stage.updates(samples)
    _, before, on_policy = loss_of(stage, list(first.batches), first.counts[LOSS])
    assert on_policy["policy/ratio_deviation"] <= 1e-4
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            if name in before:
                parameter.sub_(0.01 * before[name].sign())
    _, _, off_policy = loss_of(stage, list(second.batches), second.counts[LOSS])
    assert off_policy["policy/ratio_deviation"] > 1e-4


def test_whole_weights_of_the_decoder_are_trained_where_there_is_no_adapter(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    assert train(policy_config(tiny_world, tmp_path, training={"lora": None, "steps": 1})) == 0
    before, after = load_uae(tiny_world.root / "checkpoints" / "tiny-uae").state_dict(), weights(tmp_path / "run")
    assert {name.partition(".")[0] for name, one in after.items() if not torch.equal(one, before[name])} == {"decoder"}


def test_a_run_that_was_stopped_ends_with_the_same_bits(tiny_world: TinyWorld, tmp_path: Path) -> None:
    grpo = {"flow": {"trained_steps": 1, "steps": 4, "prompts": "written"}, "caption": {"max_new_tokens": 4}}
    config = policy_config(tiny_world, tmp_path, grpo=grpo, training={"ema_decay": 0.5})
    stopped_and_gone_on(config, tmp_path, "grpo.kl_weight=0.01")
    whole, again = (tmp_path / name / f"checkpoint-{STEPS}" for name in ("whole", "again"))
    files = sorted(file.relative_to(whole) for file in whole.rglob("*.safetensors"))
    assert {file.parts[0] for file in files} == {"unwrapped_model", "ema_model", "state"}
    for file in files:
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file
    average, last = (weights_in(whole / kind) for kind in ("ema_model", "unwrapped_model"))
    assert any(not torch.equal(average[name], tensor) for name, tensor in last.items())


def weights_in(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_a_reward_for_red_images_rises_and_shuffled_advantages_do_not_follow_it(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    grpo = {"group_size": 8, "flow": {"guidance_scale": 1}}
    training = {"lora": None, "steps": 26, "rows_per_micro_batch": 16}
    rises = []
    for shuffled in (False, True):
        folder = tmp_path / str(shuffled)
        config = policy_config(tiny_world, folder, grpo={**grpo, "shuffle_advantages": shuffled}, training=training)
        assert train(config, "optimizer.learning_rate=0.01", "experiment.checkpoint_every=0") == 0
        rewards = [line["reward/total"] for line in metrics(folder / "run")]
        rises.append(sum(rewards[-5:]) / 5 - sum(rewards[:5]) / 5)
    spread = metrics(folder / "run")[0]["reward/group_deviation"]
    assert rises[0] > 5 * spread
    assert abs(rises[1]) < rises[0] / 2
