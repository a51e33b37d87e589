# SPDX-License-Identifier: Apache-2.0
"""The options of Best-of-N, the same for every verb that draws, and how `unigen sample` does it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unigen.config.evaluation import BestOfNConfig
from unigen.errors import ConfigError

STYLES = ("think", "outcome", "rule", "probability")
DEFAULT_STYLE = "think"
KEPT_BY_SAMPLE = 1


def numbers(drawn: str, kept: str) -> tuple[Any, ...]:
    """The options of how many are drawn and kept, and what their help says of leaving one out."""
    return (
        click.option(
            "--best-of",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"Draw N images of each prompt, rate them, and keep the best: N drawn, best K kept.  [{drawn}]",
        ),
        click.option(
            "--keep", type=click.IntRange(min=1), metavar="K", help=f"How many of the N drawn are kept.  [{kept}]"
        ),
    )


OPTIONS = (
    *numbers("no choice", f"{KEPT_BY_SAMPLE}; unigen evaluate, which scores them, keeps {BestOfNConfig.num_kept}"),
    click.option(
        "--verifier",
        type=click.Choice(STYLES),
        help="How the model rates: by questions that it makes up and answers (think), by one question about the whole prompt "
        "(outcome), by questions that follow from the prompt's words (rule), or by how probable it finds a yes "
        f"(probability, the fastest, which also orders images of equal score).  [{DEFAULT_STYLE}]",
    ),
)


def check(best_of: int | None, keep: int | None, verifier: str | None) -> None:
    """Raises ConfigError where --keep or --verifier has nothing to choose from."""
    given = {"--keep": keep, "--verifier": verifier}
    for name, value in given.items():
        if best_of is None and value is not None:
            raise ConfigError(f"{name} {value} needs --best-of N, the number of images to choose from")


def select_images(
    pipeline: Any,
    prompts: Sequence[str],
    output: Path,
    *,
    best_of: Any,
    verifier: Any,
    seed: int,
    batch_size: int,
    drawing: dict[str, Any],
) -> list[dict[str, Any]]:
    """Draw and rate below `output/candidates`, and write the kept images into `output`, best first.

    Returns:
        what there is to say of each kept image.
    """
    from tqdm import tqdm

    from unigen.data.json_files import write_lines
    from unigen.data.manifest import open_run
    from unigen.generation.best_of_n import BestOfN, Prompt
    from unigen.generation.seeds import image_seed
    from unigen.rewards.verifier import Verifier

    folder = output / "candidates"
    open_run(folder, _identity(pipeline, prompts, seed, drawing))
    wanted = [
        Prompt(
            text,
            folder / f"{index:05d}",
            tuple(image_seed(seed, text, sample) for sample in range(best_of.num_drawn)),
            f"{index:05d}",
        )
        for index, text in enumerate(prompts)
    ]
    run = BestOfN(pipeline, Verifier(pipeline, verifier, batch_size), verifier, best_of, batch_size, drawing)
    lines, kept = [], []
    for index, found in enumerate(tqdm(run.select(wanted), total=len(wanted), desc="best of N", unit="prompt")):
        lines += found.lines
        kept += [_keep(found, place, output / f"{index:05d}_{place:02d}.png") for place in range(best_of.num_kept)]
    write_lines(lines, output / "ratings.jsonl")
    _remove_others(output, len(prompts), {Path(one["path"]) for one in kept})
    return kept


def _identity(pipeline: Any, prompts: Sequence[str], seed: int, drawing: dict[str, Any]) -> dict[str, Any]:
    model = pipeline.describe()
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return {
        "weights": model.get("weights", {}),
        "dtype": model.get("dtype"),
        "prompts": digest,
        "seed": seed,
        "drawing": drawing,
    }


def _remove_others(output: Path, num_prompts: int, kept: set[Path]) -> None:
    """Remove what an earlier call with a larger --keep kept of these prompts: such images say what they were selected from."""
    from PIL import Image

    for path in output.glob("*_*.png"):
        index = path.stem.partition("_")[0]
        if path in kept or not index.isdigit() or int(index) >= num_prompts:
            continue
        with Image.open(path) as image:
            is_selected = "selection" in image.info
        if is_selected:
            path.unlink()


def _keep(found: Any, place: int, path: Path) -> dict[str, Any]:
    """Copy the candidate of a rank to where it is kept."""
    from PIL import Image

    from unigen.generation.png import write_png

    line = found.lines[found.kept[place]]
    rated = {key: line[key] for key in ("score", "probability", "rater", "selection")}
    with Image.open(found.prompt.path(line["sample"])) as image:
        write_png(image, path, {**{str(key): value for key, value in image.info.items()}, **rated})
    return {
        "path": str(path),
        "prompt": found.prompt.text,
        "seed": line["seed"],
        "candidate": line["sample"],
        "score": line["score"],
        "probability": line["probability"],
    }
