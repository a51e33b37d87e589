# SPDX-License-Identifier: Apache-2.0
"""What the two released annotation scripts have in common: their flags, and how `unigen annotate` is called for them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unigen.cli.main import main

CONTEXT = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda token: token.replace("_", "-")}
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def flags(model_name: str, max_tokens: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The flags of both scripts; underscores and dashes are alike."""
    options = (
        click.option("--metadata-path", required=True, type=FILE, help="JSON lines."),
        click.option("--out-path", required=True, type=FOLDER, help="Folder of the output."),
        click.option("--gpu-id", default=0, show_default=True, type=click.IntRange(min=0)),
        click.option(
            "--model-name", default=model_name, show_default=True, help="A folder, or a name under the data root."
        ),
        click.option("--max-tokens", default=max_tokens, show_default=True, type=click.IntRange(min=1)),
        click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept."),
        click.option("--base-url", help="Ask the server at this address instead of a model in this process."),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def judge(gpu_id: int, model_name: str, max_tokens: int, data_root: str, base_url: str | None) -> list[str]:
    """The options of `unigen annotate` that name the judge; the released scripts' temperature is 1."""
    words = ["--max-tokens", str(max_tokens), "--temperature", "1"]
    if base_url is not None:
        return ["--judge", "endpoint", "--model", model_name, "--base-url", base_url, *words]
    import torch

    here = model_name if Path(model_name).exists() else Path(model_name).name
    device = f"cuda:{gpu_id}" if torch.cuda.is_available() else "cpu"
    return ["--judge", "transformers", "--model", here, "--data-root", data_root, "--device", device, *words]


def stem(path: Path) -> str:
    """A file's name up to its first dot."""
    return path.name.split(".", 1)[0]


def annotate(*words: str | Path) -> None:
    """Call `unigen annotate` and end with its exit code."""
    sys.exit(main(["annotate", *map(str, words)]))
