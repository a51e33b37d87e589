# SPDX-License-Identifier: Apache-2.0
"""torch.compile of the layers of a model, one by one: what a layer does is compiled once, and all layers run it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unigen.errors import ConfigError
from unigen.training.stages.stage import Stage


def compile_blocks(stage: Stage, backend: str) -> int:
    """Compile every layer of the stage's model in place; returns their number. To be called after the backend wrapped the stage.

    The layers' `forward` is compiled and not the layers, so that names in state dicts stay, and FSDP2's hooks, which gather and
    free weights, run around the compiled code. On CUDA the lengths and numbers of rows that change are generalised by the second
    compilation; elsewhere rows are as long as they need to be, so lengths are symbols from the first.

    Raises:
        ConfigError: a model that does not say what its layers are, or a backend with hooks inside of them.
    """
    if backend == "zero-3":
        raise ConfigError(
            "training.compile=blocks: ZeRO-3 gathers weights inside the layers; use zero2 or fsdp2, or none"
        )
    blocks = find_layers(stage.model)
    if not blocks:
        raise ConfigError("training.compile=blocks: this stage's model does not name its layers; set it to none")
    for block in blocks:
        block.forward = _compiled_for_training(block)
    return len(blocks)


def find_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that a model names, as transformers' models do; none of one that names none."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if kinds & {kind.__name__ for kind in type(module).__mro__}]


def _compiled_for_training(block: nn.Module) -> Callable[..., Any]:
    """The block's forward, compiled where gradients are kept: drawing validation images has other shapes."""
    eager = block.forward
    compiled = torch.compile(eager, dynamic=None if next(block.parameters()).is_cuda else True)

    def forward(*arguments: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else eager)(*arguments, **options)

    return forward
