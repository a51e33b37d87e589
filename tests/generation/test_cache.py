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


def test_a_decoding_cache_is_written_in_place_and_keeps_its_shape() -> None:
    cache = DecodingCache(5)
    prompt = entries(1, 2, 1.0)
    assert cache.update(*prompt, 0) == prompt, "the prompt sees itself alone"
    for column, fill in ((2, 2.0), (3, 3.0)):
        step = DecodingCache(5, cache.layers, torch.tensor([column]))
        keys, values = step.update(*entries(1, 1, fill), 0)
    assert keys[0, 0, :, 0].tolist() == [1.0, 1.0, 2.0, 3.0, 0.0]
    assert values[0, 0, :, 0].tolist() == [-1.0, -1.0, -2.0, -3.0, 0.0]
    assert keys is cache.layers[0][0], "nothing is copied"


def test_a_decoding_cache_refuses_more_columns_than_asked_for() -> None:
    cache = DecodingCache(2)
    with pytest.raises(AssertionError, match="wider than the columns"):
        cache.update(*entries(1, 3, 1.0), 0)
    cache.update(*entries(1, 2, 1.0), 0)
    with pytest.raises(IndexError):
        DecodingCache(2, cache.layers, torch.tensor([2])).update(*entries(1, 1, 1.0), 0)
