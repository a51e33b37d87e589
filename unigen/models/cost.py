# SPDX-License-Identifier: Apache-2.0
"""What a model costs: parameters, floating-point operations, bytes. Formulas, checked against meta tensors and FlopCounterMode.

Multiply and add count as two. Causality is not discounted: a row attends to the whole of its document.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Qwen2Config

ADAMW_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""
H200_BFLOAT16_FLOPS = 989e12
"""Dense peak of the GPU that the dry run speaks of, operations per second."""


@dataclass(frozen=True)
class LanguageModelCost:
    """Per-token costs of a Qwen2, from its configuration alone."""

    config: Qwen2Config

    @property
    def head_size(self) -> int:
        return getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads

    @property
    def matrix_parameters(self) -> int:
        """Parameters of all matrix products of the layers, without embeddings, biases and norms."""
        c, width = self.config, self.config.hidden_size
        queries, keys = c.num_attention_heads * self.head_size, c.num_key_value_heads * self.head_size
        layer = width * (queries + 2 * keys) + queries * width + 3 * width * c.intermediate_size
        return c.num_hidden_layers * layer

    def forward_flops(self, attended_keys: float, num_tokens: float, num_logit_rows: float) -> float:
        """One forward pass over `num_tokens` that attend to `attended_keys` columns in all."""
        c = self.config
        attention = 4 * c.num_hidden_layers * c.num_attention_heads * self.head_size * attended_keys
        return 2 * self.matrix_parameters * num_tokens + attention + 2 * c.hidden_size * c.vocab_size * num_logit_rows

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16."""
        return self.config.num_hidden_layers * 2 * self.config.num_key_value_heads * self.head_size * 2

    @property
    def activation_bytes_per_token(self) -> int:
        """Activations kept for the backward pass in bfloat16 without recomputation: about 34 widths and 3 inner widths a layer.

        After Korthikanti et al. (arXiv 2205.05198), equation 1, without the attention matrix, which flash kernels never store.
        """
        c = self.config
        return c.num_hidden_layers * (20 * c.hidden_size + 8 * c.intermediate_size)


def training_flops(config: Qwen2Config, documents_RL: Tensor, num_targets: int) -> float:
    """Forward and backward over packed rows: three forwards. Padding counts for nothing."""
    lengths = [row[row >= 0].bincount() for row in documents_RL.cpu()]
    counts = torch.cat(lengths).double() if lengths else torch.zeros(0)
    cost = LanguageModelCost(config)
    return 3 * cost.forward_flops(float(counts.square().sum()), float(counts.sum()), num_targets)


def count_parameters(module: nn.Module) -> int:
    """Parameters, a tied one once."""
    return sum(parameter.numel() for parameter in module.parameters())
