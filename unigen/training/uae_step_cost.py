# SPDX-License-Identifier: Apache-2.0
"""What a global step of UAE's stages takes at most, from models on the meta device. See `unigen.training.step_cost`."""

from collections.abc import Callable

from unigen.config.schema import Config
from unigen.training.caption_policy_cost import caption_activation_bytes, caption_policy_flops
from unigen.training.flow_policy_cost import flow_activation_bytes, flow_policy_flops
from unigen.training.uae_meta import MetaUae
from unigen.training.uae_supervised_cost import (
    auto_encoder_flops,
    chat_flops,
    coldstart_flops,
    longcap_flops,
    supervised_activation_bytes,
)

FlopsOfStage = Callable[[Config, MetaUae], dict[str, float]]
FLOPS_OF_SAMPLE: dict[str, FlopsOfStage] = {
    "tokenizer": auto_encoder_flops,
    "sft": chat_flops,
    "longcap": longcap_flops,
    "coldstart": coldstart_flops,
}
"""By the name of the stage, those that learn from data: operations of one sample by part."""
FLOPS_OF_STEP: dict[str, FlopsOfStage] = {
    "grpo_understanding": caption_policy_flops,
    "grpo_generation": flow_policy_flops,
}
"""By the name of the stage, those that learn from rewards: operations of one global step by part."""
ACTIVATIONS_OF_ROLLOUT: dict[str, Callable[[Config, MetaUae], int]] = {
    "grpo_understanding": caption_activation_bytes,
    "grpo_generation": flow_activation_bytes,
}


def uae_step_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Operations of one global step by part; none for a stage whose cost nothing here says."""
    of_step = FLOPS_OF_STEP.get(config.stage)
    if of_step is not None:
        return of_step(config, uae)
    of_sample = FLOPS_OF_SAMPLE.get(config.stage)
    if of_sample is None:
        return {}
    samples = sum(config.training.samples_per_step.values())
    return {name: samples * flops for name, flops in of_sample(config, uae).items()}


def uae_activation_bytes(config: Config, uae: MetaUae, rows: int) -> int:
    """Of `rows` samples of a forward pass, or rollouts."""
    of_rollout = ACTIVATIONS_OF_ROLLOUT.get(config.stage)
    if of_rollout is not None:
        return rows * of_rollout(config, uae)
    return rows * supervised_activation_bytes(config, uae) if config.stage in FLOPS_OF_SAMPLE else 0
