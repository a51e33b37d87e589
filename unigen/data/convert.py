# SPDX-License-Identifier: Apache-2.0
"""Making WebDataset shards from images with captions that lie around in another way."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unigen.data.captioned import CaptionedImage, Kind, find_captioned_images
from unigen.data.faults import Fault, FaultLog, SampleRefused
from unigen.data.images import decode_image
from unigen.errors import DataError

_EXTENSION_OF_FORMAT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    shards: list[Path]
    num_samples: int
    faults: FaultLog
    """What was left out, per cause and with examples."""


def convert_to_shards(
    source: Path,
    output: Path,
    kind: Kind,
    *,
    samples_per_shard: int = 1000,
    max_pixels: int = 64_000_000,
    image_column: str = "image",
    caption_column: str = "caption",
    progress: Callable[[int], None] = lambda samples: None,
) -> Conversion:
    """Write `000000.tar`, `000001.tar`, ... and `sizes.json` (samples by shard) into `output`.

    Image files are kept byte by byte if they are JPEG, PNG or WebP, others become PNG. A sample whose image cannot be
    read or whose caption is empty is left out and counted. A shard appears under its name only when it is whole.

    Args:
        source: `folder`: images with a `.txt` of the same name beside them; `imagefolder`: one folder of images per
            class; `tsv`: a file of lines `path<TAB>caption`, paths relative to it; `jsonl`: the same as objects
            `{"image", "caption"}`; `parquet`: a file or a folder of files.
        image_column: of a jsonl or parquet; holds a path (relative to the file), in a parquet perhaps bytes, or a struct with
            `bytes` or `path`.
        progress: called with the number of samples after each shard.

    Raises:
        DataError: nothing to convert, or an output folder that has shards already.
    """
    pairs = find_captioned_images(source, kind, image_column, caption_column)
    output.mkdir(parents=True, exist_ok=True)
    if any(output.glob("*.tar")):
        raise DataError(f"{output} holds shards already; remove them or give another folder")
    faults = FaultLog(max_bad_fraction=1.0)
    sizes: dict[str, int] = {}
    samples = _checked(pairs, max_pixels, faults)
    while shard := _write_shard(output / f"{len(sizes):06d}.tar", samples, sum(sizes.values()), samples_per_shard):
        sizes[f"{len(sizes):06d}.tar"] = shard
        progress(sum(sizes.values()))
    if not sizes:
        raise DataError(f"{source} gave no sample as {kind}: {faults.describe() or 'it holds no image'}")
    _write_whole(output / "sizes.json", json.dumps(sizes, indent=1).encode())
    return Conversion([output / name for name in sizes], sum(sizes.values()), faults)


def _checked(pairs: Iterator[CaptionedImage | Fault], max_pixels: int, faults: FaultLog) -> Iterator[dict[str, bytes]]:
    """The members of every usable sample by extension; the others are counted."""
    for pair in pairs:
        if isinstance(pair, Fault):
            faults.add([pair], 1)
            continue
        try:
            members = _members(pair, max_pixels)
        except SampleRefused as refused:
            faults.add([Fault(refused.cause, pair.place, refused.detail)], 1)
            continue
        faults.add([], 1)
        yield members


def _members(pair: CaptionedImage, max_pixels: int) -> dict[str, bytes]:
    caption = " ".join(pair.caption.split())
    if not caption:
        raise SampleRefused("empty_caption")
    try:
        content = pair.read()
    except OSError as error:
        raise SampleRefused("missing_image", f"{error.filename}: {error.strerror}") from error
    image = decode_image(content, max_pixels=max_pixels)
    extension = _EXTENSION_OF_FORMAT.get(Image.open(io.BytesIO(content)).format or "")
    if extension is None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        extension, content = "png", buffer.getvalue()
    return {extension: content, "txt": caption.encode()}


def _write_shard(path: Path, samples: Iterator[dict[str, bytes]], first: int, limit: int) -> int:
    """Write up to `limit` samples and return how many there were; no file if none."""
    partial = path.with_suffix(".partial")
    written = 0
    with tarfile.open(partial, "w") as tar:
        while written < limit and (members := next(samples, None)) is not None:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{first + written:09d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            written += 1
    if written:
        os.replace(partial, path)
    else:
        partial.unlink()
    return written


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
