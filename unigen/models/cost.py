# SPDX-License-Identifier: Apache-2.0
"""What a model costs: parameters, floating-point operations, bytes. Formulas, checked against meta tensors and FlopCounterMode.

Multiply and add count as two. Causality is not discounted: a row attends to the whole of its document.
Legend: R rows, L positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config

if TYPE_CHECKING:
    from unigen.models.vision import VisionTower  # only its numbers are read here, and it needs accelerate

ADAMW_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""
H200_BFLOAT16_FLOPS = 989e12
"""Dense peak of the GPU that the dry run speaks of, operations per second (NVIDIA's data sheet)."""


@dataclass(frozen=True)
class LanguageModelCost:
    """Costs of a Qwen2, from its configuration alone."""

    config: Qwen2Config

    @property
    def head_size(self) -> int:
        return getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads

    @property
    def query_width(self) -> int:
        return self.config.num_attention_heads * self.head_size

    @property
    def key_width(self) -> int:
        return (self.config.num_key_value_heads or self.config.num_attention_heads) * self.head_size

    @property
    def matrix_parameters(self) -> int:
        """Parameters of all matrix products of the layers, without embeddings, biases and norms."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        layer = 2 * width * (self.query_width + self.key_width) + 3 * width * inner
        return self.config.num_hidden_layers * layer

    def forward_flops(self, attended_keys: float, num_tokens: float, num_logits: float) -> float:
        """One forward pass.

        Args:
            attended_keys: columns that all tokens attend to, summed: L * L for one document of L tokens.
            num_logits: classes of all positions that have logits, summed.
        """
        attention = 4 * self.config.num_hidden_layers * self.query_width * attended_keys
        return 2 * self.matrix_parameters * num_tokens + attention + 2 * self.config.hidden_size * num_logits

    def drawing_flops(
        self, prompt_tokens: int, num_codes: int, codebook_size: int, steps: int, *, rows: int, prompts: int
    ) -> float:
        """Masked-token drawing: `prompts` prefixes computed once, then the image block of `rows` rows at every step.

        Args:
            rows: conditional and unconditional ones.
            prompts: different prefixes, each padded to `prompt_tokens`.
        """
        block, keys = num_codes + 2, prompt_tokens + num_codes + 2
        prefill = self.forward_flops(prompts * prompt_tokens**2, prompts * prompt_tokens, 0)
        step = self.forward_flops(rows * block * keys, rows * block, rows * num_codes * codebook_size)
        return prefill + steps * step

    def reading_flops(self, prompt_tokens: int, new_tokens: int, classes: int) -> float:
        """Writing `new_tokens` of text after a prompt with cached keys and values, logits over `classes` at one position.

        Every step sees the whole of the cache's buffers, which have room for all tokens.
        """
        prefill = self.forward_flops(prompt_tokens**2, prompt_tokens, classes)
        attended = (new_tokens - 1) * (prompt_tokens + new_tokens)
        return prefill + self.forward_flops(attended, new_tokens - 1, (new_tokens - 1) * classes)

    def decoding_bytes(self, context_tokens: float, rows: int, classes: int) -> float:
        """Bytes in bfloat16 that one step of decoding reads: weights once, keys and values of every row."""
        weights = 2 * (self.matrix_parameters + self.config.hidden_size * classes)
        return weights + rows * context_tokens * self.cache_bytes_per_token

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16."""
        return self.config.num_hidden_layers * 2 * self.key_width * 2

    def activation_bytes_per_token(self, precision: str, recompute: str) -> int:
        """What a token keeps for the backward pass, without what one layer needs while it is computed again.

        `bfloat16` is autocast: a float32 residual stream, and a bfloat16 copy of each matrix product's input. No attention
        matrix: flash kernels never store it.
        """
        width, inner = self.config.hidden_size, self.config.intermediate_size
        size = 2 if precision == "bfloat16" else 4
        residual = 4 * width
        if recompute == "full":
            return self.config.num_hidden_layers * residual
        if recompute == "selective":  # the input of a layer, and what its seven products and its attention give
            products = 2 * width + 2 * self.query_width + 2 * self.key_width + 2 * inner
            return self.config.num_hidden_layers * (residual + size * products)
        norms = 4 * residual  # two norms, each keeps its input and its result in float32
        copies = 5 * 2 * width if precision == "bfloat16" else 2 * 4 * width
        attention = size * (2 * self.query_width + 2 * self.key_width)
        return self.config.num_hidden_layers * (norms + copies + attention + size * 4 * inner)


def training_flops(
    config: Qwen2Config, documents_RL: Tensor, num_targets: int, num_classes: int | None = None
) -> float:
    """Forward and backward over packed rows: three forwards. Padding counts for nothing.

    Args:
        num_classes: that each target is one of; None takes the whole vocabulary.
    """
    num_logits = num_targets * (num_classes or config.vocab_size)
    lengths = [row[row >= 0].bincount() for row in documents_RL.cpu()]
    counts = torch.cat(lengths).double() if lengths else torch.zeros(0)
    cost = LanguageModelCost(config)
    return 3 * cost.forward_flops(float(counts.square().sum()), float(counts.sum()), num_logits)


def vision_tower_flops(tower: VisionTower) -> float:
    """One image through the tower, for NaFlex one of the most patches."""
    config, tokens = tower.config, tower.max_tokens
    width, layers = config.hidden_size, config.num_hidden_layers - 1  # the tower leaves out the last layer
    per_token = layers * (4 * width**2 + 2 * width * config.intermediate_size)
    patches = config.num_channels * int(config.patch_size) ** 2 * width  # type: ignore[arg-type]  # a square, see VisionTower
    return 2.0 * tokens * (per_token + patches) + 4.0 * layers * width * tokens**2


@dataclass(frozen=True)
class MetaPass:
    """What a pass over meta tensors would do: operations, and bytes that it would keep for the backward pass."""

    flops: float
    kept_bytes: int


def measure_on_meta(run: Callable[[], object]) -> MetaPass:
    """Count a forward pass of modules on the meta device without doing it."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):  # or a view of one
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        run()
    return MetaPass(float(counter.get_total_flops()), sum(one.untyped_storage().nbytes() for one in kept.values()))


def count_parameters(module: nn.Module, *, trained_only: bool = False) -> int:
    """Parameters, a tied one once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)
