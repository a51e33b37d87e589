# SPDX-License-Identifier: Apache-2.0
"""The folders `checkpoint-<step>` of a run: whole or not there.

One is written as `checkpoint-<step>.tmp`. When all of it is on the disk, `state/trainer.json` is written last, with the size of
every other file, and the folder gets its name. What was cut off afterwards (a disk that lost data, a copy that stopped) is
found by these sizes and is not taken for a checkpoint.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unigen.errors import CheckpointError

TRAINER_FILE = Path("state") / "trainer.json"
PREFIX = "checkpoint-"
UNFINISHED = ".tmp"
DAMAGED = ".damaged"
FULL = (errno.ENOSPC, errno.EDQUOT)


def checkpoint_folder(output_dir: Path, step: int) -> Path:
    return output_dir / f"{PREFIX}{step}"


def saved_steps(output_dir: Path) -> list[int]:
    """Steps of all checkpoint folders, damaged ones too, in order."""
    names = (path.name.removeprefix(PREFIX) for path in output_dir.glob(f"{PREFIX}*"))
    return sorted(int(name) for name in names if name.isdigit())


def newest_checkpoint(output_dir: Path) -> Path | None:
    """The whole checkpoint with the largest step."""
    folders = (checkpoint_folder(output_dir, step) for step in reversed(saved_steps(output_dir)))
    return next((folder for folder in folders if find_damage(folder) is None), None)


def find_damage(folder: Path) -> str | None:
    """What is missing from a checkpoint or cut off in it; None where it is whole."""
    try:
        content = read_trainer_file(folder)
    except (OSError, ValueError) as error:
        return f"{TRAINER_FILE} cannot be read ({_reason(error)})"
    for name, expected in content.get("files", {}).items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != expected:
            return f"{name} has {found:,} of {expected:,} bytes"
    return None


def read_trainer_file(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / TRAINER_FILE).read_text(encoding="utf-8"))
    return content


def set_damaged_aside(output_dir: Path) -> list[str]:
    """Rename the damaged checkpoints that are newer than the newest whole one; says in one line each what is wrong.

    Raises:
        CheckpointError: there are checkpoints, but none of them is whole.
    """
    whole = newest_checkpoint(output_dir)
    said = []
    for folder in (checkpoint_folder(output_dir, step) for step in reversed(saved_steps(output_dir))):
        if folder == whole:
            break
        damage = find_damage(folder)
        if whole is None:
            raise CheckpointError(
                f"no checkpoint in {output_dir} is whole: {folder.name}: {damage}; "
                "bring it back from a copy, or start in a new experiment.output_dir"
            )
        aside = folder.with_name(folder.name + DAMAGED)
        with explained(folder):
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        said.append(f"WARNING: {folder} is damaged: {damage}; it is now {aside.name}, and the run goes on from {whole}")
    return said


def remove_unfinished(output_dir: Path) -> None:
    """What a run that was killed in the middle of a save left."""
    for folder in output_dir.glob(f"{PREFIX}*{UNFINISHED}"):
        shutil.rmtree(folder, ignore_errors=True)


def unfinished_folder(folder: Path) -> Path:
    """Where what shall become `folder` is written."""
    return folder.with_name(folder.name + UNFINISHED)


def begin(folder: Path, inside: Path) -> None:
    """Make the unfinished folder of `folder`, with nothing but the folder `inside` in it."""
    unfinished = unfinished_folder(folder)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    (unfinished / inside).mkdir(parents=True)


def flush(folder: Path) -> None:
    """Have the disk really hold the files, so that a node that goes down does not leave whole names of cut files."""
    for path in _files(folder):
        with suppress(FileNotFoundError):  # another rank writes in the same folder
            _flush(path)


def commit(folder: Path, content: dict[str, Any]) -> int:
    """Give the unfinished folder of `folder` its name, with `content` in its trainer file; returns its size in bytes."""
    unfinished = unfinished_folder(folder)
    sizes = {path.relative_to(unfinished).as_posix(): path.stat().st_size for path in _files(unfinished)}
    text = json.dumps({**content, "files": sizes}) + "\n"
    (unfinished / TRAINER_FILE).write_text(text, encoding="utf-8")
    for path in (unfinished / TRAINER_FILE, *_folders(unfinished)):
        _flush(path)
    delete(folder)
    os.replace(unfinished, folder)
    _flush(folder.parent)
    return sum(sizes.values())


def delete(folder: Path) -> None:
    """At no moment is half of it taken for a checkpoint. What cannot be deleted is left to the next start."""
    deleted = folder.with_name(f"{folder.name}.deleted{UNFINISHED}")
    shutil.rmtree(deleted, ignore_errors=True)
    if folder.exists():
        os.replace(folder, deleted)
        shutil.rmtree(deleted, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Raises CheckpointError if `needed` bytes are more than the disk has left."""
    if shutil.disk_usage(folder.parent).free < needed:
        raise CheckpointError(_full(folder, needed))


@contextmanager
def explained(folder: Path, needed: int | None = None) -> Iterator[None]:
    """What the disk refuses, said in one line with the remedy.

    Raises:
        CheckpointError: a full disk, a folder that cannot be written, or any other failure of the file system.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        is_full = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
        message = (
            _full(folder, needed) if is_full else f"cannot write {folder} ({_reason(error)}); is it yours to write?"
        )
        raise CheckpointError(message) from error


def _full(folder: Path, needed: int | None) -> str:
    free = shutil.disk_usage(folder.parent).free
    wanted = "more" if needed is None else f"about {_size(needed)}"
    return (
        f"no space for {folder}: it needs {wanted}, {_size(free)} are free; "
        "make room there, or keep fewer checkpoints with experiment.keep_last"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _folders(folder: Path) -> list[Path]:
    return [folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir())]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
