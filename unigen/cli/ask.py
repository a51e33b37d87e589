# SPDX-License-Identifier: Apache-2.0
"""`unigen ask`: questions about images, one by one, as a chat, or many at once."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.errors import ConfigError, DataError


@click.command(
    help="Ask a model about one or several images. Several questions are the turns of one chat, in which the model sees "
    "its earlier answers; with --independent each stands alone."
)
@click.option(
    "--image", "image_files", multiple=True, type=click.Path(path_type=Path), help="May be given several times."
)
@click.option("--question", "questions", multiple=True, help="May be given several times.")
@click.option("--caption", is_flag=True, help="Begin by asking for a caption, in the words of the model's family.")
@click.option("--chat", is_flag=True, help="Read further questions from standard input, one a line, to its end.")
@click.option("--independent", is_flag=True, help="Ask every question on its own.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest answer.  [128; UAE 512]")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 takes the most probable word.  [0; UAE 0.7]")
@click.option("--top-k", type=click.IntRange(min=0), help="Choose among the k most probable tokens.  [all]")
@click.option("--top-p", type=click.FloatRange(0, 1), help="Choose among tokens of this total probability.  [1]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def command(
    image_files: tuple[Path, ...],
    questions: tuple[str, ...],
    caption: bool,
    chat: bool,
    independent: bool,
    seed: int,
    batch_size: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **writing: Any,
) -> None:
    if not questions and not chat and not caption:
        raise ConfigError("say what to ask: --question TEXT, --caption, or --chat to type questions")
    if chat and independent:
        raise ConfigError("--chat and --independent exclude each other: a chat remembers")
    images = tuple(read_image(file) for file in image_files)
    settings = {"batch_size": batch_size, **model_options.given(**writing)}
    pipeline = model_options.load(model, data_root, device, decoding)
    if caption:
        questions = (pipeline.caption_request, *questions)
    if independent:
        turns = _ask_each(pipeline, images, questions, seed, settings)
    else:
        turns = _ask_in_turn(pipeline, images, [*questions, *([] if not chat else [None])], seed, settings)
    asked = []
    for question, answer in turns:
        asked.append({"question": question, "answer": answer})
        if not as_json:
            click.echo(answer)
    if as_json:
        click.echo(json.dumps({"turns": asked, "images": [str(file) for file in image_files]}))


def read_image(file: Path) -> Any:
    """The RGB image in a file.

    Raises:
        DataError: it cannot be read.
    """
    from unigen.data.faults import SampleRefused
    from unigen.data.images import decode_image

    try:
        return decode_image(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the image {file}: {error.strerror}") from error
    except SampleRefused as error:
        raise DataError(f"cannot read the image {file}: {error}") from error


def _ask_each(
    pipeline: Any, images: tuple[Any, ...], questions: Iterable[str], seed: int, settings: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    from unigen.generation.pipeline import AskRequest

    wanted = list(questions)
    requests = [AskRequest(question, images, seed=seed) for question in wanted]
    return zip(wanted, pipeline.ask_requests(requests, **settings), strict=True)


def _ask_in_turn(
    pipeline: Any, images: tuple[Any, ...], questions: Iterable[str | None], seed: int, settings: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """One chat; None stands for what is typed."""
    from unigen.generation.pipeline import AskRequest

    history: list[tuple[str, str]] = []
    for question in _with_typed(questions):
        request = AskRequest(question, images, tuple(history), seed)
        history.append((question, next(iter(pipeline.ask_requests([request], **settings)))))
        yield history[-1]


def _with_typed(questions: Iterable[str | None]) -> Iterator[str]:
    for question in questions:
        if question is not None:
            yield question
            continue
        for line in sys.stdin:
            if line.strip():
                yield line.strip()
