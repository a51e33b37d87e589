# SPDX-License-Identifier: Apache-2.0
"""Small data sets on disk for the tests of the readers."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, side: int = 32) -> bytes:
    """A PNG of 4 x 4 coloured fields."""
    colours = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(colours, np.ones((side // 4, side // 4, 1), np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """A tar with the members of every sample: (key, {extension: content})."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for key, members in samples:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def captioned(first: int, count: int, caption: str = "caption number") -> list[tuple[str, dict[str, bytes]]]:
    """`count` samples with a PNG and the text `<caption> <number>`, numbered from `first`."""
    return [(f"{n:06d}", {"png": png(n), "txt": f"{caption} {n}".encode()}) for n in range(first, first + count)]


def write_shards(folder: Path, sizes: Iterable[int], caption: str = "caption number") -> Path:
    """One shard per size, with captions numbered through."""
    first = 0
    for number, size in enumerate(sizes):
        write_tar(folder / f"{number:04d}.tar", captioned(first, size, caption))
        first += size
    return folder


def write_jsonl(path: Path, records: Iterable[object]) -> Path:
    """Records one per line; a string is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def question(number: int, image: str | list[str] | None = None) -> dict[str, object]:
    """A LLaVA-style record."""
    mark = "<image>\n" if image else ""
    turns = [{"from": "human", "value": f"{mark}What is {number}?"}, {"from": "gpt", "value": f"It is {number}."}]
    return {"conversations": turns, **({"image": image} if image else {})}
