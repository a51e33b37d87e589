# SPDX-License-Identifier: Apache-2.0
"""The released script's flags and files over `unigen annotate answers`: writes OUT_PATH/<name>_vqa_result.jsonl."""

from pathlib import Path
from typing import Any

import click
from released import CONTEXT, FOLDER, annotate, flags, judge, stem


@click.command(context_settings=CONTEXT)
@flags("Qwen/Qwen2.5-VL-7B-Instruct", max_tokens=10)
@click.option("--image-root", required=True, type=FOLDER, help="Folder of <id>_<number>.png.")
def command(metadata_path: Path, out_path: Path, image_root: Path, **judging: Any) -> None:
    """Ask the questions in METADATA_PATH (lines of id, prompt and question) about the images of each id."""
    output = out_path / f"{stem(metadata_path)}_vqa_result.jsonl"
    files = ("--questions", metadata_path, "--images", image_root, "--output", output)
    annotate("answers", *files, *judge(**judging))


if __name__ == "__main__":
    command()
