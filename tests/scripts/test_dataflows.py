# SPDX-License-Identifier: Apache-2.0
"""The two released annotation scripts keep their flags, in either spelling, and the names of their files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.annotation.endpoint import endpoint
from tests.world import quiet_environment

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "dataflows"


def run(script: str, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    whole = [sys.executable, str(SCRIPTS / script), *map(str, words)]
    return subprocess.run(whole, env=quiet_environment(), capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize(("questions", "spell"), [("zeroshot_question.py", "_"), ("zeroshot_questions.py", "-")])
def test_prompts_become_questions_and_scores_as_the_released_files_are(
    questions: str, spell: str, tmp_path: Path
) -> None:
    def flag(name: str) -> str:
        return "--" + name.replace("_", spell)

    out, images = tmp_path / "out", tmp_path / "images"
    images.mkdir()
    (tmp_path / "meta.v1.jsonl").write_text('{"id": "a", "prompt": "a dog"}\n{"id": "b", "prompt": "a cat"}\n')
    for name in ("a_0", "a_1", "b_0"):
        Image.new("RGB", (8, 8)).save(images / f"{name}.png")
    with endpoint(lambda request: "Is it there?;; Is it big?" if request["max_tokens"] == 1024 else "Yes.") as server:
        common = (
            flag("out_path"),
            out,
            flag("gpu_id"),
            "0",
            flag("model_name"),
            "m",
            flag("base_url"),
            server.base_url,
        )
        done = run(questions, flag("metadata_path"), tmp_path / "meta.v1.jsonl", *common)
        assert done.returncode == 0, done.stderr
        made = out / "meta_question.json"
        done = run("zeroshot_vqa.py", flag("metadata_path"), made, flag("image_root"), images, *common)
        assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in made.read_text().splitlines()] == [
        {"id": name, "prompt": prompt, "question": question}
        for name, prompt in (("a", "a dog"), ("b", "a cat"))
        for question in ("Is it there?", "Is it big?")
    ]
    rated = [json.loads(line) for line in (out / "meta_question_vqa_result.jsonl").read_text().splitlines()]
    assert [line["filename"] for line in rated] == ["a_0.png", "a_1.png", "b_0.png"]
    assert rated[-1]["answer"] == ["yes", "yes"]
    assert rated[-1]["score"] == 1.0
    assert server.asked[-1]["max_tokens"] == 10


def test_a_mistake_ends_with_2(tmp_path: Path) -> None:
    done = run(
        "zeroshot_vqa.py", "--metadata_path", tmp_path / "absent", "--image_root", tmp_path, "--out_path", tmp_path
    )
    assert done.returncode == 2
    assert "absent" in done.stderr
