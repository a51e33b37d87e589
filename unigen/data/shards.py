# SPDX-License-Identifier: Apache-2.0
"""Lists of files from a config's `paths`, and opening them, local or remote, without a shell."""

import json
import re
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, cast

from braceexpand import braceexpand

from unigen.errors import ConfigError, DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_WEB_SCHEMES = ("http", "https")
_STORE_SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs", "abfs": "adlfs"}
_SECONDS_WITHOUT_AN_ANSWER = 60.0
READ_ERRORS = (OSError, HTTPException)
"""What opening a shard, or reading one that breaks off, raises. Python's client of http has errors that are no OSError."""


def expand_shards(
    paths: Sequence[str], root: str | Path, *, allow_pipe: bool = False, suffixes: tuple[str, ...] = TAR_SUFFIXES
) -> list[str]:
    """The shards that `paths` name: brace lists, `.json` lists of shards, folders, single files, addresses.

    Relative local paths lie under `<root>/datasets`. The order is that of `paths`.

    Raises:
        ConfigError: braces that do not close, an unknown kind of address, a `pipe:` command that is not allowed.
        DataError: a folder without shards, a list that is not one, or a path of which nothing is there.
    """
    base = Path(root) / "datasets"
    shards: list[str] = []
    for path in paths:
        found = _expand_one(path, base, allow_pipe, suffixes)
        _check_first(found)
        shards += found
    if not shards:
        raise DataError(f"the paths {list(paths)} name no shard; give files, brace lists or folders")
    return shards


def expand_files(
    paths: Sequence[str], root: str | Path, suffixes: tuple[str, ...], first_files: int | None = None
) -> list[Path]:
    """The local files that `paths` name (brace lists, single files, folders: their files with one of `suffixes`).

    Args:
        first_files: of a folder, the first so many by name.

    Raises:
        ConfigError: braces that do not close, or an address that is not local.
        DataError: a file that is not there or a folder without such files.
    """
    base = Path(root) / "datasets"
    files: list[Path] = []
    for path in paths:
        for name in _braces(path):
            if scheme_of(name):
                raise ConfigError(f"{name}: this format is read from local files; download it and give its path")
            here = base / name
            if here.is_dir():
                files += _folder(here, suffixes)[:first_files]
            elif here.is_file():
                files.append(here)
            else:
                raise DataError(f"there is no file {here}; data.root is {root}, paths are relative to its datasets/")
    return files


def scheme_of(path: str) -> str:
    """`http` for `http://...`, `pipe` for `pipe:...`, empty for a local path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?", path)
    return match.group(1).lower() if match and (match.group(2) or match.group(1).lower() == "pipe") else ""


def open_shard(shard: str, *, allow_pipe: bool = False) -> IO[bytes]:
    """A binary stream of a shard as `expand_shards` gave it. Seekable only for local files.

    Raises:
        OSError, HTTPException: what is not there or does not answer (READ_ERRORS).
        ConfigError: a `pipe:` command that is not allowed.
        DataError: a store whose library is not installed.
    """
    scheme = scheme_of(shard)
    if not scheme:
        return open(shard, "rb")
    _check_address(shard, allow_pipe)
    if scheme in _WEB_SCHEMES:
        return cast(IO[bytes], urllib.request.urlopen(shard, timeout=_SECONDS_WITHOUT_AN_ANSWER))
    if scheme == "pipe":
        from webdataset.gopen import gopen

        return cast(IO[bytes], gopen(shard))
    return _open_in_store(shard, scheme)


def _open_in_store(shard: str, scheme: str) -> IO[bytes]:
    import fsspec

    try:
        return cast(IO[bytes], fsspec.open(shard, "rb").open())
    except ImportError as error:
        package = _STORE_SCHEMES[scheme]
        raise DataError(f"{shard}: reading {scheme}:// needs {package}; run: uv pip install {package}") from error


def _expand_one(path: str, base: Path, allow_pipe: bool, suffixes: tuple[str, ...]) -> list[str]:
    shards: list[str] = []
    for name in _braces(path):
        if scheme_of(name):
            _check_address(name, allow_pipe)
            shards.append(name)
            continue
        here = base / name
        if here.suffix == ".json":
            shards += _shard_list(here, base, allow_pipe, suffixes)
        elif here.name.endswith(suffixes):
            shards.append(str(here))
        else:
            shards += [str(shard) for shard in _folder(here, suffixes)]
    return shards


def _check_first(shards: list[str]) -> None:
    """Tens of thousands of shards are not all looked up: the first says whether the place is right."""
    if shards and not scheme_of(shards[0]) and not Path(shards[0]).is_file():
        raise DataError(f"there is no shard {shards[0]}; relative paths lie under <data.root>/datasets")


def _shard_list(path: Path, base: Path, allow_pipe: bool, suffixes: tuple[str, ...]) -> list[str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the list of shards {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"the list of shards {path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f'{path} is not a list of shards; write for example ["train/{{0000..0099}}.tar"]')
    nested = next((entry for entry in entries if not scheme_of(entry) and entry.endswith(".json")), None)
    if nested is not None:
        raise DataError(f"{path} names another list, {nested}; name the shards themselves")
    return [shard for entry in entries for shard in _expand_one(entry, base, allow_pipe, suffixes)]


def _folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"there is no file or folder {folder}; relative paths lie under <data.root>/datasets")
    files = sorted(path for path in folder.iterdir() if path.name.endswith(suffixes) and path.is_file())
    if not files:
        raise DataError(f"the folder {folder} holds no {' or '.join(suffixes)} file")
    return files


def _braces(path: str) -> list[str]:
    try:
        return list(braceexpand(path))
    except ValueError as error:
        raise ConfigError(f"'{path}' has a brace that does not close; write ranges as {{0000..0099}}") from error


def _check_address(address: str, allow_pipe: bool) -> None:
    scheme = scheme_of(address)
    if scheme == "pipe":
        if not allow_pipe:
            raise ConfigError(
                f"'{address}' would run a shell command; set data.allow_pipe=true if you wrote the list yourself"
            )
    elif scheme not in (*_WEB_SCHEMES, *_STORE_SCHEMES):
        known = ", ".join(f"{name}://" for name in (*_WEB_SCHEMES, *_STORE_SCHEMES))
        raise ConfigError(f"'{address}' has an unknown kind of address; choose from {known} or a local path")
