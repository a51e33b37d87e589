# SPDX-License-Identifier: Apache-2.0
"""Settings of a policy over masked tokens (stage grpo_generation of UniGen) that cannot work, or that it would never read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unigen.config.policy import PUBLISHED_ENCODERS, CaptionRolloutConfig, FlowRolloutConfig, GrpoConfig

if TYPE_CHECKING:
    from unigen.config.schema import Config  # whose own check asks this module

UNREAD_IN_TRAINING = ("prompt_drop_prob", "mask_schedule", "min_mask_ratio", "image_softmax")
"""Keys of `training` for rows that are masked at random."""


def complain_of_masked(config: Config) -> Iterator[str]:
    """What is wrong, a line each: the key, the value and what to do."""
    yield from _of_numbers(config)
    yield from _of_start_and_sources(config)
    yield from _of_unread(config)


def _of_numbers(config: Config) -> Iterator[str]:
    masked = config.grpo.masked
    for key in ("steps", "batch_size"):
        if not getattr(masked, key) > 0:
            yield f"grpo.masked.{key} is {getattr(masked, key)}; give a number above 0"
    for key in ("guidance_scale", "temperature"):
        if not getattr(masked, key) >= 0:
            yield f"grpo.masked.{key} is {getattr(masked, key)}; give 0 or more"


def _of_start_and_sources(config: Config) -> Iterator[str]:
    if config.model.pretrained is None:
        yield "stage grpo_generation goes on from a model that draws, but model.pretrained is null; name a checkpoint"
    for name, source in config.data.sources.items():
        if source.weight > 0 and source.format != "prompts":
            yield (
                f"data.sources.{name}.format is {source.format}, but stage grpo_generation of model.family=unigen draws prompts "
                "and looks at no image; take format prompts"
            )
    for name, reward in config.grpo.rewards.items():
        if reward.kind in PUBLISHED_ENCODERS and reward.compares == "original":
            yield f"grpo.rewards.{name} compares with an original, but prompts have none; set its compares=prompt"


def _of_unread(config: Config) -> Iterator[str]:
    grpo, training = config.grpo, config.training
    foreign = {
        "grpo.flow": grpo.flow != FlowRolloutConfig(),
        "grpo.caption": grpo.caption != CaptionRolloutConfig(),
        "grpo.kl_form": grpo.kl_form != GrpoConfig.kl_form,
        **{f"training.{key}": getattr(training, key) != getattr(type(training), key) for key in UNREAD_IN_TRAINING},
    }
    for key, is_given in foreign.items():
        if is_given:
            yield f"{key} means nothing for stage grpo_generation of model.family=unigen; drop it"
