# SPDX-License-Identifier: Apache-2.0
"""The real lmms-eval over a tiny model: every task of the READMEs, one and two processes, killed and gone on with, failed.

Each test runs lmms-eval as processes of its own, which take seconds to start: hence few tests, each over all that it can show.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.lmms.rows import PREFIX, ROWS, write_shapes_task, write_tasks
from tests.tiny import tiny_unigen
from tests.world import quiet_environment
from unigen.cli.main import main
from unigen.data.ledger import read_ledger
from unigen.evaluation.lmms import benchmark
from unigen.generation.pipeline import load_pipeline

NEW_TOKENS = 6
SECONDS = 500
"""More than a busy machine needs for any of these runs."""
METRICS = {
    "pope": ["pope_accuracy", "pope_precision", "pope_recall", "pope_f1_score", "pope_yes_ratio"],
    "mmmu_val": ["mmmu_acc"],
    "gqa": ["exact_match", "exact_match_stderr", "exact_match_interval"],
    "ai2d": ["exact_match"],
    "mme": ["mme_perception_score", "mme_cognition_score"],
    "mathvista_testmini_cot": ["llm_as_judge_eval"],
    "mathvista_testmini_solution": ["llm_as_judge_eval"],
    "mathvista_testmini_format": ["llm_as_judge_eval"],
    "mmvet": ["gpt_eval_score"],
    "realworldqa": ["exact_match"],
    "scienceqa_img": ["exact_match"],
    "seedbench": ["seed_image", "seed_video", "seed_all"],
}

pytestmark = pytest.mark.timeout(2 * SECONDS)
needs_lmms_eval = pytest.mark.skipif(
    util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed; run: bash scripts/setup.sh eval"
)


class _Judge(BaseHTTPRequestHandler):
    """Extracts 4 from whatever MathVista's model said, and finds all answers of MM-Vet wholly right."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        said = "4" if "Extracted answer" in asked else "1.0"
        body = json.dumps({"model": "dummy", "choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("API_TYPE", "local")
    monkeypatch.setenv("MODEL_VERSION", "dummy")
    monkeypatch.setenv("LLM_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1/chat/completions")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_TYPE", "OPENAI_API_KEY", "LLM_JUDGE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_unigen(tmp_path_factory.mktemp("model"), reads_features=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    built_in = util.find_spec("lmms_eval.tasks")
    assert built_in is not None
    assert built_in.origin is not None
    write_tasks(folder, Path(built_in.origin).parent)
    write_shapes_task(folder, world)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    for name, value in quiet_environment().items():
        monkeypatch.setenv(name, value)


def _evaluate(model: Path, output: Path, names: list[str], tasks: Path) -> list[str]:
    words = ["evaluate", "--benchmarks", "lmms", "--model", str(model), "--output", str(output), "--device", "cpu"]
    words += ["--batch-size", "4", "--lmms-tasks", ",".join(names)]
    return [*words, f"lmms.include_path={tasks}", f"lmms.most_new_tokens={NEW_TOKENS}"]


def _results(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def _shapes_one_by_one(model: Path, world: Path) -> list[str]:
    """The answers to the world's questions, each asked alone."""
    pipeline = load_pipeline(model, device="cpu")
    file = world / "evaluation" / "vqa_shapes.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        pipeline.ask(Image.open(file.parent / entry["image"]), entry["question"], max_new_tokens=NEW_TOKENS)
        for entry in entries
    ]


def _answers(folder: Path, task: str) -> list[str]:
    """The kept answers to a task's documents, in order."""
    kept = [record for record in read_ledger(folder).values() if record["task"] == task]
    return [record["answer"] for record in sorted(kept, key=lambda record: record["document"])]


def _provide_levenshtein(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package that MathVista imports and this project does not bring."""
    folder.mkdir()
    (folder / "Levenshtein.py").write_text("from lmms_eval.api.metrics import levenshtein_distance as distance\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@needs_lmms_eval
def test_every_task_of_the_readmes_runs_and_is_not_run_again(
    model: Path,
    tasks: Path,
    judge: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _provide_levenshtein(tmp_path.with_name("stand-in"), monkeypatch)
    words = _evaluate(model, tmp_path, [f"{PREFIX}{name}" for name in ROWS], tasks)
    assert main(words) == 0, (tmp_path / "lmms" / "log-0.txt").read_text()
    assert f"{PREFIX}pope pope_accuracy" in capsys.readouterr().out
    found = _results(tmp_path)["lmms"]
    for task, metrics in METRICS.items():
        scores = found[f"{PREFIX}{task}"]
        assert [metric for metric in metrics if metric not in scores] == []
        assert scores["num_documents"] == ROWS[task if task in ROWS else "mathvista_testmini"][1]
    assert found[f"{PREFIX}mmvet"]["gpt_eval_score"] == 100
    assert found[f"{PREFIX}mathvista_testmini_format"]["llm_as_judge_eval"] == pytest.approx(33.33)
    assert found["lmms_eval"] == metadata.version("lmms-eval")
    kept = json.loads((tmp_path / "lmms" / "tasks" / f"{PREFIX}mmvet.json").read_text())
    assert kept["judge"]["model"] == "dummy"

    monkeypatch.setattr(benchmark, "run_lmms_eval", lambda *_: pytest.fail("it was run again"))
    assert main(words) == 0
    again = _results(tmp_path)["lmms"]
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


@needs_lmms_eval
def test_two_processes_answer_as_one_asked_question_by_question(
    model: Path, tasks: Path, world: Path, tmp_path: Path
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = [*launch, "unigen", *_evaluate(model, tmp_path, ["vqa_shapes"], tasks)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    answers = tmp_path / "lmms" / "answers"
    assert _answers(answers, "vqa_shapes") == _shapes_one_by_one(model, world)
    assert [len(file.read_text().splitlines()) for file in sorted(answers.iterdir())] == [15, 15]
    assert _results(tmp_path)["lmms"]["vqa_shapes"]["num_documents"] == 30


@needs_lmms_eval
def test_after_kill_9_the_command_of_lmms_eval_goes_on_where_it_was(
    model: Path, tasks: Path, world: Path, tmp_path: Path
) -> None:
    answers, output = tmp_path / "answers", tmp_path / "output"
    words = [str(Path(sys.executable).with_name("lmms-eval")), "--model", "unigen", "--force_simple", "--device", "cpu"]
    words += ["--tasks", "vqa_shapes", "--include_path", str(tasks), "--output_path", str(output), "--log_samples"]
    words += ["--model_args", f"pretrained={model},answers={answers},most_new_tokens={NEW_TOKENS}"]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while first.poll() is None and not read_ledger(answers):
            time.sleep(0.002)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    num_kept = len(read_ledger(answers))
    assert 0 < num_kept < 30
    subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert _answers(answers, "vqa_shapes") == _shapes_one_by_one(model, world)
    assert len((answers / "records-0.jsonl").read_text().splitlines()) == 30
    (results,) = output.rglob("*_results.json")
    assert json.loads(results.read_text())["n-samples"]["vqa_shapes"] == {"original": 30, "effective": 30}


@needs_lmms_eval
def test_when_lmms_eval_fails_so_does_the_evaluation(
    model: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_evaluate(model, tmp_path, ["no_such_task"], tasks)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unigen: error:")]
    assert len(errors) == 1
    assert "Tasks not found: no_such_task" in errors[0]
    assert "log-0.txt" in errors[0]
    assert "lmms" not in _results(tmp_path)


@needs_lmms_eval
@pytest.mark.parametrize("task", ["mmvet", "mathvista_testmini"])
def test_a_judged_task_without_a_judge_is_a_mistake_that_names_the_variables(
    task: str, model: Path, tasks: Path, no_judge: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_evaluate(model, tmp_path, ["pope", task], tasks)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{task} cannot be scored without a judge" in error
    assert "OPENAI_API_KEY" in error
    assert "LLM_JUDGE_URL" in error
    assert list(tmp_path.iterdir()) == []


def test_without_lmms_eval_the_command_that_brings_it_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(benchmark, "version", absent)
    assert main(_evaluate(model, tmp_path, ["pope"], tmp_path)) == 2
    assert "bash scripts/setup.sh eval" in capsys.readouterr().err
