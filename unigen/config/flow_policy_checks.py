# SPDX-License-Identifier: Apache-2.0
"""Settings of a policy that draws along a flow (stage grpo_generation of UAE) that cannot work, or that it would never read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unigen.config.policy import PUBLISHED_ENCODERS, CaptionRolloutConfig, GrpoConfig, MaskRolloutConfig

if TYPE_CHECKING:
    from unigen.config.schema import Config  # whose own check asks this module

OF_WRITING = ("max_new_tokens", "temperature", "batch_size")
"""All that is read of `grpo.caption`, where captions are written and not redrawn."""


def complain_of_flow(config: Config) -> Iterator[str]:
    """What is wrong, a line each: the key, the value and what to do."""
    yield from _of_steps(config.grpo)
    yield from _of_sources(config)
    yield from _of_unread(config)


def _of_steps(grpo: GrpoConfig) -> Iterator[str]:
    flow = grpo.flow
    most = 1.0 if flow.kind == "cps" else float("inf")
    if flow.steps < 2:
        yield f"grpo.flow.steps is {flow.steps}, but the last step is not noisy; give 2 or more"
    if flow.trained_steps is not None and not 1 <= flow.trained_steps < flow.steps:
        yield f"grpo.flow.trained_steps is {flow.trained_steps}; give 1 to {flow.steps - 1}, or null"
    if flow.trained_steps is None and flow.window != "random":
        yield f"grpo.flow.window is {flow.window}, but all steps are trained; set grpo.flow.trained_steps, or drop it"
    if not 0 < flow.noise_level <= most:
        yield f"grpo.flow.noise_level is {flow.noise_level}; give a number above 0{', up to 1' * (most == 1)}"
    if grpo.kl_form == "released" and flow.kind == "cps":
        yield "grpo.kl_form is released, which is that of kind sde, but grpo.flow.kind is cps; take exact"


def _of_sources(config: Config) -> Iterator[str]:
    """Samples in which prompts or rewards would find nothing to look at."""
    prompts, formats = config.grpo.flow.prompts, set[str]()
    for name, source in config.data.sources.items():
        if source.weight == 0:
            continue
        formats.add(source.format)
        if prompts == "written" and source.format == "prompts":
            yield f"data.sources.{name} has no images to write of; set grpo.flow.prompts=given"
        if prompts == "given" and source.task != "t2i":
            yield f"data.sources.{name}.task is {source.task}, which gives no prompts to draw; set it to t2i"
    for name, reward in config.grpo.rewards.items():
        if reward.kind in PUBLISHED_ENCODERS and reward.compares == "original" and "prompts" in formats:
            yield (
                f"grpo.rewards.{name} compares with an original, but a source in data.sources has format prompts, without "
                "images; compare with the prompt, or take another source"
            )
        if reward.kind == "detector" and formats != {"prompts"}:
            yield (
                f"grpo.rewards.{name}.kind is detector, which has to know what is asked for; take sources of format prompts "
                "alone"
            )


def _of_unread(config: Config) -> Iterator[str]:
    grpo, training, written = config.grpo, config.training, config.grpo.flow.prompts == "written"
    read = OF_WRITING if written else ()
    foreign = {
        "grpo.masked": grpo.masked != MaskRolloutConfig(),
        "grpo.kl_form": grpo.kl_form != GrpoConfig.kl_form and not grpo.kl_weight,
        "training.prompt_drop_prob": training.prompt_drop_prob != type(training).prompt_drop_prob,
        **{
            f"grpo.caption.{name}": value != getattr(CaptionRolloutConfig, name)
            for name, value in vars(grpo.caption).items()
            if name not in read
        },
    }
    for key, is_wrong in foreign.items():
        if is_wrong:
            yield f"{key} means nothing for stage {config.stage} as it is set up here; drop it"
    for name in read:
        if not (value := getattr(grpo.caption, name)) > 0:
            yield f"grpo.caption.{name} is {value}; give a number above 0"
