# SPDX-License-Identifier: Apache-2.0
"""The two released annotation scripts keep their flags, in either spelling, and the names of their files."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.annotation.endpoint import endpoint

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "dataflows"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a script as `python script words` does, in this process; gives its exit code."""

    def script(name: str, *words: str | Path) -> int:
        monkeypatch.syspath_prepend(SCRIPTS)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return int(end.value.code or 0)

    return script


@pytest.mark.parametrize(("questions", "spell"), [("zeroshot_question.py", "_"), ("zeroshot_questions.py", "-")])
def test_prompts_become_questions_and_scores_as_the_released_files_are(
    questions: str, spell: str, tmp_path: Path, run: Callable[..., int]
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
        assert run(questions, flag("metadata_path"), tmp_path / "meta.v1.jsonl", *common) == 0
        made = out / "meta_question.json"
        assert run("zeroshot_vqa.py", flag("metadata_path"), made, flag("image_root"), images, *common) == 0
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


def test_a_mistake_ends_with_2(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--metadata_path", tmp_path / "absent", "--image_root", tmp_path, "--out_path", tmp_path)
    assert run("zeroshot_vqa.py", *words) == 2
    assert "absent" in capsys.readouterr().err
