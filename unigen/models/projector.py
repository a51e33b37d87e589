# SPDX-License-Identifier: Apache-2.0
"""The projector from vision features to the language model's embeddings."""

from torch import nn

MIN_DEPTH = 2


class Projector(nn.Sequential):
    """(..., in_features) -> (..., out_features), also for no rows: `depth` linear layers with GELU between, no norm.

    A plain Sequential, so its weights are named as in LLaVA-style checkpoints: 0.weight, 0.bias, 2.weight, 2.bias.
    """

    def __init__(self, in_features: int, out_features: int, depth: int = MIN_DEPTH) -> None:
        """Less than two layers become two."""
        layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
        for _ in range(max(MIN_DEPTH, depth) - 1):
            layers += [nn.GELU(), nn.Linear(out_features, out_features)]
        super().__init__(*layers)
