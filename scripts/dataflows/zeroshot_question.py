# SPDX-License-Identifier: Apache-2.0
"""The released script's flags and files over `unigen annotate questions`: writes OUT_PATH/<name>_question.json, JSON lines."""

from pathlib import Path
from typing import Any

import click
from released import CONTEXT, annotate, flags, judge, stem


@click.command(context_settings=CONTEXT)
@flags("Qwen/Qwen2.5-7B-Instruct", max_tokens=1024)
def command(metadata_path: Path, out_path: Path, **judging: Any) -> None:
    """Make yes/no questions of the prompts in METADATA_PATH (lines of id and prompt)."""
    output = out_path / f"{stem(metadata_path)}_question.json"
    annotate("questions", "--prompts", metadata_path, "--output", output, *judge(**judging))


if __name__ == "__main__":
    command()
