# SPDX-License-Identifier: Apache-2.0
"""Image codes computed ahead: the shards that `unigen encode` writes, and the source that trains from them.

A shard is one safetensors file for one shard of images: a tar, a class, a part of a list of records. Its metadata say what the
codes depend on; its tensors are `codes` (images, crops, positions) uint16 and, for the keys, the texts and the JSON of the
samples, their bytes one after another with the place where each ends. Every sample has its place, unusable ones too: so a run
reads the same samples in the same order from codes as from images. Where samples have no image, or several, `image_ends` says
where the images of each end; elsewhere every sample has one.
"""

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.numpy import save_file

from unigen.config.checks import reads_padded
from unigen.config.folders import find_model, weights_hash
from unigen.config.schema import DataConfig, ModelConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.image_words import MemberUse
from unigen.data.images import describe_transform
from unigen.data.local_copies import local_copy
from unigen.data.records import Part, Record
from unigen.data.sample import RawSample
from unigen.data.shards import READ_ERRORS, expand_shards, open_shard, scheme_of
from unigen.data.tars import TarSample, unopened
from unigen.errors import DataError

SUFFIX = ".codes.safetensors"
FORMAT = "unigen codes 1"
"""Name of the metadata."""
LARGEST_CODEBOOK = 1 << 16
TEXT_COLUMNS = {"text": "txt", "json": "json"}
"""Columns of a shard that hold the members of its samples, and the extension that they have in a tar."""
_SHARDS_COUNTED = 64
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "I64": np.int64}


class BrokenShardError(DataError):
    """A file that is no shard of codes, or a part of one."""

    cause: Cause = "unreadable_shard"


class TruncatedShardError(BrokenShardError):
    """A shard of codes that breaks off."""

    cause: Cause = "truncated_shard"


@dataclass(frozen=True)
class CodeSpec:
    """What codes depend on: codes of another spec are codes of other images, or of no image at all."""

    tokenizer: str
    """Hash of the image tokenizer's weights."""
    resolution: int
    transform: str
    """See `describe_transform`."""

    def check(self, found: "CodeSpec", place: str) -> None:
        """Raises DataError unless `found`, the spec of the codes in `place`, is this one."""
        names = {
            "tokenizer": "the image tokenizer with the hash",
            "resolution": "model.image_resolution",
            "transform": "the transform",
        }
        for name, words in names.items():
            here, there = str(getattr(self, name)), str(getattr(found, name))
            if here != there:
                if name == "tokenizer":
                    here, there = here[:12], there[:12]
                raise DataError(
                    f"{place} holds codes made with {words} {there}, this configuration has {here}; "
                    "make new ones with `unigen encode`, or train from the images"
                )


@lru_cache(maxsize=4)
def _tokenizer_hash(folder: Path) -> str:
    return weights_hash(folder)


def code_spec(model: ModelConfig, data: DataConfig, task: str) -> CodeSpec:
    """The codes that a configuration would compute itself of images of a task.

    Raises:
        CheckpointError: the image tokenizer is not there.
    """
    is_draft, is_padded = data.image_decoding == "approximate_draft", reads_padded(model, task)
    transform = describe_transform(1 if is_padded else data.image_crops, is_draft=is_draft, is_padded=is_padded)
    return CodeSpec(_tokenizer_hash(find_model(model.image_tokenizer, data.root)), model.image_resolution, transform)


@dataclass(frozen=True)
class Strings:
    """Many byte strings in one."""

    content: bytes | memoryview
    ends: list[int]

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> "Strings":
        return cls(b"".join(strings), list(accumulate(map(len, strings))))

    def __getitem__(self, index: int) -> bytes:
        start = self.ends[index - 1] if index else 0
        return bytes(self.content[start : self.ends[index]])


@dataclass(frozen=True)
class CodeShard:
    """The codes of one tar, or of what else a source calls a shard."""

    spec: CodeSpec
    source: str
    """What the keys of its samples begin with, such as the label of the tar; may be empty."""
    codes_NKI: np.ndarray
    """uint16: images, crops, positions (and codes of a position, where a tokenizer has several)."""
    keys: Strings
    columns: Mapping[str, Strings]
    """See TEXT_COLUMNS."""
    image_ends: Sequence[int] | None = None
    """Where the images of each sample end, None where each sample has one."""
    refused: Mapping[int, tuple[Cause, str]] = field(default_factory=dict)
    """Samples that could not be encoded, and why."""
    broken_off: str | None = None
    """What was wrong at the end of a tar that breaks off."""

    def save(self, path: Path) -> None:
        """Write the shard; a file at `path` is always whole."""
        tensors: dict[str, np.ndarray] = {"codes": self.codes_NKI}
        if self.image_ends is not None:
            tensors["image_ends"] = np.array(self.image_ends, dtype=np.int64)
        for name, strings in {"keys": self.keys, **self.columns}.items():
            tensors[name] = np.frombuffer(strings.content, dtype=np.uint8)
            tensors[f"{name}_ends"] = np.array(strings.ends, dtype=np.int64)
        facts = {**vars(self.spec), "source": self.source, "codes_per_image": self.codes_NKI.shape[2]}
        facts |= {"refused": self.refused, "broken_off": self.broken_off}
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={FORMAT: json.dumps(facts)})  # in one entry, for entries have no order
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)

    @property
    def num_samples(self) -> int:
        return len(self.keys.ends)

    def images(self, index: int) -> tuple[np.ndarray, ...]:
        """The codes (crops, positions) of each image of a sample."""
        if self.image_ends is None:
            return (self.codes_NKI[index],)
        start = self.image_ends[index - 1] if index else 0
        return tuple(self.codes_NKI[start : self.image_ends[index]])


@dataclass(frozen=True)
class ShardHeader:
    """What stands at the beginning of a shard."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Any]
    """By name: `dtype`, `shape` and `data_offsets`, as safetensors says them."""
    size: int
    """Bytes before the tensors."""

    @classmethod
    def of(cls, beginning: bytes, place: str) -> "ShardHeader":
        """Raises BrokenShardError for what is no shard of codes."""
        length = int.from_bytes(beginning[:8], "little")
        try:
            content = json.loads(beginning[8 : 8 + length])
            facts = json.loads(content.pop("__metadata__")[FORMAT])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BrokenShardError(
                f"{place} is no whole shard of codes as `unigen encode` writes them; encode it again"
            ) from error
        return cls(facts, content, 8 + length)

    @classmethod
    def read(cls, path: Path) -> "ShardHeader":
        """Of a local file, which is found whole or not at all.

        Raises:
            BrokenShardError: no shard of codes, or a part of one.
        """
        with path.open("rb") as file:
            length = file.read(8)
            header = cls.of(length + file.read(int.from_bytes(length, "little")), str(path))
        header.check_size(path.stat().st_size, str(path))
        return header

    def check_size(self, num_bytes: int, place: str) -> None:
        """Raises TruncatedShardError for a file of another number of bytes than the header says."""
        if num_bytes != self.end:
            raise TruncatedShardError(f"{place} has {num_bytes} of {self.end} bytes; encode it again")

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(self.facts["tokenizer"], self.facts["resolution"], self.facts["transform"])

    @property
    def num_samples(self) -> int:
        return int(self.tensors["keys_ends"]["shape"][0])

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.size + max(int(tensor["data_offsets"][1]) for tensor in self.tensors.values())

    def array(self, name: str, content: bytes | mmap.mmap) -> np.ndarray:
        """A tensor of the file's `content`, which is not copied."""
        tensor = self.tensors[name]
        count = int(np.prod(tensor["shape"]))
        if count == 0:
            return np.empty(tensor["shape"], _DTYPES[tensor["dtype"]])
        start = self.size + int(tensor["data_offsets"][0])
        return np.frombuffer(content, _DTYPES[tensor["dtype"]], count, start).reshape(tensor["shape"])


def read_shard(path: str, *, allow_pipe: bool = False) -> CodeShard:
    """A shard: a local one is mapped into memory, any other read once.

    Raises:
        OSError, HTTPException: what is not there, or breaks off on its way (READ_ERRORS).
        BrokenShardError: no whole shard of codes.
    """
    content: bytes | mmap.mmap
    with open_shard(path, allow_pipe=allow_pipe) as file:
        if scheme_of(path):
            content = file.read()
            header = ShardHeader.of(content, path)
            header.check_size(len(content), path)
        else:
            header = ShardHeader.read(Path(path))
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def strings(name: str) -> Strings:
        return Strings(cast(Any, header.array(name, content)).data, header.array(f"{name}_ends", content).tolist())

    has_ends = "image_ends" in header.tensors
    refused = {int(index): tuple(why) for index, why in header.facts["refused"].items()}
    return CodeShard(
        spec=header.spec,
        source=header.facts["source"],
        codes_NKI=header.array("codes", content),
        keys=strings("keys"),
        columns={name: strings(name) for name in TEXT_COLUMNS},
        image_ends=header.array("image_ends", content).tolist() if has_ends else None,
        refused=refused,
        broken_off=header.facts["broken_off"],
    )


class CodeSource:
    """Images whose codes were computed ahead; otherwise like the source that they were made of, with the same keys and draws."""

    def __init__(self, name: str, config: SourceConfig, data: DataConfig, spec: CodeSpec | None) -> None:
        """
        Args:
            spec: what the codes must be; None opens the source to be counted only.

        Raises:
            DataError: no such shards, or codes of another spec.
        """
        self.name = name
        self._num_samples = config.num_samples
        self._data = data
        self._shards = expand_shards(config.paths, data.root, allow_pipe=data.allow_pipe, suffixes=(SUFFIX,))
        self._members = MemberUse(config)
        self._spec = spec
        if spec is not None and not scheme_of(self._shards[0]):  # a mistake is told before anything loads
            header = _whole_header(self._shards[0])
            if header is not None:
                spec.check(header.spec, self._shards[0])

    @property
    def shards(self) -> Sequence[str]:
        return self._shards

    def num_samples(self) -> int | None:
        """The configured number, else counted where that means opening few local files."""
        if self._num_samples is not None:
            return self._num_samples
        if len(self._shards) > _SHARDS_COUNTED or any(scheme_of(shard) for shard in self._shards):
            return None
        headers = (_whole_header(shard) for shard in self._shards)
        return sum(header.num_samples for header in headers if header is not None)

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        assert self._spec is not None, "this source was opened to be counted"
        path = local_copy(self._shards[shard], self._data)
        try:
            content = read_shard(path, allow_pipe=self._data.allow_pipe)
        except (BrokenShardError, *READ_ERRORS) as error:
            if part.index == skip == 0:
                if isinstance(error, BrokenShardError):
                    yield Fault(error.cause, path, str(error))
                else:
                    yield unopened(path, error)
            return
        self._spec.check(content.spec, path)
        prefix = key_prefix(self.name, content.source)
        entries = content.num_samples + (content.broken_off is not None)
        for index in range(part.index + skip * part.of, entries, part.of):
            if index < content.num_samples:
                yield Record(prefix + content.keys[index].decode(), (content, index))
            else:
                yield Fault("truncated_shard", path, content.broken_off or "")

    def decode(self, record: Record, draws: Draws) -> RawSample:
        shard: CodeShard
        shard, index = record.content
        if index in shard.refused:
            raise SampleRefused(*shard.refused[index])
        found = ((extension, shard.columns[name][index]) for name, extension in TEXT_COLUMNS.items())
        members: dict[str, Any] = {extension: content for extension, content in found if content}
        return self._members.sample(record, TarSample(record.key, members), draws, codes=shard.images(index))


def key_prefix(name: str, label: str) -> str:
    """What the keys of a source's shard begin with."""
    return f"{name}/{label}/" if label else f"{name}/"


def _whole_header(shard: str) -> ShardHeader | None:
    """Of a local shard; None of a broken one, which is counted as a fault when it is read."""
    try:
        return ShardHeader.read(Path(shard))
    except BrokenShardError:
        return None


def _umask() -> int:
    """What the user's files may not be; safetensors writes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
