# SPDX-License-Identifier: Apache-2.0
"""Keys and values that decoding does not compute again. Each cache only does what attention asks of it: `update`.

Legend: B rows, G key-value heads, P prefix columns, N new columns, D head size.
"""

import torch
from torch import Tensor


class PrefixCache:
    """Keys and values of a prefix. The prefill fills it; afterwards new columns are appended to a view, and not kept."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._is_filled = False

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
    def num_columns(self) -> int:
        """Width P of the prefix."""
        return self._layers[0][0].shape[2]

    def rows(self, index_B: Tensor) -> "PrefixCache":
        """A filled cache whose row b is row `index_B[b]` of this one: prompts shared by several images are kept once."""
        taken = PrefixCache()
        taken._layers = [(key[index_B], value[index_B]) for key, value in self._layers]
        taken._is_filled = True
        return taken


class DecodingCache:
    """Keys and values of rows that grow by one column a step, in buffers that are allocated once."""

    def __init__(self, num_columns: int) -> None:
        self._num_columns = num_columns
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._used: list[int] = []

    def update(
        self, key_BGND: Tensor, value_BGND: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if layer == len(self._layers):
            shape = (*key_BGND.shape[:2], self._num_columns, key_BGND.shape[3])
            self._layers.append((key_BGND.new_zeros(shape), value_BGND.new_zeros(shape)))
            self._used.append(0)
        start = self._used[layer]
        stop = start + key_BGND.shape[2]
        assert stop <= self._num_columns, "decoding ran past the columns that were asked for"
        key, value = self._layers[layer]
        key[:, :, start:stop], value[:, :, start:stop] = key_BGND, value_BGND
        self._used[layer] = stop
        return key[:, :, :stop], value[:, :, :stop]
