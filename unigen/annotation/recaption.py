# SPDX-License-Identifier: Apache-2.0
"""New captions for the images of WebDataset shards: tars in, tars out, `.txt` beside the unchanged image.

Captions are kept one by one as they come; a shard is written, beside and renamed, once all of its images have one. Images
that cannot be read are left out and named. A shard whose judge failed is not written: the next run asks for what is missing.
"""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.annotation.judges.judge import Judge, Request, ask_about_units, reason_of
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.data.faults import Fault, SampleRefused
from unigen.data.image_words import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, first_member
from unigen.data.images import decode_image
from unigen.data.ledger import LedgerWriter, read_ledger
from unigen.data.shards import TAR_SUFFIXES
from unigen.data.tars import TarSample, read_tar
from unigen.data.whole_files import whole_file
from unigen.errors import ConfigError, DataError

LIST_NAME = "recaption.jsonl"
LONG_WORDS = 250
REQUESTS = {
    "chat": "Describe in detail what this image shows.",
    "long": (
        f"Describe this image as completely as you can, in one text of at least {LONG_WORDS} words. Name every person, animal "
        "and thing, how many there are, their colors, materials, shapes, sizes, looks and poses, where each is and how "
        "they relate to each other, any writing word for word, then the background, the light, the style and the mood. Say "
        "only what can be seen; do not guess names, and do not begin with a phrase such as 'The image shows'."
    ),
}


class Recaption(StepWithoutFiles):
    """Every shard is a unit; its captions are kept in a ledger of its own under `ledgers`."""

    name = "recaption"

    def __init__(
        self, shards: Sequence[str], judge: Judge, style: str, *, output: Path, ledgers: Path, rank: int
    ) -> None:
        self._judge, self._style, self._output, self._ledgers, self._rank = judge, style, output, ledgers, rank
        self._shards = {_name(shard): shard for shard in shards}
        if len(self._shards) != len(shards):
            raise ConfigError("two shards have one file name; write them into folders of their own, with two calls")

    def identity(self) -> Mapping[str, Any]:
        return {"style": self._style, "judge": {**self._judge.identity(), "request": REQUESTS[self._style]}}

    def notes(self) -> Mapping[str, Any]:
        return self._judge.notes()

    def units(self) -> Sequence[Unit]:
        return [Unit(shard, name) for name, shard in self._shards.items()]

    def is_there(self, unit: Unit) -> bool:
        return (self._output / f"{unit.content}.tar").is_file()

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        for unit in units:
            try:
                yield self._recaption(unit)
            except DataError as error:
                yield Failed(unit, reason_of(error))

    def captions(self) -> Iterator[Mapping[str, Any]]:
        """The records of all captions so far: `key`, `caption`, `num_words`."""
        for name in self._shards:
            yield from (record for record in read_ledger(self._ledgers / name).values() if "caption" in record)

    def _recaption(self, unit: Unit) -> Done | Failed:
        samples, faults = _read(unit.name)
        ledger = self._ledgers / unit.content
        missing = self._ask(samples, ledger)
        if missing:
            first = missing[0]
            return Failed(
                unit, f"{len(missing)} of {len(samples)} captions are missing, first {first.unit.name}: {first.reason}"
            )
        records = read_ledger(ledger)
        captions = {key: str(records[key]["caption"]) for key in samples if "caption" in records[key]}
        _write_tar(self._output / f"{unit.content}.tar", samples, captions)
        refused = [f"{key}: {records[key]['refused']}" for key in samples if "refused" in records[key]]
        line = {"shard": unit.name, "num_captions": len(captions), "refused": [*refused, *faults]}
        return Done(unit, [line])

    def _ask(self, samples: Mapping[str, TarSample], ledger: Path) -> list[Failed]:
        """Get the captions that are not there yet; returns those that the judge did not give."""
        known = read_ledger(ledger)
        writer = LedgerWriter(ledger, self._rank)
        refused: set[str] = set()

        def requests(unit: Unit) -> Sequence[Request]:
            try:
                content = first_member(unit.content, IMAGE_EXTENSIONS)
                decode_image(content)
            except SampleRefused as error:
                refused.add(unit.name)
                writer.append(unit.name, {"refused": reason_of(error)})
                raise
            return [Request(REQUESTS[self._style], content)]

        pending = [Unit(key, sample) for key, sample in samples.items() if key not in known]
        missing = []
        for result in ask_about_units(self._judge, pending, requests, _caption):
            if isinstance(result, Done):
                writer.append(result.unit.name, result.lines[0])
            elif result.unit.name not in refused:
                missing.append(result)
        return missing


def _name(shard: str) -> str:
    name = shard.rstrip("/").rsplit("/", 1)[-1]
    for suffix in sorted(TAR_SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return name


def _caption(unit: Unit, replies: Sequence[str]) -> Sequence[Line]:
    caption = replies[0].strip()
    if not caption:
        raise DataError("the judge said nothing")
    return [{"caption": caption, "num_words": len(caption.split())}]


def _read(shard: str) -> tuple[dict[str, TarSample], list[str]]:
    """The samples of a shard by key, and what is wrong with it.

    Raises:
        DataError: nothing of it can be read.
    """
    samples: dict[str, TarSample] = {}
    faults = []
    for entry in read_tar(shard):
        if isinstance(entry, Fault):
            faults.append(f"{entry.cause} {entry.detail}".strip())
        elif entry.key in samples:
            faults.append(f"{entry.key}: a second sample of this name")
        else:
            samples[entry.key] = entry
    if not samples:
        raise DataError("; ".join(faults) or "it holds no sample")
    return samples, faults


def _write_tar(path: Path, samples: Mapping[str, TarSample], captions: Mapping[str, str]) -> None:
    """Samples in their order, all members as they were but for the text."""
    with whole_file(path) as partial, tarfile.open(partial, "w") as tar:
        for key, caption in captions.items():
            for extension in samples[key].members:
                if extension not in TEXT_EXTENSIONS:
                    _add(tar, f"{key}.{extension}", samples[key].read(extension))
            _add(tar, f"{key}.txt", caption.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
