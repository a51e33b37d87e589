# SPDX-License-Identifier: Apache-2.0
"""The root-level commands of UniFork's README, by their names and flags, in dashes or underscores; `scripts/` starts them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.cli.main import main
from unigen.errors import ConfigError, UnigenError

CONTEXT = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda token: token.replace("_", "-")}
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
MODEL = (
    click.option("--model-path", required=True, help="A checkpoint's folder, or a name under the data root."),
    click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept."),
    click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU if there is one]"),
)
DRAWING = (
    click.option("--cfg-scale", default=4.0, show_default=True, help="Guidance; 0 and 1 follow the prompt alone."),
    click.option("--temperature", default=1.0, show_default=True, type=click.FloatRange(min=0)),
    click.option("--top-k", default=900, show_default=True, type=click.IntRange(min=0), help="0 takes all codes."),
    click.option("--top-p", default=0.96, show_default=True, type=click.FloatRange(0, 1)),
    click.option("--negative-prompt", default="", help="What unconditional rows say.  [the null prompt of training]"),
    click.option("--seed", default=666, show_default=True, type=click.IntRange(min=0), help="Base of one per image."),
    click.option("--precision", hidden=True, expose_value=False, callback=lambda *given: _refuse(*given)),
    click.option("--from-fsdp", hidden=True, is_flag=True, expose_value=False, callback=lambda *given: _refuse(*given)),
)
_REMEDIES = {
    "precision": "weights are bfloat16 on a GPU and float32 on the CPU; drop the flag",
    "from_fsdp": "a checkpoint is loaded as what it is; drop the flag",
    "num_beams": "answers are written word by word; give 1 or drop the flag",
    "conv_mode": "a checkpoint says itself how it is talked to; drop the flag",
}


@click.command(context_settings=CONTEXT, help="Draw images from a prompt: image_0.png, image_1.png, ...")
@model_options.with_options(MODEL)
@click.option("--prompt", required=True, help="What to draw.")
@click.option("--outdir", default="output/generated_samples", show_default=True, type=FOLDER)
@click.option("--num-images", default=1, show_default=True, type=click.IntRange(min=1))
@model_options.with_options(DRAWING)
def infer_t2i(
    model_path: str,
    data_root: str,
    device: str | None,
    prompt: str,
    outdir: Path,
    num_images: int,
    seed: int,
    **drawing: Any,
) -> None:
    from unigen.evaluation.sampling import Drawing, draw_missing
    from unigen.generation.seeds import image_seed

    pipeline = model_options.load(model_path, data_root, device)
    paths = [outdir / f"image_{sample}.png" for sample in range(num_images)]
    drawings = [Drawing(path, prompt, image_seed(seed, prompt, sample)) for sample, path in enumerate(paths)]
    for path in paths:
        path.unlink(missing_ok=True)  # of another prompt, perhaps
    draw_missing(pipeline, drawings, num_images, _settings(**drawing), _bar)
    click.echo("\n".join(map(str, paths)))


@click.command(context_settings=CONTEXT, help="Ask about an image.")
@model_options.with_options(MODEL)
@click.option("--image-path", required=True, type=FILE)
@click.option("--query", required=True, help="What to ask.")
@click.option(
    "--temperature", default=0.2, show_default=True, type=click.FloatRange(min=0), help="0: the likeliest word."
)
@click.option("--top-p", type=click.FloatRange(0, 1), help="Choose among tokens of this total probability.  [1]")
@click.option("--max-new-tokens", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--num-beams", default="1", hidden=True, expose_value=False, callback=lambda *given: _refuse(*given))
@click.option("--conv-mode", hidden=True, expose_value=False, callback=lambda *given: _refuse(*given))
def infer_mmu(
    model_path: str,
    data_root: str,
    device: str | None,
    image_path: Path,
    query: str,
    top_p: float | None,
    **writing: Any,
) -> None:
    words = ["--model", model_path, "--data-root", data_root, "--image", str(image_path), "--question", query]
    given = {**writing, "device": device, "top_p": top_p}
    for name, value in given.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    sys.exit(main(["ask", *words]))


@click.command(context_settings=CONTEXT, help="Draw GenEval's prompts, or your own of its format, in GenEval's layout.")
@model_options.with_options(MODEL)
@click.option("--metadata-file", required=True, type=FILE, help="JSON lines, each with `prompt`.")
@click.option("--outdir", required=True, type=FOLDER)
@click.option("--n-samples", default=4, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@click.option("--batch-size", default=20, show_default=True, type=click.IntRange(min=1), help="Images at once.")
@click.option(
    "--prompt-suffix", default=".", show_default=True, help="Follows every prompt, as in the released script."
)
@model_options.with_options(DRAWING)
def sample_geneval_batch(
    model_path: str,
    data_root: str,
    device: str | None,
    metadata_file: Path,
    outdir: Path,
    n_samples: int,
    batch_size: int,
    prompt_suffix: str,
    seed: int,
    **drawing: Any,
) -> None:
    from unigen.evaluation.items import read_entries
    from unigen.evaluation.sampling import draw_missing, finish_geneval, geneval_drawings

    entries = read_entries(metadata_file, ("prompt",), "give a file like GenEval's evaluation_metadata.jsonl")
    pipeline = model_options.load(model_path, data_root, device)
    drawings = geneval_drawings(entries, outdir, n_samples, seed, prompt_suffix)
    _claim(outdir, pipeline, metadata_file, seed, prompt_suffix, drawing)
    drawn = draw_missing(pipeline, drawings, batch_size, _settings(**drawing), _bar)
    finish_geneval(entries, outdir, n_samples)
    click.echo(f"{drawn} images drawn, {len(drawings) - drawn} there already: {outdir}")


@click.command(
    context_settings=CONTEXT, help="Draw MJHQ-30K's prompts, or your own of its format, as <category>/<id>.jpg."
)
@model_options.with_options(MODEL)
@click.option("--metadata-file", required=True, type=FILE, help="JSON {id: {category, prompt}}.")
@click.option("--outdir", required=True, type=FOLDER)
@click.option("--batch-size", default=125, show_default=True, type=click.IntRange(min=1), help="Images at once.")
@click.option(
    "--prompt-suffix", default=".", show_default=True, help="Follows every prompt, as in the released script."
)
@model_options.with_options(DRAWING)
def sample_mjhq_batch(
    model_path: str,
    data_root: str,
    device: str | None,
    metadata_file: Path,
    outdir: Path,
    batch_size: int,
    prompt_suffix: str,
    seed: int,
    **drawing: Any,
) -> None:
    from unigen.evaluation.fid.mjhq import read_prompts
    from unigen.evaluation.sampling import draw_missing, mjhq_drawings

    prompts = read_prompts(metadata_file)
    pipeline = model_options.load(model_path, data_root, device)
    drawings = mjhq_drawings(prompts, outdir, seed, prompt_suffix)
    _claim(outdir, pipeline, metadata_file, seed, prompt_suffix, drawing)
    drawn = draw_missing(pipeline, drawings, batch_size, _settings(**drawing), _bar)
    click.echo(f"{drawn} images drawn, {len(drawings) - drawn} there already: {outdir}")


def start(command: Callable[..., Any]) -> None:
    """Run one of these commands as a script: a user's mistake ends it with one line and 2."""
    try:
        command()
    except UnigenError as error:
        click.echo(f"unigen: error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


def _claim(outdir: Path, pipeline: Any, metadata: Path, seed: int, suffix: str, drawing: dict[str, Any]) -> None:
    """Refuse a folder with images of another model, of other prompts or settings: what is there is kept."""
    from unigen.data.manifest import file_hash, open_run

    weights = pipeline.describe()["weights"]
    identity = {"weights": weights, "prompts": file_hash(metadata), "seed": seed, "suffix": suffix, **drawing}
    open_run(outdir, identity)


def _settings(cfg_scale: float, **drawing: Any) -> dict[str, Any]:
    return {"guidance_scale": cfg_scale, **drawing}


def _bar(steps: Iterator[Any], total: int) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(steps, "drawing", total, unit="image"))


def _refuse(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """A released flag that can have no meaning here."""
    assert parameter.name is not None
    if value not in (None, False, "1", "vicuna_v1"):
        raise ConfigError(f"--{parameter.name.replace('_', '-')} {value}: {_REMEDIES[parameter.name]}")
