# SPDX-License-Identifier: Apache-2.0
"""`unigen convert`: checkpoints between the released format and ours, captioned images into shards."""

import json
from pathlib import Path
from typing import Any

import click

from unigen.errors import ConfigError

KINDS = ("folder", "imagefolder", "tsv", "jsonl", "parquet")
TIES = {"keep": "keep", "true": True, "false": False}


@click.group(name="convert")
def command() -> None:
    """Convert checkpoints between formats, and images with captions into shards."""


@command.command()
@click.argument("source")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--to", required=True, type=click.Choice(["ours", "released"]), help="The format to write.")
@click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept.")
@click.option("--tie", default="keep", show_default=True, type=click.Choice(list(TIES)), help="One embedding or two.")
@click.option("--language-model", help="Qwen2 folder that a released checkpoint is to name.  [found by its sizes]")
@click.option("--generation-branch", help="UniFork: checkpoint of the same origin whose generation branch to take.")
@click.option("--merge", is_flag=True, help="UAE: one whole model, its adapters worked into its weights.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def model(
    source: str,
    output: Path,
    to: Any,
    data_root: str,
    tie: str,
    language_model: str | None,
    generation_branch: str | None,
    merge: bool,
    as_json: bool,
) -> None:
    """Rewrite the checkpoint SOURCE, released or ours, without changing a bit of its weights.

    `ours` is config.json, safetensors, tokenizer and model card; `released` is config.json and pytorch_model.bin (UniGen alone).
    An adapter becomes a whole model. Of two UniFork checkpoints that were tuned apart, SOURCE for understanding and
    --generation-branch for generation, one is made that has both branches. Of a released UAE (the file model.yaml that names its
    folders) the base and each adapter become checkpoints below OUTPUT, or with --merge one whole model.
    """
    from unigen.config.folders import find_model
    from unigen.models.unifork_checkpoints import holds_unifork
    from unigen.models.weights import model_kind

    folder, made = find_model(source, data_root), output
    options = {"generation_branch": generation_branch, "tie": tie, "language_model": language_model}
    if model_kind(folder) == "uae":
        made = _convert_uae(folder, output, to, data_root, merge, **options)
    elif merge:
        raise ConfigError(
            f"{folder} is no UAE, so --merge does not serve it; drop it: an adapter becomes a whole model anyway"
        )
    elif holds_unifork(folder):
        _convert_unifork(folder, output, to, data_root, **options)
    else:
        _convert_unigen(source, output, to, data_root, **options)
    click.echo(json.dumps({"output": str(made), "format": to}) if as_json else f"wrote {made}")


def _convert_uae(folder: Path, output: Path, to: str, data_root: str, merge: bool, **foreign: str | None) -> Path:
    from unigen.models.uae_conversion import convert_uae

    _refuse_foreign(folder, "UAE", to, foreign)
    return convert_uae(folder, output, data_root, merge=merge)


def _refuse_foreign(folder: Path, family: str, to: str, foreign: dict[str, str | None]) -> None:
    """Raises ConfigError for options that mean nothing for a family, which is written in our format alone."""
    given = [name for name, value in foreign.items() if value not in (None, "keep")]
    if to != "ours" or given:
        wrong = "--to released" if to != "ours" else f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"{folder} is a {family} checkpoint, which {wrong} does not serve; give --to ours alone")


def _convert_unifork(
    folder: Path, output: Path, to: str, data_root: str, generation_branch: str | None, **unigen_only: str | None
) -> None:
    from unigen.models.unifork_conversion import convert_unifork

    _refuse_foreign(folder, "UniFork", to, unigen_only)
    convert_unifork(folder, output, data_root, generation_branch)


def _convert_unigen(
    source: str, output: Path, to: Any, data_root: str, generation_branch: str | None, **options: Any
) -> None:
    from unigen.models.conversion import convert_model

    if generation_branch is not None:
        raise ConfigError(
            f"{source} is no UniFork checkpoint, so it has no generation branch; drop --generation-branch"
        )
    chosen: Any = TIES[options["tie"]]
    convert_model(source, output, to, data_root=data_root, tie=chosen, language_model=options["language_model"])


@command.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--kind", required=True, type=click.Choice(KINDS), help="How SOURCE is kept.")
@click.option("--samples-per-shard", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--image-column",
    default="image",
    show_default=True,
    help="JSONL: a path; parquet: bytes, a path or a struct of them.",
)
@click.option("--caption-column", default="caption", show_default=True, help="JSONL and parquet: the captions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def data(
    source: Path,
    output: Path,
    kind: Any,
    samples_per_shard: int,
    image_column: str,
    caption_column: str,
    as_json: bool,
) -> None:
    """Write WebDataset shards of the images and captions of SOURCE.

    \b
    folder       images, each with a .txt of the same name beside it
    imagefolder  one folder of images per class; the caption is made of its name
    tsv          lines of path<TAB>caption, paths relative to the file
    jsonl        lines of {"image": path, "caption": text}, paths relative to the file
    parquet      a file or a folder of files with a column of images and one of captions
    """
    from unigen.data.convert import convert_to_shards

    done = convert_to_shards(
        source,
        output,
        kind,
        samples_per_shard=samples_per_shard,
        image_column=image_column,
        caption_column=caption_column,
        progress=lambda samples: None if as_json else click.echo(f"{samples} samples", err=True),
    )
    if as_json:
        shards = [str(path) for path in done.shards]
        click.echo(
            json.dumps({"shards": shards, "num_samples": done.num_samples, "left_out": dict(done.faults.counts)})
        )
        return
    click.echo(f"wrote {done.num_samples} samples in {len(done.shards)} shards to {output}")
    if done.faults.bad:
        click.echo(f"left out: {done.faults.describe()}")


@command.command(
    name="dpg-questions",
    help="Write the questions of DPG-Bench's csv as JSON lines, one a prompt: item_id, prompt, questions.",
)
@click.argument("csv", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
def dpg_questions(csv: Path, output: Path) -> None:
    from unigen.evaluation.dpg.questions import export_questions, read_question_file

    click.echo(f"{export_questions(read_question_file(csv), output)} prompts with their questions in {output}")
