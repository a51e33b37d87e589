# SPDX-License-Identifier: Apache-2.0
"""How well the model's image tokenizer keeps held-out images: PSNR, what the detector reads, and a few pairs to look at."""

import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unigen.data.images import square, square_pixels
from unigen.data.shapes.detector import detect
from unigen.errors import EvaluationError
from unigen.evaluation.job import Job
from unigen.evaluation.statistics import clustered, estimate
from unigen.generation.png import write_png
from unigen.objectives.reconstruction import psnr

IMAGES_FOLDER = "evaluation/images"
MOST_IMAGES = 256
NUM_SHOWN = 12


def score_tokenizer(job: Job) -> dict[str, Any] | None:
    """PSNR in dB over held-out renders, and the share `detected` of those that the detector reads as before; the first pairs are
    kept beside the benchmarks. None for a model without a tokenizer.

    Raises:
        EvaluationError: the world has no held-out images.
    """
    paths = sorted((job.options.world / IMAGES_FOLDER).glob("*.png"))
    if not paths:
        raise EvaluationError(f"no held-out images in {job.options.world / IMAGES_FOLDER}; write the world again")
    random.Random(0).shuffle(paths)
    originals = [Image.open(path).convert("RGB") for path in paths[:MOST_IMAGES]]
    rebuilt = job.pipeline.reconstruct(originals, batch_size=job.options.batch_size)
    if rebuilt is None:
        return None
    side = rebuilt[0].width
    values_B = psnr(*(torch.stack([square_pixels(image, side) for image in images]) for images in (originals, rebuilt)))
    found = estimate(clustered(enumerate(values_B.tolist())))
    folder = job.options.output / "tokenizer"
    for number, pair in enumerate(zip(originals, rebuilt, strict=True)):
        if number < NUM_SHOWN:
            write_png(square(pair[0], side), folder / f"{number:05d}-original.png")
            write_png(pair[1], folder / f"{number:05d}-reconstruction.png")
    is_kept = [_things(image) == _things(again) for image, again in zip(originals, rebuilt, strict=True)]
    return {
        "psnr": found.value,
        "interval": found.interval,
        "detected": sum(is_kept) / len(is_kept),
        "num_images": len(rebuilt),
    }


def _things(image: Image.Image) -> list[tuple[str, str | None]]:
    """Class and colour of everything that the detector finds."""
    return sorted((one.class_name, one.color) for one in detect(image))


def shown_pairs(evaluation: Path) -> list[tuple[Path, Path]]:
    """The kept (original, reconstruction) files of an evaluation folder."""
    originals = sorted((evaluation / "tokenizer").glob("*-original.png"))
    return [(path, path.with_name(path.name.replace("original", "reconstruction"))) for path in originals]
