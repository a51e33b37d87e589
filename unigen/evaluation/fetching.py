# SPDX-License-Identifier: Apache-2.0
"""Bringing the files of benchmarks: whole and of known content, or not at all; what is there already is checked, not fetched.

`setup_eval.lock.json` under `third_party` keeps the SHA-256 of everything at its first fetch. What is known of a file by less
than a whole hash is held to that later.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from unigen.data.json_files import read_json, write_json
from unigen.data.manifest import file_hash
from unigen.errors import DataError, EvaluationError
from unigen.evaluation.dpg.prompts import prompts_hash, read_prompts
from unigen.evaluation.sources import Content, Roots, Wanted

LOCK_NAME = "setup_eval.lock.json"
SECONDS = 60.0
BLOCK = 2**20


def bring(wanted: Wanted, roots: Roots, mirror: str | None, say: Callable[[str], None]) -> None:
    """See that a file is there with its content.

    Args:
        mirror: what stands for `https://` in every address.
    Raises:
        DataError: it cannot be fetched, or nowhere has its content, or it is another one than at the first fetch.
    """
    place = roots.place(wanted)
    lock = roots.third_party / LOCK_NAME
    if place.exists() and is_of(place, wanted.content):
        say(f"there already: {place}")
    else:
        _fetch_first(wanted, place, mirror, say)
    _hold_to_lock(wanted.place, place, lock)


def is_of(place: Path, content: Content) -> bool:
    """Whether a file or folder has this content, as far as it is known."""
    return digest_of(place, content).startswith(content.digest)


def digest_of(place: Path, content: Content) -> str:
    """The hash of the kind that the content is known by; empty for something of another kind."""
    if content.kind == "prompts":
        try:
            return prompts_hash(read_prompts(place)) if place.is_dir() else ""
        except EvaluationError:
            return ""
    if not place.is_file():
        return ""
    if content.kind == "sha256":
        return file_hash(place)
    with place.open("rb") as file:  # git hashes a header with the length before the bytes
        digest = hashlib.sha1(f"blob {place.stat().st_size}\0".encode(), usedforsecurity=False)
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _fetch_first(wanted: Wanted, place: Path, mirror: str | None, say: Callable[[str], None]) -> None:
    """Fetch from the first address that has the content."""
    place.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for url in wanted.urls:
        address = url if mirror is None else f"{mirror.rstrip('/')}/{url.removeprefix('https://')}"
        say(f"fetching {address}")
        partial = place.with_name(f"{place.name}.partial")
        try:
            with _at(partial, wanted, address) as found:
                if is_of(found, wanted.content):
                    _replace(found, place)
                    say(f"fetched: {place}")
                    return
                digest = digest_of(found, wanted.content) or "of another kind"
                faults.append(f"{address} has other content: {digest}, not {wanted.content.digest}")
        except (OSError, EOFError, tarfile.TarError, DataError) as error:
            faults.append(f"{address}: {error}")
    raise DataError(f"{place} could not be fetched: {'; '.join(faults)}")


@contextmanager
def _at(partial: Path, wanted: Wanted, address: str) -> Iterator[Path]:
    """A whole download, or what an archive has under a name; what was downloaded is gone afterwards, unless it broke off."""
    _download(address, partial)
    try:
        if wanted.member is None:
            yield partial
        else:
            with tempfile.TemporaryDirectory(dir=partial.parent, prefix=".archive-") as folder:
                yield _unpack(partial, wanted.member, Path(folder))
    finally:
        partial.unlink(missing_ok=True)


def _download(address: str, partial: Path) -> None:
    """Download to `partial`, going on from what an earlier call left of the same address, where the server can."""
    note = partial.with_name(f"{partial.name}.from")
    begun = partial.stat().st_size if partial.exists() and note.exists() and note.read_text() == address else 0
    note.write_text(address)
    request = urllib.request.Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing comes after what is there
            raise
        note.unlink()
        return
    with response, partial.open("ab" if _goes_on(response) else "wb") as file:
        _copy(response, file)
    note.unlink()


def _goes_on(response: Any) -> bool:
    return getattr(response, "status", None) == 206


def _copy(response: Any, file: IO[bytes]) -> None:
    """Copy all of a response.

    Raises:
        DataError: the connection ended before the announced length.
    """
    announced = response.headers.get("Content-Length")
    begun = file.tell()
    shutil.copyfileobj(response, file, BLOCK)
    if announced is not None and file.tell() - begun != int(announced):
        raise DataError(f"broke off after {file.tell() - begun} of {announced} bytes; run the same command again")


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    """A file, or a folder's files, out of an archive, whose own top folder does not count; nothing else is written."""
    wanted = PurePosixPath(member)
    with tarfile.open(archive) as content:
        for entry in content:
            inside = PurePosixPath(*PurePosixPath(entry.name).parts[1:])
            if entry.isfile() and (inside == wanted or inside.parent == wanted):
                source = content.extractfile(entry)
                target = folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                assert source is not None
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    if not (folder / wanted).exists():
        raise DataError(f"there is no {member} in it")
    return folder / wanted


def _replace(found: Path, place: Path) -> None:
    """Put something in its place whole; an older folder is set aside first, since a folder cannot be replaced."""
    if place.is_dir():
        old = place.with_name(f".{place.name}.{os.getpid()}.old")
        place.rename(old)
        shutil.rmtree(old)
    found.replace(place)


def _hold_to_lock(name: str, place: Path, lock: Path) -> None:
    known = read_json(lock) or {}
    digest = prompts_hash(read_prompts(place)) if place.is_dir() else file_hash(place)
    if known.get(name, digest) != digest:
        raise DataError(
            f"{place} is not what it was at the first fetch (SHA-256 {known[name]}, now {digest}); fetch it again, or take "
            f"its line out of {lock} if that is meant"
        )
    write_json({**known, name: digest}, lock)
