# SPDX-License-Identifier: Apache-2.0
"""Which image belongs to which: each rule of the released script, in its order, and what happens where none fits or two do."""

from pathlib import Path

import pytest
from PIL import Image

from unigen.errors import EvaluationError
from unigen.evaluation.unified_bench.pairing import SUFFIXES, Match, images_of, pair_folders


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)
    return folder


def matched(tmp_path: Path, originals: list[str], generated: list[str]) -> dict[str, str | None]:
    """Name of the original -> path of its partner."""
    ours, theirs = fill(tmp_path / "a", *originals), fill(tmp_path / "b", *generated)
    found: list[Match] = pair_folders(ours, theirs)
    assert all((match.generated is None) == bool(match.reason) for match in found)
    return {match.name: match.generated and match.generated.relative_to(theirs).as_posix() for match in found}


@pytest.mark.parametrize(
    ("generated", "partner"),
    [
        (["1.png"], "1.png"),
        (["1.jpg"], "1.jpg"),
        (["recon_1.webp"], "recon_1.webp"),
        (["recon_1.png", "1.jpg"], "1.jpg"),
        (["recon_1.png", "1.jpg", "1.png"], "1.png"),
        (["deep/er/1.bmp"], "deep/er/1.bmp"),
        (["deep/recon_1.tiff"], "deep/recon_1.tiff"),
        (["1_recon.png", "recon_11.png", "x1.png"], None),
        (["recon_1.gif"], None),
    ],
)
def test_a_partner_has_the_name_or_the_stem_or_recon_before_it(
    generated: list[str], partner: str | None, tmp_path: Path
) -> None:
    assert matched(tmp_path, ["1.png"], [*generated, "other.png"]) == {"1.png": partner}


def test_originals_are_searched_in_all_folders_and_called_by_their_file_names(tmp_path: Path) -> None:
    found = matched(tmp_path, ["b/2.PNG", "1.jpeg"], ["1.jpeg", "recon_2.png"])
    assert found == {"1.jpeg": "1.jpeg", "2.PNG": "recon_2.png"}


def test_one_name_in_two_folders_is_told_apart_by_its_folder(tmp_path: Path) -> None:
    found = matched(tmp_path, ["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"])
    assert found == {"a/1.png": "a/1.png", "b/1.png": "b/1.png"}


def test_where_two_images_fit_alike_none_is_taken_and_both_are_named(tmp_path: Path) -> None:
    (match,) = pair_folders(fill(tmp_path / "a", "1.png"), fill(tmp_path / "b", "x/1.png", "y/1.png"))
    assert match.generated is None
    assert "2 images of" in match.reason
    assert "x/1.png, y/1.png" in match.reason


def test_the_six_kinds_of_files_are_images_and_nothing_else_is(tmp_path: Path) -> None:
    names = [f"1{suffix}" for suffix in SUFFIXES]
    assert set(SUFFIXES) == {".jpg", ".jpeg", ".png", ".bmp", ".tiff", ".webp"}
    folder = fill(tmp_path, *names, "2.gif")
    (folder / "notes.txt").write_text("no image")
    assert sorted(path.name for path in images_of(folder)) == sorted(names)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"there is no folder of images .*absent"):
        images_of(tmp_path / "absent")
    with pytest.raises(EvaluationError, match=r"no images .* in "):
        images_of(tmp_path)
