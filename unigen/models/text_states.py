# SPDX-License-Identifier: Apache-2.0
"""What a diffusion decoder is told of texts: states of their tokens, in batches of texts of different lengths.

Legend: B texts, T tokens, E width of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptStates:
    """One text on its own."""

    states_TE: Tensor
    padding_E: Tensor
    """The state of a token of padding behind it, which is the same at any distance."""

    @property
    def length(self) -> int:
        return len(self.states_TE)

    def blank(self) -> "PromptStates":
        """Zeros of this shape."""
        return PromptStates(torch.zeros_like(self.states_TE), torch.zeros_like(self.padding_E))


@dataclass(frozen=True)
class TextStates:
    """A batch of texts."""

    states_BTE: Tensor
    is_visible_BT: Tensor | None
    """What the decoder may look at; None: all of it."""


def join_states(prompts: Sequence[PromptStates], visible: Sequence[int]) -> TextStates:
    """One batch, each text followed by its padding.

    Args:
        visible: for each text how many states the decoder may look at, at least its length: what is more is padding that it sees.
    """
    width = max(visible)
    rows = [torch.cat([one.states_TE, one.padding_E.expand(width - one.length, -1)]) for one in prompts]
    states_BTE = torch.stack(rows)
    if set(visible) == {width}:
        return TextStates(states_BTE, None)
    columns_T = torch.arange(width, device=states_BTE.device)
    return TextStates(states_BTE, columns_T < torch.tensor(visible, device=states_BTE.device)[:, None])
