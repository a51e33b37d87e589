# SPDX-License-Identifier: Apache-2.0
"""Folders for tests of Unified-Bench: encoders as the settings find them, and images."""

from pathlib import Path

from tests.rewards.pictures import pictures
from tests.tiny_encoders import MAKERS
from unigen.config.evaluation import UNIFIED_BENCH_METRICS, SimilarityEncoderConfig


def tiny_encoders(data_root: Path) -> Path:
    """A data root whose checkpoints `tiny-<encoder>` are the four encoders."""
    for name in UNIFIED_BENCH_METRICS:
        MAKERS[name](data_root / "checkpoints" / f"tiny-{name}")
    return data_root


def tiny_choices() -> dict[str, SimilarityEncoderConfig]:
    """Settings that name them."""
    return {name: SimilarityEncoderConfig(kind=name, model=f"tiny-{name}") for name in UNIFIED_BENCH_METRICS}


def tiny_settings() -> list[str]:
    """The same for a command line."""
    return [f"unified_bench.encoders.{name}.model=tiny-{name}" for name in UNIFIED_BENCH_METRICS]


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Coloured pictures `<number>.png` of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pictures(count, seed)):
        image.save(folder / f"{number}.png")
    return folder
