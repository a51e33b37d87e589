# SPDX-License-Identifier: Apache-2.0
"""The stage grpo_understanding: probabilities equal to the plain twin's, one policy for writing and for learning, and runs that
learn what is rewarded and nothing else."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.steps import assert_equal_gradients, first_step, gradients
from tests.uae_stages import stopped_and_gone_on, uae_config
from tests.world import TinyWorld, metrics, train, weights
from unigen.config.load import load_config
from unigen.errors import ConfigError
from unigen.generation.uae import STOP, UaePipeline
from unigen.models.uae_checkpoints import load_uae
from unigen.reference.caption_policy import caption_log_probs_slowly
from unigen.reference.policy_gradient import clipped_loss_slowly
from unigen.training.stages.caption_policy import KL, CaptionPolicyStage
from unigen.training.stages.policy import LOSS, PromptSample, Rollout
from unigen.training.stages.stage import Update

LORA = {"rank": 4, "alpha": 8}
SHORT = {"max_new_tokens": 5, "draw_steps": 1, "guidance_scale": 1.0}


def caption_config(world: TinyWorld, folder: Path, reward: str = "share_of_vowels", **sections: Any) -> Path:
    """A run of short captions, whose reward is a function of `tests.caption_rewards`."""
    grpo = {
        "rewards": {"words": {"kind": "callable", "function": f"tests.caption_rewards:{reward}"}},
        "group_size": 4,
        "clip_range": 0.2,
        **sections.get("grpo", {}),
        "caption": {**SHORT, **sections.get("grpo", {}).get("caption", {})},
    }
    training = {"lora": LORA, "samples_per_step": {"mmu": 2}, "rows_per_micro_batch": 3, **sections.get("training", {})}
    model = {"uae": {"caption_request": "what is it?"}}
    return uae_config(
        world, folder, "grpo_understanding", **{**sections, "grpo": grpo, "training": training, "model": model}
    )


def opened(config: Path, *overrides: str) -> tuple[CaptionPolicyStage, list[PromptSample]]:
    stage, samples = first_step(config, *overrides)
    assert isinstance(stage, CaptionPolicyStage)
    return stage, samples  # type: ignore[return-value]  # of this stage the samples are prompts


def nudge(stage: CaptionPolicyStage, size: float = 0.05) -> None:
    """Weights that are no longer those that the captions were written by."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=generator)


def roll_out(stage: CaptionPolicyStage, samples: Sequence[PromptSample]) -> list[Rollout]:
    with torch.no_grad():
        return stage.eval().roll_out([request for sample in samples for request in stage._requests(sample, 0)])


def backward(stage: CaptionPolicyStage, update: Update) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Means of the losses and metrics of an update, and its gradients, as the loop computes them."""
    weights = stage.loss_weights()
    scales = {name: weights.get(name, 1.0) / count for name, count in update.counts.items()}
    stage.zero_grad()
    sums: dict[str, float] = {}
    for batch in update.batches:
        total, parts = stage(batch, scales)
        total.backward()
        sums = {name: sums.get(name, 0.0) + float(value) for name, value in parts.items()}
    return {name: value / update.counts[LOSS] for name, value in sums.items()}, gradients(stage)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_and_entropies_are_those_of_the_plain_twin(
    temperature: float, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = caption_config(tiny_world, tmp_path, grpo={"caption": {"temperature": temperature}})
    stage, samples = opened(config)
    nudge(stage)
    for rollout in roll_out(stage, samples)[::3]:
        record = rollout.record
        text_size = len(stage._processor.tokenizer)
        expected, entropies = caption_log_probs_slowly(
            stage.uae.llm, record.written.inputs, record.written.token_ids, text_size, temperature
        )
        assert record.log_probs_T.tolist() == pytest.approx(expected, abs=1e-4)
        assert rollout.measured["caption/entropy"] == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)
        assert rollout.measured["caption/length"] == len(expected)


def test_the_numbers_of_a_seed_choose_the_tokens_by_these_very_probabilities(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """Under a low temperature a caption is the most probable one, and its log-probability near 0."""
    config = caption_config(tiny_world, tmp_path, grpo={"caption": {"temperature": 0.01}})
    stage, samples = opened(config)
    log_probs = torch.cat([one.record.log_probs_T for one in roll_out(stage, samples)])
    assert log_probs.exp().median() > 0.99


def test_in_the_first_update_the_ratio_is_one_and_in_the_second_no_longer(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = caption_config(tiny_world, tmp_path, grpo={"updates_per_rollout": 2, "kl_weight": 0.1})
    stage, samples = opened(config)
    nudge(stage)  # so that the adapter is not the reference, and does something
    first, second = stage.updates(samples)
    means, _ = backward(stage, first)
    assert means["policy/ratio_deviation"] <= 1e-4
    assert means["policy/ratio"] == pytest.approx(1, abs=1e-4)
    assert means[KL] > 1e-4
    torch.optim.SGD(stage.parameters(), lr=0.1).step()
    means, _ = backward(stage, second)
    assert means["policy/ratio_deviation"] > 1e-3


def test_with_bfloat16_the_frozen_weights_are_rounded_and_rollouts_and_learning_round_alike(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = caption_config(tiny_world, tmp_path, training={"precision": "bfloat16", "rows_per_micro_batch": 8})
    stage, samples = opened(config)
    nudge(stage, 0.02)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in stage.parameters()}
    assert kinds == {False: torch.bfloat16, True: torch.float32}
    (update,) = stage.updates(samples)
    with torch.autocast("cpu", torch.bfloat16):
        means, found = backward(stage, update)
    assert means["policy/ratio_deviation"] < 0.01
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())


def test_before_the_first_step_policy_and_reference_are_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path, grpo={"kl_weight": 0.1}))
    (update,) = stage.updates(samples)
    means, _ = backward(stage, update)
    assert means[KL] == 0


def test_the_loss_is_that_of_the_tokens_one_by_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = caption_config(tiny_world, tmp_path, grpo={"kl_weight": 0.3, "clip_range": 0.05})
    stage, samples = opened(config)
    rollouts = [replace_advantage(one, number - 3.0) for number, one in enumerate(roll_out(stage, samples))]
    update = Update(stage.counts(rollouts), list(stage.batches(rollouts)))
    nudge(stage, 0.02)
    means, _ = backward(stage, update)
    losses, divergences = [], []
    for one in rollouts:
        written = one.record.written
        now, _ = caption_log_probs_slowly(
            stage.uae.llm, written.inputs, written.token_ids, len(stage._processor.tokenizer), 1.0
        )
        losses += [
            clipped_loss_slowly(new, float(old), one.advantage, 0.05)
            for new, old in zip(now, one.record.log_probs_T, strict=True)
        ]
        gaps = [float(old) - new for new, old in zip(now, one.record.reference_log_probs_T, strict=True)]
        divergences += [math.exp(gap) - gap - 1 for gap in gaps]
    assert means[LOSS] == pytest.approx(sum(losses) / len(losses), rel=1e-3, abs=1e-4)
    assert means[KL] == pytest.approx(sum(divergences) / len(divergences), rel=1e-3, abs=1e-5)
    assert 0 < means["policy/clipped_fraction"] < 1


def replace_advantage(rollout: Rollout, advantage: float) -> Rollout:
    return Rollout(rollout.judged, rollout.record, advantage, rollout.measured)


@pytest.mark.parametrize("rows", [1, 8])
def test_micro_batches_change_neither_loss_nor_gradients(rows: int, tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path))
    (update,) = stage.updates(samples)
    means, expected = backward(stage, update)
    other, same = opened(caption_config(tiny_world, tmp_path, training={"rows_per_micro_batch": rows}))
    (again,) = other.updates(same)
    assert len(again.batches) != len(update.batches)
    found_means, found = backward(other, again)
    assert found_means[LOSS] == pytest.approx(means[LOSS], abs=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_batch_of_nothing_reaches_all_trained_weights_and_moves_none(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path, grpo={"kl_weight": 0.1}))
    (update,) = stage.updates(samples)
    _, expected = backward(stage, update)
    _, found = backward(stage, Update(update.counts, [*update.batches, stage.empty_batch()]))
    assert_equal_gradients(found, expected)
    _, nothing = backward(stage, Update(update.counts, [stage.empty_batch()]))
    trained = {name for name, parameter in stage.named_parameters() if parameter.requires_grad}
    assert nothing.keys() == trained
    assert not any(gradient.any() for gradient in nothing.values())


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "whole weights"])
def test_the_language_model_alone_is_trained(lora: Any, tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path, training={"lora": lora}))
    (update,) = stage.updates(samples)
    _, found = backward(stage, update)
    assert found
    assert all(".llm.model.language_model." in f".{name}" for name in found)
    assert {".lora_" in name for name in found} == {lora is not None}


def written_as(token_ids: Sequence[int]) -> Any:
    """In the place of `UaePipeline.write`."""
    return lambda pipeline, inputs, seeds, settings: [list(token_ids) for _ in seeds]


def test_an_empty_caption_is_drawn_from_the_empty_prompt_and_learnt_from(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path))
    monkeypatch.setattr(UaePipeline, "write", written_as([stage._processor.tokenizer.convert_tokens_to_ids(STOP)]))
    rollouts = [replace_advantage(one, 1.0) for one in roll_out(stage, samples)]
    for one in rollouts:
        assert one.judged.prompt == ""
        assert one.judged.image.size == (16, 16)
        assert one.record.log_probs_T.shape == (1,)
        assert one.measured["caption/finished_fraction"] == 1.0
    means, found = backward(stage, Update(stage.counts(rollouts), list(stage.batches(rollouts))))
    assert means[LOSS] == pytest.approx(-1)
    assert any(bool(gradient.any()) for gradient in found.values())


@pytest.mark.parametrize("same_noise", [True, False])
def test_captions_of_an_image_start_from_one_noise_or_each_from_its_own(
    same_noise: bool, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, samples = opened(caption_config(tiny_world, tmp_path, grpo={"caption": {"same_noise": same_noise}}))
    monkeypatch.setattr(UaePipeline, "write", written_as([40, 41, 42]))
    judged = [one.judged for one in roll_out(stage, samples)]
    assert len({one.image.tobytes() for one in judged}) == (len(samples) if same_noise else len(judged))
    assert [one.original for one in judged[:4]] == [samples[0].content.image] * 4


def test_a_mark_of_an_image_that_a_model_writes_is_a_word(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no image: its embedding is what counts."""
    stage, samples = opened(caption_config(tiny_world, tmp_path))
    mark = stage.uae.config.llm_config.image_token_id
    found = []
    for token in (mark, 41):
        monkeypatch.setattr(UaePipeline, "write", written_as([40, token, 42]))
        with torch.no_grad():
            stage.uae.get_input_embeddings().weight[41] = stage.uae.get_input_embeddings().weight[mark]
        found.append(roll_out(stage, samples)[0].record.log_probs_T)
    assert found[0].tolist() == pytest.approx(found[1].tolist(), abs=1e-6)


def test_images_that_are_all_alike_teach_nothing_and_stop_nothing(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = caption_config(tiny_world, tmp_path, "always_one", training={"steps": 1})
    assert train(config, "optimizer.weight_decay=0") == 0
    (line,) = metrics(tmp_path / "run")
    assert (line["groups/without_spread"], line["groups/refilled"]) == (1.0, 1.0)
    assert line["training/non_finite_steps"] == 0
    assert not any(tensor.any() for name, tensor in weights(tmp_path / "run").items() if ".lora_B." in name)


def test_a_caption_whose_reward_is_no_number_is_left_out(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = caption_config(
        tiny_world, tmp_path, "missing_for_odd_lengths", training={"steps": 2, "samples_per_step": {"mmu": 4}}
    )
    assert train(config) == 0
    for line in metrics(tmp_path / "run"):
        assert 0 < line["reward/missing_fraction"] < 1
        assert math.isfinite(line["loss/policy"])
        assert math.isfinite(line["reward/total"])


def test_a_stopped_run_goes_on_bitwise(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = caption_config(tiny_world, tmp_path, grpo={"kl_weight": 0.05, "updates_per_rollout": 2})
    whole, again = stopped_and_gone_on(config, tmp_path, "optimizer.learning_rate=0.01", "training.ema_decay=0.9")
    assert whole.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    before = load_uae(tiny_world.root / "checkpoints" / "tiny-uae").state_dict()
    after = load_uae(tmp_path / "whole" / "checkpoint-4" / "unwrapped_model", tiny_world.root).state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved
    assert all(name.startswith("llm.model.language_model.layers.") for name in moved)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("training.lora.dropout=0.1", "training.lora.dropout"),
        ("grpo.group_size=1", "grpo.group_size"),
        ("grpo.flow.steps=3", "grpo.flow"),
        ("grpo.kl_form=released", "grpo.kl_form"),
        ("grpo.caption.temperature=0", "grpo.caption.temperature"),
        ("training.loss_weights={mmu: 2}", "training.loss_weights"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    words: str, complaint: str, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(caption_config(tiny_world, tmp_path), [words])


def test_other_stages_have_no_policy() -> None:
    with pytest.raises(ConfigError, match="grpo is for stages that learn from rewards"):
        load_config("configs/shapes/sft.yaml", ["grpo.group_size=4"])


def test_a_reference_needs_an_adapter(tiny_world: TinyWorld, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.lora"):
        load_config(caption_config(tiny_world, tmp_path, training={"lora": None}), ["grpo.kl_weight=0.1"])


def test_a_run_learns_what_is_rewarded_and_from_shuffled_advantages_nothing(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """Step by step both describe the same images with the same random numbers."""
    sections: dict[str, Any] = {
        "experiment": {"checkpoint_every": 0},
        "optimizer": {"learning_rate": 0.01},
        "training": {"steps": 24, "samples_per_step": {"mmu": 4}, "rows_per_micro_batch": 32},
        "grpo": {"group_size": 8, "caption": {"max_new_tokens": 6, "batch_size": 32}},
    }
    rewards = {}
    for name in ("true", "shuffled"):
        config = caption_config(tiny_world, tmp_path / name, **sections)
        assert train(config, f"grpo.shuffle_advantages={name == 'shuffled'}") == 0
        rewards[name] = [line["reward/total"] for line in metrics(tmp_path / name / "run")]
    assert rewards["true"][0] == rewards["shuffled"][0]
    learnt, control = (sum(values[-6:]) / 6 - sum(values[:6]) / 6 for values in rewards.values())
    assert learnt > 0.15  # a quarter of the letters are vowels at the beginning
    assert abs(control) < 0.05
    assert all(one > other for one, other in zip(rewards["true"][-6:], rewards["shuffled"][-6:], strict=True))
