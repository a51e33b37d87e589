# SPDX-License-Identifier: Apache-2.0
"""Samples of one WebDataset tar: members grouped by name, undecoded; a damaged tar gives its good samples and one fault."""

import os
import tarfile
import urllib.error
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

from webdataset.tariterators import base_plus_ext

from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.shards import READ_ERRORS, open_shard, scheme_of


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes that still lie in a local tar."""

    file: FileIO
    offset: int
    size: int

    def read(self) -> bytes:
        content = os.pread(self.file.fileno(), self.size, self.offset)
        if len(content) != self.size:
            raise SampleRefused("truncated_shard", f"{len(content)} of {self.size} bytes")
        return content


@dataclass(frozen=True, slots=True)
class TarSample:
    """One sample: its key, and its members by extension (lower case), as bytes or as the place of the bytes."""

    key: str
    members: dict[str, bytes | Slice]

    def read(self, extension: str) -> bytes:
        content = self.members[extension]
        return content if isinstance(content, bytes) else content.read()


def read_tar(shard: str, *, allow_pipe: bool = False) -> Iterator[TarSample | Fault]:
    """The samples of `shard` in their order.

    A local, uncompressed tar is only indexed here (512 bytes per member are read), so that passing over samples is
    cheap; of any other the bytes are held by the samples. Where the tar breaks off, the sample that is cut is left out
    and a Fault takes its place at the end.
    """
    try:
        stream = open_shard(shard, allow_pipe=allow_pipe)
    except READ_ERRORS as error:
        yield unopened(shard, error)
        return
    if scheme_of(shard) or not shard.endswith(".tar"):
        with stream:
            yield from _group(_stream_members(stream), shard)
    else:
        stream.close()
        yield from _group(_local_members(Path(shard)), shard)


def unopened(shard: str, error: Exception) -> Fault:
    """The fault of a shard that could not be opened; `error` is one of READ_ERRORS."""
    if isinstance(error, FileNotFoundError):
        return Fault("missing_shard", shard)
    is_missing = isinstance(error, urllib.error.HTTPError) and error.code == 404
    return Fault("missing_shard" if is_missing else "unreadable_shard", shard, str(error))


def count_samples(shard: str) -> int:
    """Whole samples in a local tar."""
    return sum(isinstance(sample, TarSample) for sample in read_tar(shard))


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a damaged header, or the end of the file, for the end of the archive. Only an end marker is one."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end marker; the class is not public
                raise
            raise tarfile.ReadError(f"no end marker after {tar.offset} bytes ({error})") from error


_Member = tuple[str, bytes | Slice]


def _local_members(path: Path) -> Iterator[_Member]:
    file = FileIO(path)  # stays open as long as a Slice of it lives
    size = os.fstat(file.fileno()).st_size
    with open(path, "rb") as headers, tarfile.open(fileobj=headers, mode="r:", tarinfo=_StrictHeader) as tar:
        for info in tar:
            if info.isreg():
                if info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"{info.name} ends {info.offset_data + info.size - size} bytes too early")
                yield info.name, Slice(file, info.offset_data, info.size)
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header


def _stream_members(stream: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictHeader) as tar:
        for info in tar:
            member = tar.extractfile(info) if info.isreg() else None
            if member is not None:
                content = member.read()
                if len(content) != info.size:
                    raise tarfile.ReadError(f"{info.name} has {len(content)} of {info.size} bytes")
                yield info.name, content
            tar.members = []  # type: ignore[attr-defined]


def _group(members: Iterator[_Member], shard: str) -> Iterator[TarSample | Fault]:
    """Neighbouring members of one base name make a sample."""
    sample: TarSample | None = None
    whole: set[str] = set()
    try:
        for name, content in members:
            key, extension = base_plus_ext(name)
            if key is None or name.startswith("__"):
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    whole = set(sample.members)
                    yield sample
                sample = TarSample(key, {})
            sample.members.setdefault(extension.lower(), content)
    except (tarfile.TarError, *READ_ERRORS, EOFError, zlib.error) as error:
        # The last sample may be cut: it counts as whole if it has what the one before it has.
        if sample is not None and whole and whole <= set(sample.members):
            yield sample
        yield Fault(_cause(error, sample), shard, str(error))
        return
    if sample is not None:
        yield sample


def _cause(error: Exception, sample: TarSample | None) -> Cause:
    return "unreadable_shard" if sample is None and isinstance(error, tarfile.ReadError) else "truncated_shard"
