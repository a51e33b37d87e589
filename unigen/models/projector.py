# SPDX-License-Identifier: Apache-2.0
"""The projector from one model's features to another's embeddings."""

from itertools import pairwise

from torch import nn

MIN_DEPTH = 2


class Projector(nn.Sequential):
    """(..., in_features) -> (..., out_features), also for no rows: `depth` linear layers with GELU between, no norm.

    A plain Sequential, so its weights are named as in LLaVA-style checkpoints: 0.weight, 0.bias, 2.weight, 2.bias.
    """

    def __init__(
        self, in_features: int, out_features: int, depth: int = MIN_DEPTH, hidden_features: int | None = None
    ) -> None:
        """Less than two layers become two. Between the layers the width is `out_features`, where no other is given."""
        hidden = hidden_features or out_features
        widths = [in_features, *[hidden] * (max(MIN_DEPTH, depth) - 1), out_features]
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for before, after in pairwise(widths[1:]):
            layers += [nn.GELU(), nn.Linear(before, after)]
        super().__init__(*layers)
