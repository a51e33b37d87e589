# SPDX-License-Identifier: Apache-2.0
"""Samples a second and core: codes computed ahead, exact JPEGs, and JPEGs that the decoder may shrink (approximate).

From the shard to what goes into a row, without its text tokens: record, caption, and the codes or the square pixels.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.bench.figures import Figure, Setting
from unigen.bench.pairs import cpu_seconds, one_thread
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.codes import SUFFIX, CodeShard, CodeSource, CodeSpec, Strings
from unigen.data.draws import Draws
from unigen.data.image_text import ImageTextSource
from unigen.data.images import describe_transform, square_pixels
from unigen.data.records import Part, Record
from unigen.data.sample import RawSample

SIDE, RESOLUTION, NUM_CODES = 512, 256, 256
JPEG_QUALITY = 90
CODED_FLOOR, EXACT_FLOOR, DRAFT_FLOOR = 20_000.0, 200.0, 600.0
CAPTION_WORDS = 60
RUNS = 15


def measure(setting: Setting) -> Iterator[Figure]:
    """Shards of made-up images and captions in a temporary folder, read by the sources that training reads."""
    num_jpegs, num_coded = (8, 500) if setting.is_quick else (64, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = DataConfig(root=folder)
        mean_bytes = _write_jpegs(root / "datasets", num_jpegs, setting.seed)
        jpegs = SourceConfig(task="t2i", format="webdataset", paths=["jpegs.tar"])
        image = f"JPEGs of {SIDE} px, {mean_bytes / 1000:.0f} kB, to {RESOLUTION} px"
        exact = ImageTextSource("exact", jpegs, data)
        draft = ImageTextSource("draft", jpegs, data, draft_side=RESOLUTION)
        spec = CodeSpec("made up", RESOLUTION, describe_transform(1, is_draft=False))
        _write_codes(root / "datasets", num_coded, spec, setting.seed)
        coded = CodeSource("coded", replace(jpegs, format="codes", paths=[f"jpegs{SUFFIX}"]), data, spec)
        yield from _rate("coded", coded, num_coded, CODED_FLOOR, f"{NUM_CODES} codes, no text tokens", setting)
        yield from _rate("jpeg_exact", exact, num_jpegs, EXACT_FLOOR, image, setting)
        yield from _rate("jpeg_approximate_draft", draft, num_jpegs, DRAFT_FLOOR, f"{image}, approximate", setting)


def _rate(name: str, source: Any, count: int, floor: float, note: str, setting: Setting) -> Iterator[Figure]:
    with one_thread():
        read = _reader(source, count)
        read()  # fills the caches of the file system and of the modules
        # The best of several: what else runs on the machine makes a core slower, and never faster.
        seconds = min(cpu_seconds(read) for _ in range(1 if setting.is_quick else RUNS))
    yield Figure(f"loader/{name}", count / seconds, "samples/s", at_least=setting.timed(floor), note=note)


def _reader(source: Any, count: int) -> Callable[[], None]:
    def read() -> None:
        for record in islice(source.read(0, Part(), 0), count):
            assert isinstance(record, Record), f"{record} among samples that were just written"
            _content(source.decode(record, Draws(0, record.key, 0)))

    return read


def _content(raw: RawSample) -> object:
    """What takes the image's place in a row."""
    return raw.codes[0][0] if raw.codes else square_pixels(raw.images[0], RESOLUTION)


def _write_jpegs(folder: Path, count: int, seed: int) -> float:
    """A tar of images with captions; returns the mean size of a file in bytes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    sizes = []
    with tarfile.open(folder / "jpegs.tar", "w") as tar:
        for number in range(count):
            content = _jpeg(generator)
            sizes.append(len(content))
            for extension, member in (("jpg", content), ("txt", _caption(generator).encode())):
                entry = tarfile.TarInfo(f"{number:06d}.{extension}")
                entry.size = len(member)
                tar.addfile(entry, BytesIO(member))
    return float(np.mean(sizes))


def _jpeg(generator: np.random.Generator) -> bytes:
    """Coarse shapes with grain, about as large as a photograph of this size."""
    coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = generator.normal(0.0, 5.6, (SIDE, SIDE, 1))
    image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    file = BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _caption(generator: np.random.Generator) -> str:
    words = generator.integers(97, 123, (CAPTION_WORDS, 5), dtype=np.uint8)
    return " ".join(bytes(word).decode() for word in words)


def _write_codes(folder: Path, count: int, spec: CodeSpec, seed: int) -> None:
    generator = np.random.default_rng(seed)
    CodeShard(
        spec=spec,
        source="jpegs.tar",
        codes_NKI=generator.integers(0, 8192, (count, 1, NUM_CODES), dtype=np.uint16),
        keys=Strings.of([f"{number:06d}".encode() for number in range(count)]),
        columns={"text": Strings.of([_caption(generator).encode()] * count), "json": Strings.of([b""] * count)},
    ).save(folder / f"jpegs{SUFFIX}")
