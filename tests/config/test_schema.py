# SPDX-License-Identifier: Apache-2.0
"""Combinations that cannot work are refused before anything loads."""

from dataclasses import replace
from typing import Any

import pytest

from unigen.config.schema import (
    Config,
    DataConfig,
    DpoConfig,
    ExperimentConfig,
    LoraConfig,
    ModelConfig,
    ScheduleConfig,
    SourceConfig,
    TrainingConfig,
    ValidationConfig,
)
from unigen.errors import ConfigError

SOURCE = SourceConfig(task="t2i", format="webdataset", paths=["a.tar"])


def sound_config(**sections: Any) -> Config:
    defaults: dict[str, Any] = {
        "experiment": ExperimentConfig(name="check", output_dir="out"),
        "data": DataConfig(sources={"drawing": SOURCE}),
        "training": TrainingConfig(samples_per_step={"t2i": 8}),
    }
    return Config(stage=sections.pop("stage", "pretrain"), **{**defaults, **sections})


def test_a_sound_configuration_passes() -> None:
    assert sound_config().training.samples_per_step == {"t2i": 8}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"samples_per_step": {}}, "training.samples_per_step is empty"),
        ({"samples_per_step": {"t2i": 0}}, "training.samples_per_step is empty"),
        ({"samples_per_step": {"t2i": 8, "lm": -1}}, "training.samples_per_step.lm is -1"),
        ({"samples_per_step": {"t2i": 8, "draw": 1}}, "training.samples_per_step.draw is not a task"),
        ({"samples_per_step": {"t2i": 8, "lm": 2}}, "no source in data.sources has task lm"),
        ({"loss_weights": {"draw": 1.0}}, "training.loss_weights.draw"),
        ({"steps": 0}, "training.steps is 0"),
        ({"num_gpus": 0}, "training.num_gpus is 0"),
        ({"prompt_drop_prob": 1.0}, "training.prompt_drop_prob is 1.0"),
        ({"ema_decay": 1.0}, "training.ema_decay is 1.0"),
        ({"gradient_clipping": -1.0}, "training.gradient_clipping is -1.0"),
        ({"tokens_per_row": 100}, "training.tokens_per_row is 100"),
        ({"min_mask_ratio": 1.5}, "training.min_mask_ratio is 1.5"),
    ],
)
def test_training_that_cannot_work_is_refused(change: dict[str, Any], named: str) -> None:
    training = replace(TrainingConfig(samples_per_step={"t2i": 8}), **change)
    with pytest.raises(ConfigError, match=named):
        sound_config(training=training)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task": "lm"}, "data.sources.drawing.task is lm, but format webdataset"),
        ({"take": ["50%"]}, "data.sources.drawing.take"),
        ({"images": "folder"}, "data.sources.drawing.images"),
        ({"task": "mmu", "short_caption_prob": 0.5}, "data.sources.drawing.short_caption_prob"),
        ({"short_caption_prob": 2.0}, "data.sources.drawing.short_caption_prob is 2.0"),
        ({"caption_prompts": "long"}, "data.sources.drawing.caption_prompts means nothing"),
        ({"task": "mmu", "conversations_key": "talk", "caption_prompts": "long"}, "caption_prompts means nothing"),
        ({"weight": -1.0}, "data.sources.drawing.weight is -1.0"),
    ],
)
def test_keys_that_a_source_would_never_read_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sound_config(data=DataConfig(sources={"drawing": replace(SOURCE, **change), "more": SOURCE}))


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"stage": "sft"}, "model.vision_tower is null"),
        ({"stage": "vision"}, "model.vision_tower is null"),
        ({"model": ModelConfig(initialization="random", pretrained="x")}, "drop one of them"),
        ({"model": ModelConfig(max_text_tokens=0)}, "model.max_text_tokens is 0"),
        ({"data": DataConfig(sources={"drawing": SOURCE}, lanes=0)}, "data.lanes is 0"),
        ({"experiment": ExperimentConfig(name="a", output_dir="b", trackers=["wandbx"])}, "wandbx"),
    ],
)
def test_sections_that_do_not_fit_are_refused(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sound_config(**sections)


def test_lora_is_for_language_models() -> None:
    with pytest.raises(ConfigError, match=r"training\.lora needs stage pretrain, sft, dpo"):
        sound_config(stage="tokenizer", training=TrainingConfig(samples_per_step={"t2i": 8}, lora=LoraConfig()))


PAIRS = SourceConfig("t2i", "preferences", ["pairs.jsonl"])


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"model": ModelConfig()}, "model.pretrained is null"),
        ({"dpo": DpoConfig(beta=0.0)}, "dpo.beta is 0.0"),
        ({"dpo": DpoConfig(sft_weight=-1.0)}, "dpo.sft_weight is -1.0"),
        ({"dpo": DpoConfig(reference="adapter_off")}, "no training.lora"),
        ({"training": TrainingConfig(samples_per_step={"t2i": 8}, loss_weights={"t2i": 1.0})}, "training.loss_weights"),
        ({"data": DataConfig(sources={"pairs": SOURCE})}, "dpo trains on preferences alone"),
        ({"stage": "pretrain"}, "dpo trains on preferences alone"),
        ({"data": DataConfig(sources={"pairs": replace(PAIRS, caption_key="x")})}, "data.sources.pairs.caption_key"),
        ({"schedule": ScheduleConfig(warmup_steps=5, warmup_ratio=0.1)}, "set one of them to 0"),
    ],
)
def test_what_preference_optimisation_cannot_do_is_refused(sections: dict[str, Any], named: str) -> None:
    fits = {
        "stage": "dpo",
        "model": ModelConfig(pretrained="sft"),
        "data": DataConfig(sources={"pairs": PAIRS}),
        "training": TrainingConfig(samples_per_step={"t2i": 8}),
    }
    assert sound_config(**fits).stage == "dpo"
    with pytest.raises(ConfigError, match=named):
        sound_config(**{**fits, **sections})


@pytest.mark.parametrize("stage", ["pretrain", "dpo", "tokenizer"])
def test_prompts_without_images_are_for_the_stage_that_draws_them(stage: Any) -> None:
    asked = {"asked": SourceConfig("t2i", "prompts", ["prompts/train.jsonl"])}
    with pytest.raises(ConfigError, match=r"data\.sources\.asked\.format is prompts"):
        sound_config(stage=stage, data=DataConfig(sources=asked))


def test_the_message_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        sound_config(training=TrainingConfig(samples_per_step={"lm": 1}))
    assert "\n" not in str(caught.value)


def test_validation_images_are_off_unless_asked_for() -> None:
    assert ValidationConfig().every == 0
