# SPDX-License-Identifier: Apache-2.0
"""The launcher, over a stand-in for VLMEvalKit: a package and a `run.py` with the parts of the real one that it relies on.

The real one is installed from git with very many requirements; its interface is that of commit e8e78f0 (2026-08-18).
"""

import base64
import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import tiny_unigen
from tests.world import quiet_environment
from unigen.errors import EvaluationError
from unigen.evaluation.lmms.messages import read_messages
from unigen.evaluation.vlmevalkit import as_messages, model_name, run_vlmevalkit
from unigen.generation.pipeline import load_pipeline

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "vlmevalkit.py"
STAND_IN = {
    "vlmeval/__init__.py": "",
    "vlmeval/config.py": "supported_VLM = {}\n",
    "vlmeval/vlm/__init__.py": "from .base import BaseModel\n",
    "vlmeval/vlm/base.py": """
class BaseModel:
    INTERLEAVE = False

    def __init__(self):
        self.dump_image_func = None

    def use_custom_prompt(self, dataset):
        return False

    def set_dump_image(self, function):
        self.dump_image_func = function

    def generate(self, message, dataset=None):
        assert all(set(part) == {"type", "value"} for part in message)
        return self.generate_inner(message, dataset)

    def chat(self, messages, dataset=None):
        return self.chat_inner(messages, dataset)
""",
    "run.py": """
import argparse, base64, csv, os
from pathlib import Path

from vlmeval.config import supported_VLM


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+")
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--work-dir")
    parser.add_argument("--mode", default="all")
    args = parser.parse_args()
    for name in args.model:
        model = supported_VLM[name]()
        model.set_dump_image(None)
        for data in args.data:
            source = Path(os.environ["LMUData"]) / f"{data}.tsv"
            if not source.exists():
                print("no such data set, going on")
                continue
            folder = Path(args.work_dir) / name / f"T_{args.mode}"
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{name}_{data}.tsv", "w") as file:
                for row in csv.DictReader(open(source), delimiter="\\t"):
                    image = folder / f"{row['index']}.png"
                    image.write_bytes(base64.b64decode(row["image"]))
                    image = {"type": "image", "value": str(image)}
                    text = {"type": "text", "value": row["question"]}
                    once = model.generate([image, text], dataset=data)
                    turns = [("user", [image, text]), ("assistant", "red"), ("user", "Sure?")]
                    again = model.chat([{"role": role, "content": content} for role, content in turns], dataset=data)
                    csv.writer(file, delimiter="\\t").writerow([row["index"], once, again])


if __name__ == "__main__":
    main()
""",
}
QUESTIONS = ["What color is it?", "How many are there?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_unigen(tmp_path_factory.mktemp("model"), reads_features=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in STAND_IN.items():
        path = tmp_path / "VLMEvalKit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setenv("LMUData", str(tmp_path))
    with (tmp_path / "TINY.tsv").open("w") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question"])
        for index, question in enumerate(QUESTIONS):
            buffer = io.BytesIO()
            _picture(index).save(buffer, "PNG")
            writer.writerow([index, base64.b64encode(buffer.getvalue()).decode(), question])
    return tmp_path / "VLMEvalKit"


def _picture(index: int) -> Image.Image:
    return Image.new("RGB", (40, 40), (index * 200, 40, 90))


def _expected(model: Path) -> list[list[str]]:
    pipeline = load_pipeline(model, device="cpu")
    return [
        [
            str(index),
            pipeline.ask(_picture(index), question, max_new_tokens=6),
            pipeline.ask(_picture(index), "Sure?", history=[(question, "red")], max_new_tokens=6),
        ]
        for index, question in enumerate(QUESTIONS)
    ]


def _predictions(folder: Path, data: str) -> list[list[str]]:
    (path,) = folder.rglob(f"*_{data}.tsv")
    with path.open() as file:
        return list(csv.reader(file, delimiter="\t"))


@pytest.fixture
def _no_other_vlmeval() -> Iterator[None]:
    """The stand-in is imported into this process; the next test has another."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlmeval"]:
        del sys.modules[name]


@pytest.mark.usefixtures("_no_other_vlmeval")
def test_its_model_answers_as_ours_does(model: Path, checkout: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(model, device="cpu")
    before = list(sys.path), list(sys.argv)
    found = run_vlmevalkit(checkout, pipeline, ["TINY"], tmp_path / "out", ["--mode", "infer"], max_new_tokens=6)
    assert found == tmp_path / "out" / model_name(pipeline)
    assert _predictions(found / "T_infer", "TINY") == _expected(model)
    assert (sys.path, sys.argv) == before


def test_the_script_runs_it_and_a_data_set_without_predictions_is_a_failure(
    model: Path, checkout: Path, tmp_path: Path
) -> None:
    words = [sys.executable, str(SCRIPT), "--vlmevalkit", str(checkout), "--model", str(model), "--data", "TINY"]
    words += ["--data", "ABSENT", "--output", str(tmp_path / "out"), "--max-new-tokens", "6", "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, env=quiet_environment(), timeout=240, check=False)
    assert done.returncode == 2
    assert "no predictions for ABSENT" in done.stderr
    assert _predictions(tmp_path / "out", "TINY") == _expected(model)


def test_other_weights_have_another_name(model: Path, tmp_path: Path) -> None:
    other = tiny_unigen(tmp_path)
    names = {model_name(load_pipeline(folder, device="cpu")) for folder in (model, other)}
    assert len(names) == 2
    assert all(name.startswith("unigen-") for name in names)


def test_what_is_no_checkout_is_said_with_the_command_that_brings_one(model: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(model, device="cpu")
    before = list(sys.path), list(sys.argv)
    with pytest.raises(EvaluationError, match="git clone"):
        run_vlmevalkit(tmp_path, pipeline, ["TINY"], tmp_path / "out")
    assert (sys.path, sys.argv) == before


def test_what_it_cannot_look_at_is_refused() -> None:
    with pytest.raises(EvaluationError, match="gives video"):
        read_messages(as_messages([{"type": "video", "value": "a.mp4"}, {"type": "text", "value": "What?"}]))
