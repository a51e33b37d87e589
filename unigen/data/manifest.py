# SPDX-License-Identifier: Apache-2.0
"""`run.json`: what an output folder was made with. A folder is only ever added to by the same run."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from unigen.data.json_files import read_json, write_json
from unigen.environment import git_commit, has_uncommitted_changes, inspect_machine, package_versions
from unigen.errors import EvaluationError

SCHEMA_VERSION = 1
MANIFEST_NAME = "run.json"


def open_run(
    folder: Path, identity: Mapping[str, Any], *, writes: bool = True, notes: Mapping[str, Any] | None = None
) -> None:
    """Claim a folder for a run. `identity` is all that the content of the folder depends on.

    Args:
        writes: whether this process writes the manifest; the other ranks only compare with one that is there.
        notes: what is worth keeping besides, and may differ from call to call.
    Raises:
        EvaluationError: the folder belongs to another run.
    """
    present = read_json(folder / MANIFEST_NAME)
    if present is not None:
        _require_equal(folder, present.get("identity"), identity)
    elif writes:
        manifest = {"schema_version": SCHEMA_VERSION, "identity": identity, **(notes or {}), "started": now()}
        write_json({**manifest, **surroundings(folder)}, folder / MANIFEST_NAME)


def close_runs(folder: Path) -> None:
    """Note in the manifests of a folder and of those below it that all is done, where it was not before."""
    for path in folder.rglob(MANIFEST_NAME):
        manifest = read_json(path)
        if manifest is not None and "ended" not in manifest:
            write_json({**manifest, "ended": now()}, path)


def surroundings(folder: Path) -> dict[str, Any]:
    """Commit, versions, precision and machine: worth knowing, though the content of a folder should not depend on them."""
    import torch

    return {
        "git_commit": git_commit(),
        "has_uncommitted_changes": has_uncommitted_changes(),
        "versions": package_versions(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "is_deterministic": torch.are_deterministic_algorithms_enabled(),
        "machine": asdict(inspect_machine(folder)),
    }


def now(precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """The time in UTC."""
    return datetime.now(UTC).isoformat(timespec=precision)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_equal(folder: Path, present: Any, identity: Mapping[str, Any]) -> None:
    before, after = dict(_leaves(present)), dict(_leaves(identity))
    for key in [*after, *before]:
        if before.get(key) != after.get(key):
            raise EvaluationError(
                f"{folder} holds results of another run: {key} was {before.get(key)!r} and is now {after.get(key)!r}; "
                f"give another --output, or delete that folder"
            )


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, Mapping):
        yield prefix, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
