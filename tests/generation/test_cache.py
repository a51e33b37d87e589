# SPDX-License-Identifier: Apache-2.0
"""Caches hand back what was stored, and a prefix never grows."""

import pytest
import torch

from unigen.generation.cache import DecodingCache, PrefixCache


def entries(rows: int, columns: int, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((rows, 2, columns, 4), fill), torch.full((rows, 2, columns, 4), -fill)


def test_a_filled_prefix_is_shared_by_rows_and_forgets_what_came_after() -> None:
    prefix = PrefixCache()
    key, value = torch.arange(2.0)[:, None, None, None].expand(2, 2, 3, 4), torch.zeros(2, 2, 3, 4)
    assert prefix.update(key, value, 0)[0] is key
    taken = prefix.rows(torch.tensor([1, 0, 1]))
    for fill in (5.0, 6.0):
        keys, values = taken.update(*entries(3, 2, fill), 0)
        assert keys.shape == values.shape == (3, 2, 5, 4)
        assert keys[:, 0, 0, 0].tolist() == [1.0, 0.0, 1.0]
        assert (keys[:, :, 3:] == fill).all()
    assert taken.num_columns == 3


def test_a_decoding_cache_grows_by_what_it_is_given() -> None:
    cache = DecodingCache(4)
    cache.update(*entries(1, 3, 1.0), 0)
    keys, values = cache.update(*entries(1, 1, 2.0), 0)
    assert keys[0, 0, :, 0].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert values[0, 0, :, 0].tolist() == [-1.0, -1.0, -1.0, -2.0]


def test_a_decoding_cache_refuses_more_columns_than_asked_for() -> None:
    cache = DecodingCache(2)
    with pytest.raises(AssertionError, match="ran past the columns"):
        cache.update(*entries(1, 3, 1.0), 0)
