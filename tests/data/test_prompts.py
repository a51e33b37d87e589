# SPDX-License-Identifier: Apache-2.0
"""Prompts without images: JSON records with their conditions, plain lines, and what is refused."""

import json
from pathlib import Path
from typing import Any

from tests.data.archives import write_jsonl
from tests.data.test_conversations import outcomes
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.sample import RawSample
from unigen.data.shapes.prompts import geneval_prompts
from unigen.data.sources import open_source


def source(root: Path, *paths: str, **changes: Any) -> Any:
    config = SourceConfig("t2i", "prompts", list(paths), **changes)
    return open_source("asked", config, DataConfig(root=str(root), lanes=2), seed=0)


def test_the_conditions_of_a_record_go_along_with_its_prompt(tmp_path: Path) -> None:
    entries = geneval_prompts()[:7]
    write_jsonl(tmp_path / "datasets/prompts/train.jsonl", entries)
    (tmp_path / "datasets/prompts/train.json").write_text(json.dumps(entries, indent=1))
    for name in ("train.jsonl", "train.json"):
        opened = source(tmp_path, f"prompts/{name}")
        assert opened.num_samples() == 7
        assert outcomes(opened) == {
            f"asked/prompts/{name}/{line}": RawSample(
                f"asked/prompts/{name}/{line}", "t2i", text=entry["prompt"], entry=entry
            )
            for line, entry in enumerate(entries)
        }


def test_a_line_of_a_text_file_is_a_prompt_without_conditions(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/asked.txt").write_text('a cat \n\n"stop", a sign\n{"prompt": "a dog", "tag": "x"}\n')
    found = outcomes(source(tmp_path, "asked.txt"))
    seen = [(one.text, one.entry) for _, one in sorted(found.items()) if isinstance(one, RawSample)]
    assert seen == [("a cat", None), ('"stop", a sign', None), ("a dog", {"prompt": "a dog", "tag": "x"})]


def test_what_is_no_prompt_is_refused_by_its_cause(tmp_path: Path) -> None:
    records = ['{"prompt": "a', "a cat", ["a cat"], {"text": "a cat"}, {"prompt": " "}, {"prompt": 3}]
    write_jsonl(tmp_path / "datasets/asked.jsonl", records)
    causes = [outcome for _, outcome in sorted(outcomes(source(tmp_path, "asked.jsonl")).items())]
    assert causes == ["not_json", "not_json", "bad_prompt", "missing_key", "bad_prompt", "bad_prompt"]
