# SPDX-License-Identifier: Apache-2.0
"""Items, their seeds and their shares do not depend on who does them."""

from pathlib import Path

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.items import expand, read_entries, share


def test_every_image_has_a_seed_of_its_own_that_only_the_item_decides() -> None:
    items = expand("geneval_shapes", 5, 3, 0)
    assert [item.item_id for item in items] == [
        f"{index:05d}/{sample:05d}" for index in range(5) for sample in range(3)
    ]
    assert len({item.seed for item in items}) == 15
    assert expand("geneval_shapes", 9, 3, 0)[:15] == items
    for other in (expand("geneval_shapes", 5, 3, 1), expand("vqa_shapes", 5, 3, 0)):
        assert not {item.seed for item in other} & {item.seed for item in items}


def test_item_ids_sort_as_the_items_do() -> None:
    ids = [item.item_id for item in expand("geneval_shapes", 120, 12, 0)]
    assert sorted(ids) == ids


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_all_items_evenly_and_none_twice(world_size: int) -> None:
    items = expand("geneval_shapes", 10, 2, 0)
    shares = [share(items, rank, world_size) for rank in range(world_size)]
    assert sorted((item for mine in shares for item in mine), key=lambda item: item.item_id) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_prompt_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    with pytest.raises(EvaluationError, match=r"prompts\.jsonl.*write the world"):
        read_entries(file, ["prompt"], "write the world")
    for content, complaint in (
        ("{}\n", "line 1 has no 'prompt'"),
        ('{"prompt": 1}\n{', "line 2 is not JSON"),
        ("", "empty"),
    ):
        file.write_text(content)
        with pytest.raises(EvaluationError, match=complaint):
            read_entries(file, ["prompt"], "write the world")
