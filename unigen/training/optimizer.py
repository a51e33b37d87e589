# SPDX-License-Identifier: Apache-2.0
"""AdamW and its parameter groups: what is trained, what is decayed, at which share of the learning rate."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from unigen.config.schema import OptimizerConfig
from unigen.errors import ConfigError
from unigen.training.stages.stage import Stage


def freeze(stage: nn.Module, patterns: Sequence[str]) -> None:
    """Stop training the parameters that one of the regular expressions finds.

    Raises:
        ConfigError: a pattern that finds nothing, or nothing left to train.
    """
    for pattern in patterns:
        found = [parameter for name, parameter in stage.named_parameters() if re.search(pattern, name)]
        if not found:
            example = next(name for name, _ in stage.named_parameters())
            raise ConfigError(f"training.freeze has {pattern!r}, which finds no parameter; names look like {example}")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in stage.parameters()):
        raise ConfigError(f"training.freeze {list(patterns)} leaves nothing to train")


def build_optimizer(stage: Stage, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over what is trained, fused where torch can."""
    factors = stage.learning_rate_factors()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad:
            factor = next((value for prefix, value in factors.items() if name.startswith(prefix)), 1.0)
            groups.setdefault((_is_decayed(name, parameter, config), factor), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if is_decayed else 0.0,
                "lr": config.learning_rate * factor,
            }
            for (is_decayed, factor), parameters in groups.items()
        ],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )


def _is_decayed(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    if config.decay_norms_and_embeddings:
        return not name.endswith("bias")
    return parameter.ndim >= 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight", "embedding.weight"))
