# SPDX-License-Identifier: Apache-2.0
"""Settings of stages that learn from rewards that cannot work, or that the stage would never read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from unigen.config.flow_policy_checks import complain_of_flow
from unigen.config.masked_policy_checks import complain_of_masked
from unigen.config.policy import FlowRolloutConfig, GrpoConfig, MaskRolloutConfig
from unigen.errors import ConfigError

if TYPE_CHECKING:
    from unigen.config.schema import Config  # whose own check asks this module


def check_policy(config: Config) -> None:
    """Refuse `grpo` settings that cannot work.

    Raises:
        ConfigError: naming the key, the value and what to do.
    """
    if not config.stage.startswith("grpo_"):
        if replace(config.grpo, rewards={}) != GrpoConfig():
            raise ConfigError(f"grpo is for stages that learn from rewards, but stage is {config.stage}; drop it")
        return
    for complaint in (*_of_every_policy(config), *_of_captions(config), *_of_drawing(config)):
        raise ConfigError(complaint)


def _of_drawing(config: Config) -> Iterator[str]:
    if config.stage == "grpo_generation":
        yield from {"unigen": complain_of_masked, "uae": complain_of_flow}[config.model.family](config)


def _of_every_policy(config: Config) -> Iterator[str]:
    grpo, training = config.grpo, config.training
    if grpo.group_size < 2:
        yield f"grpo.group_size is {grpo.group_size}, but a rollout is compared with others of its group; give 2 or more"
    if grpo.updates_per_rollout < 1:
        yield f"grpo.updates_per_rollout is {grpo.updates_per_rollout}; give 1 or more"
    for name in ("clip_range", "max_advantage"):
        if not getattr(grpo, name) > 0:
            yield f"grpo.{name} is {getattr(grpo, name)}; give a number above 0"
    for name in ("kl_weight", "refill_rounds"):
        if not getattr(grpo, name) >= 0:
            yield f"grpo.{name} is {getattr(grpo, name)}; give 0 or more"
    if grpo.kl_weight and training.lora is None:
        yield (
            f"grpo.kl_weight is {grpo.kl_weight}, but the reference is the model without its adapter and there is no "
            "training.lora; set it, or set grpo.kl_weight to 0"
        )
    if training.lora is not None and training.lora.dropout:
        yield (
            f"training.lora.dropout is {training.lora.dropout}, but a policy has to learn with the probabilities that it "
            "acted by; set it to 0"
        )
    if training.loss_weights:
        yield f"training.loss_weights is {dict(training.loss_weights)}, but stage {config.stage} has no tasks; drop it"


def _of_captions(config: Config) -> Iterator[str]:
    grpo = config.grpo
    if config.stage != "grpo_understanding":
        return
    foreign = {
        "flow": grpo.flow != FlowRolloutConfig(),
        "masked": grpo.masked != MaskRolloutConfig(),
        "kl_form": grpo.kl_form != GrpoConfig.kl_form,
    }
    for name, is_wrong in foreign.items():
        if is_wrong:
            yield f"grpo.{name} means nothing for stage {config.stage}; drop it"
    for name in ("max_new_tokens", "temperature", "batch_size", "draw_steps"):
        value = getattr(grpo.caption, name)
        if not value > 0:
            yield f"grpo.caption.{name} is {value}; give a number above 0"
