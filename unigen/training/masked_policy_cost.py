# SPDX-License-Identifier: Apache-2.0
"""What a global step of a policy over masked tokens takes at most: rollouts with cached prompts, whole rows of all their steps.

Groups that are drawn anew for want of spread, and the rewards, are not counted.
"""

import torch

from unigen.config.schema import Config
from unigen.models.cost import LanguageModelCost, measure_on_meta
from unigen.models.image_tokenizers.magvitv2 import MagVitV2
from unigen.models.unigen import UniGenConfig
from unigen.training.meta_model import MetaModels


def masked_rows_per_prompt(config: Config) -> int:
    """Rows of the update: each step of each rollout, with guidance twice."""
    masked = config.grpo.masked
    return config.grpo.group_size * masked.steps * (2 if masked.has_guidance else 1)


def masked_policy_flops(models: MetaModels) -> dict[str, float]:
    """Operations by part."""
    config, unigen, tokenizer = models.config, models.row_config, models.image_tokenizer
    assert isinstance(unigen, UniGenConfig)
    assert isinstance(tokenizer, MagVitV2), "the one that a UniGen draws with"
    prompts = config.training.samples_per_step["t2i"]
    images, masked = prompts * config.grpo.group_size, config.grpo.masked
    rows_per_image = masked_rows_per_prompt(config) // (config.grpo.group_size * masked.steps)
    cost, codes, length = LanguageModelCost(unigen.llm_config), unigen.num_image_codes, unigen.row_length
    rollouts = cost.drawing_flops(
        length - codes - 2,
        codes,
        unigen.codebook_size,
        masked.steps,
        rows=images * rows_per_image,
        prompts=prompts + rows_per_image - 1,
    )
    rows = prompts * masked_rows_per_prompt(config)
    logits = images * rows_per_image * codes * unigen.codebook_size
    forward = cost.forward_flops(rows * length**2, rows * length, logits)
    flops = {"rollouts": rollouts, "language_model": 3 * forward}
    if config.grpo.kl_weight:
        flops["reference_model"] = forward
    return {**flops, "image_tokenizer": images * _decode_flops(tokenizer, codes)}


def _decode_flops(tokenizer: MagVitV2, num_codes: int) -> float:
    codes_1I = torch.zeros(1, num_codes, dtype=torch.long, device="meta")
    return measure_on_meta(lambda: tokenizer.decode(codes_1I)).flops
