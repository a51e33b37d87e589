# SPDX-License-Identifier: Apache-2.0
"""Images that were drawn elsewhere, in the official layout."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.drawing import find_images

ENTRIES = [
    {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": name} for name in ("car", "cup")
]


def write(root: Path, index: str, *samples: str, entry: dict[str, Any] | None = None) -> None:
    (root / index / "samples").mkdir(parents=True)
    for name in samples:
        Image.new("RGB", (4, 4)).save(root / index / "samples" / name)
    if entry:
        (root / index / "metadata.jsonl").write_text(json.dumps(entry))


def test_numbers_may_have_any_number_of_digits_and_other_files_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "00000", "0000.png", "0001.png", entry=ENTRIES[0])
    write(tmp_path, "1", "10.png", "9.png", "grid.png", "x1.png")
    (tmp_path / "notes").mkdir()
    found = find_images(tmp_path, ENTRIES, 2)
    assert {key: str(path) for key, path in found.items()} == {
        (0, 0): "00000/samples/0000.png",
        (0, 1): "00000/samples/0001.png",
        (1, 0): "1/samples/9.png",
        (1, 1): "1/samples/10.png",
    }


def test_missing_and_superfluous_folders_and_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "00000", "00000.png")
    with pytest.raises(EvaluationError, match="1 folders for 2 prompts; prompt 00001 has no folder"):
        find_images(tmp_path, ENTRIES, 1)
    write(tmp_path, "00001", "00000.png")
    with pytest.raises(EvaluationError, match=r"00000 has 1 images, not 4; .*--num-images"):
        find_images(tmp_path, ENTRIES, 4)
    write(tmp_path, "00002", "00000.png")
    with pytest.raises(EvaluationError, match="folder 00002 has no prompt"):
        find_images(tmp_path, ENTRIES, 1)


def test_a_folder_of_another_prompt_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "00000", "00000.png", entry=ENTRIES[0])
    write(tmp_path, "00001", "00000.png", entry={**ENTRIES[1], "prompt": "a cup, rewritten at length"})
    with pytest.raises(EvaluationError, match=r"00001/metadata\.jsonl has another prompt.*--prompts FILE"):
        find_images(tmp_path, ENTRIES, 1)
