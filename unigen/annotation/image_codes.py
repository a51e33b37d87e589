# SPDX-License-Identifier: Apache-2.0
"""Image codes ahead of training: every tar that a configuration reads images from, through its image tokenizer, once.

Legend: B images of one pass, K crops of an image, I codes of an image.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unigen.config.checks import reads_codes, reads_padded
from unigen.config.folders import find_model
from unigen.config.schema import Config, SourceConfig
from unigen.data.codes import (
    LARGEST_CODEBOOK,
    SUFFIX,
    TEXT_COLUMNS,
    CodeShard,
    CodeSpec,
    ShardHeader,
    Strings,
    code_spec,
)
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.image_text import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, first_member, shard_label
from unigen.data.images import decode_image, padded_pixels, square_pixels
from unigen.data.shards import TAR_SUFFIXES, expand_shards, scheme_of
from unigen.data.tars import TarSample, read_tar
from unigen.errors import ConfigError, DataError
from unigen.models.image_tokenizers.registry import ImageTokenizer, load_image_tokenizer

MEMBERS = {"text": TEXT_EXTENSIONS, "json": ("json",)}
"""Extensions that a column of a shard is taken from."""
PASSES_AHEAD = 3
"""Images that are decoded meanwhile, in passes of the tokenizer."""
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class EncodingJob:
    """One tar, and the codes that are to be made of it."""

    shard: str
    spec: CodeSpec
    is_padded: bool
    """Whether images are padded to squares instead of cropped."""
    target: Path


@dataclass(frozen=True)
class EncodingPlan:
    """Which tars become which shards."""

    jobs_of: dict[str, list[EncodingJob]]
    """By source, in the order of its tars."""
    root: str

    @property
    def jobs(self) -> list[EncodingJob]:
        """Every job once: tars that several sources read alike are encoded once."""
        return list({job.target: job for jobs in self.jobs_of.values() for job in jobs}.values())


def _target(output: Path, shard: str, root: str, *, is_padded: bool) -> Path:
    label = shard_label(shard, root)
    name = label.split("://", 1)[1] if scheme_of(label) else label.lstrip("/")
    for suffix in sorted(TAR_SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return output / (name + (".padded" if is_padded else "") + SUFFIX)


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


def plan_encoding(config: Config, output: Path) -> EncodingPlan:
    """Find the tars of all sources whose images a configuration reads through codes.

    Raises:
        ConfigError: there is no such source, or a shell command among them.
        DataError, CheckpointError: data or an image tokenizer that is not there.
    """
    data = config.data
    wanted = {name: source for name, source in data.sources.items() if _is_encoded(config, source)}
    if not wanted:
        raise ConfigError(
            f"no source of this configuration is a webdataset whose images stage {config.stage} reads through codes; "
            "there is nothing to encode"
        )
    jobs_of = {name: _jobs(config, source, output) for name, source in wanted.items()}
    command = next((job.shard for jobs in jobs_of.values() for job in jobs if scheme_of(job.shard) == "pipe"), None)
    if command is not None:
        raise ConfigError(f"'{command}' has no name that its codes could be found by; encode from files or addresses")
    return EncodingPlan(jobs_of, data.root)


def _jobs(config: Config, source: SourceConfig, output: Path) -> list[EncodingJob]:
    data, is_padded = config.data, reads_padded(config.model, source.task)
    spec = code_spec(config.model, data, source.task)
    return [
        EncodingJob(shard, spec, is_padded, _target(output, shard, data.root, is_padded=is_padded))
        for shard in expand_shards(source.paths, data.root, allow_pipe=data.allow_pipe)
    ]


def _is_encoded(config: Config, source: SourceConfig) -> bool:
    return source.format == "webdataset" and source.weight > 0 and reads_codes(config, source.task)


def coded_config(config: Config, plan: EncodingPlan, lists: dict[str, Path]) -> Config:
    """The same configuration, reading the codes; `lists` name the .json list of shards of each source."""
    sources = {
        name: replace(source, format="codes", paths=[str(lists[name])]) if name in plan.jobs_of else source
        for name, source in config.data.sources.items()
    }
    return replace(config, data=replace(config.data, sources=sources))


class ShardEncoder:
    """Writes the codes of one tar after another."""

    def __init__(
        self, config: Config, plan: EncodingPlan, device: torch.device, batch_size: int, num_threads: int
    ) -> None:
        """
        Args:
            batch_size: images that go through the tokenizer at once.
            num_threads: threads that decode images.

        Raises:
            ConfigError: codes that do not fit 16 bits, or images that do not split into codes.
        """
        self._plan = plan
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
        keys: list[bytes] = []
        columns: dict[str, list[bytes]] = {name: [] for name in TEXT_COLUMNS}
        codes: list[np.ndarray | None] = []
        refused: dict[int, tuple[Cause, str]] = {}
        broken_off: list[Fault] = []

        def samples() -> Iterator[TarSample]:
            for entry in read_tar(job.shard, allow_pipe=self._data.allow_pipe):
                if isinstance(entry, Fault):
                    broken_off.append(entry)
                    continue
                keys.append(entry.key.encode())
                for name, extensions in MEMBERS.items():
                    columns[name].append(_member(entry, extensions))
                yield entry

        decoded = _in_order(
            partial(self._pixels, is_padded=job.is_padded), samples(), pool, PASSES_AHEAD * self._batch_size
        )
        for group in _groups(decoded, self._batch_size):
            pixels = [one for one in group if isinstance(one, Tensor)]
            encoded = iter(self._codes(pixels))
            for one in group:
                if isinstance(one, SampleRefused):
                    refused[len(codes)] = (one.cause, one.detail)
                codes.append(next(encoded) if isinstance(one, Tensor) else None)
        if broken_off and broken_off[0].cause != "truncated_shard":
            return broken_off[0]
        whole = next((one for one in codes if one is not None), None)
        if whole is None:
            return Fault("unreadable_image", job.shard, "not one image of it can be read")
        return CodeShard(
            spec=job.spec,
            source=shard_label(job.shard, self._plan.root),
            codes_NKI=np.stack([np.zeros_like(whole) if one is None else one for one in codes]),
            keys=Strings.of(keys),
            columns={name: Strings.of(texts) for name, texts in columns.items()},
            refused=refused,
            broken_off=broken_off[0].detail or "breaks off" if broken_off else None,
        )

    def _pixels(self, sample: TarSample, *, is_padded: bool) -> Tensor | SampleRefused:
        """The crops of an image (K, 3, H, W)."""
        num_crops = self._data.image_crops
        draft_side = self._resolution if self._data.image_decoding == "approximate_draft" else None
        try:
            content = first_member(sample, IMAGE_EXTENSIONS)
            image = decode_image(content, max_pixels=self._data.max_image_pixels, draft_side=draft_side)
        except SampleRefused as refused:
            return refused
        if is_padded:
            return padded_pixels(image, self._resolution)[None]
        return torch.stack([square_pixels(image, self._resolution, crop, num_crops) for crop in range(num_crops)])

    @torch.no_grad()
    def _codes(self, pixels: Sequence[Tensor]) -> np.ndarray:
        """Codes (B, K, I) of images that came as (K, 3, H, W)."""
        if not pixels:
            return np.empty(0)
        pixels_BK3HW = torch.stack(list(pixels)).to(self._device, non_blocking=True)
        # One crop at a time: so a pass has the size that was asked for.
        crops = [self._tokenizer.encode(pixels_B3HW) for pixels_B3HW in pixels_BK3HW.unbind(1)]
        found: np.ndarray = torch.stack(crops, dim=1).cpu().numpy().astype(np.uint16)
        return found


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


def _member(sample: TarSample, extensions: tuple[str, ...]) -> bytes:
    return next((sample.read(one) for one in extensions if one in sample.members), b"")


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
