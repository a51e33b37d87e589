# SPDX-License-Identifier: Apache-2.0
"""Keys and values that decoding does not compute again. Each cache only does what attention asks of it: `update`.

Legend: B rows, G key-value heads, P prefix columns, N new columns, D head size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer."""


class PrefixCache:
    """Keys and values of a prefix. The prefill fills it; afterwards new columns are appended to a view, and not kept."""

    def __init__(self, layers: Layers = ()) -> None:
        self._layers = list(layers)
        self._is_filled = bool(layers)

    def update(
        self, key_BGND: Tensor, value_BGND: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if not self._is_filled:
            assert layer == len(self._layers)
            self._layers.append((key_BGND, value_BGND))
            return key_BGND, value_BGND
        prefix_key, prefix_value = self._layers[layer]
        return torch.cat([prefix_key, key_BGND], dim=2), torch.cat([prefix_value, value_BGND], dim=2)

    @property
    def layers(self) -> Layers:
        """What makes an equal, filled cache."""
        return tuple(self._layers)

    @property
    def num_columns(self) -> int:
        """Width P of the prefix."""
        return self._layers[0][0].shape[2]

    def rows(self, index_B: Tensor) -> "PrefixCache":
        """A filled cache whose row b is row `index_B[b]` of this one: prompts shared by several images are kept once."""
        return PrefixCache(tuple((key[index_B], value[index_B]) for key, value in self._layers))


class DecodingCache:
    """Keys and values of rows that grow by one column a step, in buffers that are allocated once.

    The prefill fills their beginning. Afterwards a step writes its columns and sees the whole buffers, whose shapes never
    change: the mask has to hide the columns that are not written yet.
    """

    def __init__(self, num_columns: int, layers: Layers = (), columns_N: Tensor | None = None) -> None:
        """
        Args:
            num_columns: width of the buffers.
            layers: those of a cache that was filled.
            columns_N: where the next columns go, on the device of the buffers.
        """
        self._num_columns = num_columns
        self._layers = list(layers)
        self._columns_N = columns_N

    def update(
        self, key_BGND: Tensor, value_BGND: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if self._columns_N is None:
            assert layer == len(self._layers)
            self._layers.append((self._widened(key_BGND), self._widened(value_BGND)))
            return key_BGND, value_BGND
        key, value = self._layers[layer]
        return key.index_copy_(2, self._columns_N, key_BGND), value.index_copy_(2, self._columns_N, value_BGND)

    @property
    def layers(self) -> Layers:
        return tuple(self._layers)

    def rows(self, index_B: Tensor, num_columns: int, columns_N: Tensor) -> "DecodingCache":
        """A wider cache whose row b begins as row `index_B[b]` of this one, for steps that go on at `columns_N`."""
        wider = DecodingCache(num_columns)
        layers = tuple((wider._widened(key[index_B]), wider._widened(value[index_B])) for key, value in self._layers)
        return DecodingCache(num_columns, layers, columns_N)

    def _widened(self, entries_BGND: Tensor) -> Tensor:
        """A buffer that begins with `entries_BGND`; zeros elsewhere, for what is hidden must be a number too."""
        missing = self._num_columns - entries_BGND.shape[2]
        assert missing >= 0, "the prompt is wider than the columns that were asked for"
        return F.pad(entries_BGND, (0, 0, 0, missing))
