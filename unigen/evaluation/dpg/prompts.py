# SPDX-License-Identifier: Apache-2.0
"""The prompts of DPG-Bench: one text file each, as published, or all in one JSONL file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unigen.errors import EvaluationError
from unigen.evaluation.items import read_entries

FILES = "*.txt"


@dataclass(frozen=True)
class Prompt:
    item_id: str
    """Stem of its file, which names it in the questions and names its image."""
    text: str


def read_prompts(place: Path) -> list[Prompt]:
    """The prompts of a folder of `<item_id>.txt`, or of a JSONL file with `item_id` and `text`, in order of `item_id`.

    Raises:
        EvaluationError: none is there, or one is empty, given twice, or cannot name a file.
    """
    if place.is_dir():
        prompts = [Prompt(file.stem, file.read_text(encoding="utf-8").strip()) for file in place.glob(FILES)]
    else:
        entries = read_entries(place, ("item_id", "text"), "run bash scripts/setup_eval.sh")
        prompts = [Prompt(str(entry["item_id"]), str(entry["text"]).strip()) for entry in entries]
    if not prompts:
        raise EvaluationError(f"no prompts ({FILES}) in {place}; run bash scripts/setup_eval.sh")
    prompts.sort(key=lambda prompt: prompt.item_id)
    _check(prompts, place)
    return prompts


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the prompts, the same for a folder and for a JSONL file of them."""
    content = "".join(f"{prompt.item_id}\t{prompt.text}\n" for prompt in prompts)
    return hashlib.sha256(content.encode()).hexdigest()


def _check(prompts: Sequence[Prompt], place: Path) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        wrong = (
            "is empty"
            if not prompt.text
            else "is given twice"
            if prompt.item_id in seen
            else "cannot name a file"
            if Path(prompt.item_id).name != prompt.item_id
            else None
        )
        if wrong:
            raise EvaluationError(f"{place}: the prompt {prompt.item_id!r} {wrong}; mend it")
        seen.add(prompt.item_id)
