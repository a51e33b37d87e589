# SPDX-License-Identifier: Apache-2.0
"""Activations that the backward pass computes again instead of keeping, and how much of that a GPU's memory asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from unigen.config.schema import Config
from unigen.errors import ConfigError
from unigen.training.stages.stage import Stage

if TYPE_CHECKING:
    from unigen.training.meta_model import MetaModels  # `auto` alone asks for it, and it needs accelerate

Recompute = Literal["none", "selective", "full"]
KINDS: tuple[Recompute, ...] = ("none", "selective", "full")
"""From the fastest to the one that keeps least."""
_COSTS_OF = {"replicated": "ddp", "zero-2": "zero2", "zero-3": "zero3", "fsdp2": "fsdp2"}
USABLE_SHARE = 0.9
"""Of a GPU's memory; the rest is for kernels' working memory, communication and what the allocator cannot fill."""


def resolve_recompute(config: Config, backend: str, num_gpus: int, device: torch.device) -> Recompute:
    """What `training.recompute` comes to on this device: `auto` asks the memory formula, and on a CPU keeps everything.

    Args:
        backend: name of the backend, see `Backend.name`.
    """
    if config.training.recompute != "auto":
        return config.training.recompute
    if device.type != "cuda":
        return "none"
    from unigen.training.meta_model import build_on_meta

    config = replace(config, training=replace(config.training, num_gpus=num_gpus))
    return choose_recompute(
        build_on_meta(config), _COSTS_OF[backend], torch.cuda.get_device_properties(device).total_memory
    )


def choose_recompute(models: MetaModels, backend: str, device_bytes: int) -> Recompute:
    """The first of KINDS with which a step fits `device_bytes`, `full` where none does; `none` for models that cannot.

    Args:
        backend: one of those of `sharded_totals`.
    """
    from unigen.training.step_cost import memory_per_gpu, sharded_totals, step_load

    if models.row_config is None and models.uae is None:
        return "none"
    load = step_load(models)
    for kind in KINDS:
        training = replace(models.config.training, recompute=kind)
        like_this = replace(models, config=replace(models.config, training=training))
        needed = sharded_totals(like_this, memory_per_gpu(like_this, load))[backend]
        if needed <= USABLE_SHARE * device_bytes:
            return kind
    return KINDS[-1]


def set_recompute(stage: Stage, recompute: str) -> None:
    """Make the stage's model keep less: `none`, `selective` or `full`.

    Raises:
        ConfigError: a model that cannot recompute.
    """
    if recompute == "none":
        return
    enable = getattr(stage.model, "activation_checkpointing_enable", None)
    if enable is None or not getattr(stage.model, "supports_gradient_checkpointing", False):
        raise ConfigError(f"training.recompute is {recompute}, but this model cannot recompute; set it to none")
    options: dict[str, Any] = {"use_reentrant": False}
    if recompute == "selective":
        options["context_fn"] = _keep_matrix_products
    enable(activation_checkpointing_kwargs=options)


def _keep_matrix_products() -> Any:
    """Recompute everything but matrix products and attention: little to compute again, most of the memory saved."""
    from torch._higher_order_ops import flex_attention, inductor_compiled_code
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    aten = torch.ops.aten
    return create_selective_checkpoint_contexts(
        [
            aten.mm.default,
            aten.addmm.default,
            aten._scaled_dot_product_flash_attention.default,
            aten._scaled_dot_product_efficient_attention.default,
            aten._scaled_dot_product_cudnn_attention.default,
            aten._scaled_dot_product_flash_attention_for_cpu.default,
            flex_attention,  # as a compiled layer shows it
            inductor_compiled_code,  # as an eager layer shows it: attention is all that is compiled there
        ]
    )
