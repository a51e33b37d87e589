# SPDX-License-Identifier: Apache-2.0
"""`unigen annotate`: from prompts to sets for DPO and CoT-V, and from images to captions, one step a command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unigen.cli import judge_options, model_options

if TYPE_CHECKING:
    from unigen.annotation.step import Outcome, Step

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
OUTPUT = click.option("--output", required=True, type=FILE, help="JSONL file to write; FILE.run/ keeps what is done.")
NUM_PROMPTS = click.option("--num-prompts", type=click.IntRange(min=1), help="Take the first so many.  [all]")
ANSWERS = click.option("--answers", required=True, type=FILE, help="What `answers` wrote.")
IMAGES = click.option("--images", required=True, type=FOLDER, help="Folder of <id>_<number>.png.")


@click.group(name="annotate")
def command() -> None:
    """Make training data: questions, candidates, answers, pairs for DPO, conversations for CoT-V, captions.

    Every step keeps what is done and goes on there when it is started again, shares its work when started by torchrun or
    accelerate, and exits with 1 if an item failed.
    """


@command.command()
@click.option("--prompts", required=True, type=FILE, help="JSONL with id and prompt, or text with one prompt a line.")
@OUTPUT
@NUM_PROMPTS
@judge_options.options("endpoint", "transformers", "rule", max_tokens=1024)
@AS_JSON
def questions(prompts: Path, output: Path, num_prompts: int | None, as_json: bool, **judge: Any) -> int:
    """Make yes/no questions of prompts, by a language model or (--judge rule) of the scene in each entry's `include`."""
    from unigen.annotation.prompts import read_prompts
    from unigen.annotation.questions import JudgedQuestions, RuleQuestions
    from unigen.data.manifest import file_hash

    read = read_prompts(prompts, num_prompts)
    if judge["judge"] == "rule":
        return _run(RuleQuestions(read, file_hash(prompts)), output, as_json)
    return _run(JudgedQuestions(read, file_hash(prompts), judge_options.load(**judge)), output, as_json)


@command.command()
@click.option("--prompts", required=True, type=FILE, help="JSONL with id and prompt, or text with one prompt a line.")
@click.option("--output", required=True, type=FOLDER, help="Folder of the images, <id>_<number>.png.")
@click.option("--num-images", default=8, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@NUM_PROMPTS
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def candidates(
    prompts: Path,
    output: Path,
    num_images: int,
    num_prompts: int | None,
    seed: int,
    batch_size: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **drawing: Any,
) -> int:
    """Draw several images of each prompt, one seed an image. candidates.jsonl lists them."""
    from unigen.annotation.candidates import LIST_NAME, Candidates
    from unigen.annotation.prompts import read_prompts
    from unigen.data.manifest import file_hash
    from unigen.data.ranks import Ranks

    step = Candidates(
        read_prompts(prompts, num_prompts),
        file_hash(prompts),
        model_options.load(model, data_root, device or Ranks.from_environment().own_device(), decoding),
        output,
        num_images=num_images,
        seed=seed,
        batch_size=batch_size,
        drawing=model_options.given(**drawing),
    )
    return _run(step, output / LIST_NAME, as_json)


@command.command()
@click.option("--questions", "questions_file", required=True, type=FILE, help="What `questions` wrote.")
@IMAGES
@OUTPUT
@click.option(
    "--of-others",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="Ask about N images of other prompts instead, drawn by lot: most are wrong, which `cotv` needs.",
)
@judge_options.options("endpoint", "transformers", "detector", "unigen", max_tokens=10)
@AS_JSON
def answers(questions_file: Path, images: Path, output: Path, of_others: int, as_json: bool, **judge: Any) -> int:
    """Ask every question about every image of its prompt; an image's score is its share of yes."""
    from unigen.annotation.answers import Answers, read_asked_prompts
    from unigen.data.manifest import file_hash

    asked = read_asked_prompts(questions_file)
    step = Answers(asked, file_hash(questions_file), images, judge_options.load(**judge), of_others)
    return _run(step, output, as_json)


@command.command()
@ANSWERS
@IMAGES
@OUTPUT
@click.option(
    "--min-margin", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Least difference of scores."
)
@click.option("--min-chosen-score", default=0.0, show_default=True, type=click.FloatRange(0, 1))
@click.option("--pairs-per-prompt", default=1, show_default=True, type=click.IntRange(min=1), help="At most.")
@AS_JSON
def pairs(answers: Path, images: Path, output: Path, as_json: bool, **rule: Any) -> int:
    """Pair good and bad images of a prompt for DPO: best with worst, second best with second worst, and so on."""
    from unigen.annotation.pairs import PairRule, Pairs
    from unigen.annotation.verdicts import read_rated
    from unigen.data.manifest import file_hash

    return _run(Pairs(read_rated(answers), file_hash(answers), images, output, PairRule(**rule)), output, as_json)


@command.command()
@click.option(
    "--answers",
    required=True,
    multiple=True,
    type=FILE,
    help="What `answers` wrote; again for a file made with --of-others.",
)
@IMAGES
@OUTPUT
@click.option(
    "--images-per-prompt",
    default=4,
    show_default=True,
    type=click.IntRange(min=1),
    help="At most, of good and of bad each.",
)
@AS_JSON
def cotv(answers: tuple[Path, ...], images: Path, output: Path, images_per_prompt: int, as_json: bool) -> int:
    """Make conversations that teach step-by-step verification, as many over good images as over bad ones."""
    from unigen.annotation.cotv import Conversations
    from unigen.annotation.verdicts import read_rated
    from unigen.data.manifest import file_hash

    hashes = "+".join(map(file_hash, answers))
    step = Conversations(read_rated(*answers), hashes, images, output, images_per_prompt)
    return _run(step, output, as_json)


@command.command()
@click.argument("shards", nargs=-1, required=True)
@click.option("--output", required=True, type=FOLDER, help="Folder of the new shards; a shard keeps its file name.")
@click.option(
    "--style", default="chat", show_default=True, type=click.Choice(["chat", "long"]), help="long: 250 words and more."
)
@judge_options.options("endpoint", "transformers", "unigen", max_tokens=1024)
@AS_JSON
def recaption(shards: tuple[str, ...], output: Path, style: str, as_json: bool, **judge: Any) -> int:
    """Write SHARDS (WebDataset tars: files, folders, brace lists) anew, with new captions beside the unchanged images.

    lengths.json and lengths.png say how long the captions are. Exits with 1 if an image could not be read.
    """
    from unigen.annotation.lengths import length_histogram, write_lengths
    from unigen.annotation.recaption import LIST_NAME, LONG_WORDS, Recaption
    from unigen.annotation.step import run_folder, run_step
    from unigen.data.ranks import Ranks
    from unigen.data.shards import expand_shards, scheme_of

    ranks = Ranks.from_environment()
    step = Recaption(
        expand_shards([one if scheme_of(one) else os.path.abspath(one) for one in shards], judge["data_root"]),
        judge_options.load(**judge),
        style,
        output=output,
        ledgers=run_folder(output / LIST_NAME),
        rank=ranks.rank,
    )
    outcome = run_step(step, output / LIST_NAME, ranks)
    if not ranks.is_first:
        return 1 if outcome.failures else 0
    write_lengths(length_histogram((one["num_words"] for one in step.captions()), LONG_WORDS), output)
    report(outcome, as_json)
    refused = [f"{line['shard']}, {one}" for line in outcome.lines for one in line["refused"]]
    for one in refused:
        click.echo(f"unigen: error: left out: {one}", err=True)
    return 1 if outcome.failures or refused else 0


def _run(step: Step, output: Path, as_json: bool) -> int:
    from unigen.annotation.step import run_step
    from unigen.data.ranks import Ranks

    ranks = Ranks.from_environment()
    outcome = run_step(step, output, ranks)
    if ranks.is_first:
        report(outcome, as_json)
    return 1 if outcome.failures else 0


def report(outcome: Outcome, as_json: bool) -> None:
    """Say what came out, and what did not."""
    for failure in outcome.failures:
        click.echo(f"unigen: error: {failure}", err=True)
    unclear = sum(line.get("unclear", 0) for line in outcome.lines)
    facts = {
        "output": str(outcome.output),
        "num_items": outcome.num_units,
        "num_kept": outcome.num_kept,
        "num_failed": len(outcome.failures),
        "num_lines": len(outcome.lines),
        "num_unclear": unclear,
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"{outcome.output}: {len(outcome.lines)} lines of {outcome.num_units} items, {outcome.num_kept} done before"
    )
    if unclear:
        click.echo(f"{unclear} replies held neither yes nor no and count as no")
