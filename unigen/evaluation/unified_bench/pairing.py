# SPDX-License-Identifier: Apache-2.0
"""Which image of one folder belongs to which of another, by the rules of the released Unified-Bench.

An original's partner has its exact file name; else its name up to the suffix; else that with `recon_` before it. Folders are
searched with all that lies below them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unigen.errors import EvaluationError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tiff", ".webp")
PREFIX = "recon_"
RULES: dict[str, Callable[[Path, Path], bool]] = {
    "same name": lambda original, other: other.name == original.name,
    "same stem": lambda original, other: other.stem == original.stem,
    f"{PREFIX} and the stem": lambda original, other: other.stem == PREFIX + original.stem,
}
"""In the order in which they are tried."""


@dataclass(frozen=True)
class Match:
    """An original, and its partner or why there is none."""

    name: str
    """What results call it: its file name, with its folder where another original has that name too."""
    original: Path
    generated: Path | None
    rule: str = ""
    reason: str = ""


def images_of(folder: Path) -> list[Path]:
    """The images of a folder and of those below it, by their path.

    Raises:
        EvaluationError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise EvaluationError(f"there is no folder of images {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise EvaluationError(f"no images ({', '.join(SUFFIXES)}) in {folder}")
    return found


def pair_folders(originals: Path, generated: Path) -> list[Match]:
    """Every image of `originals` with its partner, in order of their paths.

    Raises:
        EvaluationError: one of the folders is not there or holds no image.
    """
    images, others = images_of(originals), images_of(generated)
    names = [path.name for path in images]
    matches = []
    for path in images:
        name = path.name if names.count(path.name) == 1 else path.relative_to(originals).as_posix()
        matches.append(_match(name, path, path.relative_to(originals).parent, others, generated))
    return matches


def _match(name: str, original: Path, place: Path, others: Sequence[Path], root: Path) -> Match:
    for rule, fits in RULES.items():
        found = [other for other in others if fits(original, other)]
        if len(found) > 1:  # the one in the same place, if that tells them apart
            found = [other for other in found if other.relative_to(root).parent == place] or found
        if len(found) == 1:
            return Match(name, original, found[0], rule)
        if found:
            listed = ", ".join(str(other.relative_to(root)) for other in found[:3])
            return Match(name, original, None, reason=f"{len(found)} images of {root} may belong to it ({listed})")
    return Match(name, original, None, reason=f"no image of {root} belongs to it")
