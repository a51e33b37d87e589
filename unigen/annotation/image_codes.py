# SPDX-License-Identifier: Apache-2.0
"""Image codes ahead of training: shards of images go through the image tokenizer, once.

Legend: B images of one pass, K crops of an image, I codes of an image.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unigen.annotation.encoding_plan import EncodingJob
from unigen.config.folders import find_model
from unigen.config.schema import Config
from unigen.data.codes import (
    LARGEST_CODEBOOK,
    TEXT_COLUMNS,
    CodeShard,
    CodeSpec,
    ShardHeader,
    Strings,
    key_prefix,
)
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.images import decode_image, padded_pixels, square_pixels
from unigen.data.records import Part, Record
from unigen.errors import ConfigError, DataError
from unigen.models.image_tokenizers.registry import ImageTokenizer, load_image_tokenizer

PASSES_AHEAD = 3
"""Images that are decoded meanwhile, in passes of the tokenizer."""
S = TypeVar("S")
T = TypeVar("T")


@dataclass
class EncodingReport:
    """What one process did."""

    num_written: int = 0
    num_kept: int = 0
    """Shards that were there already."""
    num_images: int = 0
    num_refused: int = 0
    """Images that cannot be read; their places are kept, so that training counts them as it does in the tars."""
    failed: list[str] = field(default_factory=list)
    """Tars that could not be read at all."""


@dataclass(frozen=True)
class _Prepared:
    """A sample that is ready for the image tokenizer."""

    members: Mapping[str, bytes]
    pixels: list[Tensor]
    """(K, 3, H, W) of each image."""


class _GrowingShard:
    """A shard of codes to which one sample after another is added."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.columns: dict[str, list[bytes]] = {name: [] for name in TEXT_COLUMNS}
        self.codes: list[list[np.ndarray]] = []
        """(K, I) of each image of each sample."""
        self.refused: dict[int, tuple[Cause, str]] = {}
        self.broken_off: Fault | None = None

    def add(self, found: _Prepared | SampleRefused, codes: Iterator[np.ndarray]) -> None:
        """Add a sample; the codes of its images come next in `codes`."""
        if isinstance(found, SampleRefused):
            self.refused[len(self.codes)] = (found.cause, found.detail)
        prepared = _Prepared({}, []) if isinstance(found, SampleRefused) else found
        for name, extension in TEXT_COLUMNS.items():
            self.columns[name].append(prepared.members.get(extension, b""))
        self.codes.append(list(islice(codes, len(prepared.pixels))))

    def finish(self, spec: CodeSpec, source: str, num_crops: int) -> CodeShard:
        """The shard; one without an image has codes of no positions."""
        whole = next((one for images in self.codes for one in images), np.empty((num_crops, 0), dtype=np.uint16))
        blank, image_ends = np.zeros_like(whole), None
        if all(len(images) == 1 for index, images in enumerate(self.codes) if index not in self.refused):
            rows = [images[0] if images else blank for images in self.codes]
        else:
            rows, image_ends = [one for images in self.codes for one in images], list(accumulate(map(len, self.codes)))
        return CodeShard(
            spec=spec,
            source=source,
            codes_NKI=np.stack(rows) if rows else np.empty((0, *whole.shape), dtype=np.uint16),
            keys=Strings.of(self.keys),
            columns={name: Strings.of(texts) for name, texts in self.columns.items()},
            image_ends=image_ends,
            refused=self.refused,
            broken_off=self.broken_off.detail or "breaks off" if self.broken_off else None,
        )


class ShardEncoder:
    """Writes the codes of one tar after another."""

    def __init__(self, config: Config, device: torch.device, batch_size: int, num_threads: int) -> None:
        """
        Args:
            batch_size: images that go through the tokenizer at once.
            num_threads: threads that decode images.

        Raises:
            ConfigError: codes that do not fit 16 bits, or images that do not split into codes.
        """
        self._data = config.data
        self._resolution = config.model.image_resolution
        folder = find_model(config.model.image_tokenizer, config.data.root)
        self._tokenizer: ImageTokenizer = load_image_tokenizer(folder, device)
        self._device, self._batch_size, self._num_threads = device, batch_size, num_threads
        if self._tokenizer.codebook_size > LARGEST_CODEBOOK:
            raise ConfigError(
                f"{folder} has {self._tokenizer.codebook_size} codes; shards hold codes below {LARGEST_CODEBOOK}"
            )
        if self._resolution % self._tokenizer.downsample_factor:
            raise ConfigError(
                f"model.image_resolution is {self._resolution}; the image tokenizer needs a multiple of "
                f"{self._tokenizer.downsample_factor}"
            )

    def encode(
        self, jobs: Sequence[EncodingJob], on_job: Callable[[EncodingJob], object] = lambda job: None
    ) -> EncodingReport:
        """Encode those of `jobs` that are not done yet.

        Raises:
            DataError: the output holds codes of another tokenizer, resolution or transform.
        """
        report = EncodingReport()
        with ThreadPoolExecutor(max(1, self._num_threads)) as pool:
            for job in jobs:
                self._encode_one(job, pool, report)
                on_job(job)
        return report

    def _encode_one(self, job: EncodingJob, pool: ThreadPoolExecutor, report: EncodingReport) -> None:
        target = job.target
        if _is_done(target, job.spec):
            report.num_kept += 1
            return
        for left_over in target.parent.glob(f"{target.name}.*.tmp"):
            left_over.unlink()
        found = self._read(job, pool)
        if isinstance(found, Fault):
            report.failed.append(f"{found.place}: {found.cause} {found.detail}".strip())
            return
        found.save(target)
        report.num_written += 1
        report.num_images += found.num_samples - len(found.refused)
        report.num_refused += len(found.refused)

    def _read(self, job: EncodingJob, pool: ThreadPoolExecutor) -> CodeShard | Fault:
        shard, label = _GrowingShard(), job.source.label(job.shard)
        prefix = key_prefix(job.source.name, label)

        def records() -> Iterator[Record]:
            for entry in job.source.read(job.shard, Part(), 0):
                if isinstance(entry, Fault):
                    shard.broken_off = entry
                    continue
                shard.keys.append(entry.key.removeprefix(prefix).encode())
                yield entry

        prepared = _in_order(partial(self._prepare, job), records(), pool, PASSES_AHEAD * self._batch_size)
        for group in _groups(prepared, self._batch_size):
            pixels = [one for found in group if isinstance(found, _Prepared) for one in found.pixels]
            codes = self._codes(pixels)
            for found in group:
                shard.add(found, codes)
        if shard.broken_off is not None and shard.broken_off.cause != "truncated_shard":
            return shard.broken_off
        return shard.finish(job.spec, label, 1 if job.is_padded else self._data.image_crops)

    def _prepare(self, job: EncodingJob, record: Record) -> _Prepared | SampleRefused:
        draft_side = self._resolution if self._data.image_decoding == "approximate_draft" else None
        try:
            found = job.source.undecoded(record)
            images = [
                decode_image(content, max_pixels=self._data.max_image_pixels, draft_side=draft_side)
                for content in found.images
            ]
        except SampleRefused as refused:
            return refused
        return _Prepared(found.members, [self._pixels(image, is_padded=job.is_padded) for image in images])

    def _pixels(self, image: Image.Image, *, is_padded: bool) -> Tensor:
        """The crops of an image (K, 3, H, W)."""
        if is_padded:
            return padded_pixels(image, self._resolution)[None]
        num_crops = self._data.image_crops
        return torch.stack([square_pixels(image, self._resolution, crop, num_crops) for crop in range(num_crops)])

    @torch.no_grad()
    def _codes(self, pixels: Sequence[Tensor]) -> Iterator[np.ndarray]:
        """Codes (K, I) of each of the images, which came as (K, 3, H, W)."""
        for chunk in _groups(pixels, self._batch_size):
            pixels_BK3HW = torch.stack(chunk).to(self._device, non_blocking=True)
            # One crop at a time: so a pass has the size that was asked for.
            crops = [self._tokenizer.encode(pixels_B3HW) for pixels_B3HW in pixels_BK3HW.unbind(1)]
            yield from torch.stack(crops, dim=1).cpu().numpy().astype(np.uint16)


def _is_done(target: Path, spec: CodeSpec) -> bool:
    """Whether the codes are there; a file that is damaged is made again.

    Raises:
        DataError: codes of another spec.
    """
    if not target.is_file():
        return False
    try:
        header = ShardHeader.read(target)
    except DataError:
        return False
    try:
        spec.check(header.spec, str(target))
    except DataError as error:
        raise DataError(f"{error}; give another --output") from error
    return True


def _in_order(function: Callable[[S], T], items: Iterable[S], pool: ThreadPoolExecutor, ahead: int) -> Iterator[T]:
    """`function` of each item, in order, at most `ahead` of them before they are asked for."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
