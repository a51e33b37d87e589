# SPDX-License-Identifier: Apache-2.0
"""The optimizers and their parameter groups: what is trained, what is decayed, at which share of the learning rate."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unigen.config.schema import OptimizerConfig
from unigen.errors import ConfigError
from unigen.training.stages.stage import Stage

_EMBEDDINGS = (
    "embed_tokens.weight",
    "lm_head.weight",
    "embedding.weight",
    "classifier_mlp.linear.weight",
    "codebooks.0.weight",
)
"""Tables that are looked up, and heads over a vocabulary or a codebook: no maps between hidden states."""


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


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices between hidden states, AdamW for all else, stepped as one optimizer.

    Muon's steps are scaled to the size of AdamW's (Liu et al., arXiv 2502.16982, section 2.2), so one learning rate serves both.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._parts = (muon, adamw)
        super().__init__([parameter for part in self._parts for parameter in _parameters(part)], {})
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # never one with a closure
        assert closure is None, "the loop gives none"
        for part in self._parts:
            part.step()


def build_optimizer(stage: Stage, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over what is trained; AdamW fused."""
    if config.name == "adamw":
        return _adamw(_groups(stage, config), config)
    is_matrix = {id(one): is_hidden_matrix(name, one) for name, one in stage.named_parameters()}
    parts = [
        [
            {**group, "params": chosen}
            for group in _groups(stage, config)
            if (chosen := _those(group, is_matrix, wanted))
        ]
        for wanted in (True, False)
    ]
    muon = torch.optim.Muon(parts[0], momentum=config.muon_momentum, adjust_lr_fn="match_rms_adamw")
    return MuonWithAdamW(muon, _adamw(parts[1], config))


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)


def _groups(stage: Stage, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Trained parameters of the same weight decay and learning rate."""
    factors = stage.learning_rate_factors()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad:
            factor = next((value for prefix, value in factors.items() if name.startswith(prefix)), 1.0)
            groups.setdefault((_is_decayed(name, parameter, config), factor), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_decayed else 0.0,
            "lr": config.learning_rate * factor,
        }
        for (is_decayed, factor), parameters in groups.items()
    ]


def _those(group: dict[str, Any], is_matrix: dict[int, bool], wanted: bool) -> list[nn.Parameter]:
    return [parameter for parameter in group["params"] if is_matrix[id(parameter)] == wanted]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon steps it, where Muon is chosen."""
    return parameter.ndim == 2 and not name.endswith(_EMBEDDINGS)


def _is_decayed(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    if config.decay_norms_and_embeddings:
        return not name.endswith("bias")
    return parameter.ndim >= 2 and not name.endswith(_EMBEDDINGS)
