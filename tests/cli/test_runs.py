# SPDX-License-Identifier: Apache-2.0
"""`unigen runs`: what runs there are, in what they differ, how they compare."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.world import TinyWorld, train
from unigen.cli.main import main
from unigen.training.status import Status


def _run(folder: Path, losses: dict[int, float], state: Any = "done", config: dict[str, Any] | None = None) -> Path:
    """A run's folder: `losses` by step, of 4 steps in all."""
    folder.mkdir(parents=True)
    content = {"stage": "pretrain", "training": {"steps": 4}, "optimizer": {"learning_rate": 0.001}, **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    lines = [
        {"step": step, "loss/total": loss, "loss/t2i": loss / 2, "throughput/tokens_per_second": 1000.0 * step}
        for step, loss in losses.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Status(state, max(losses, default=0), 4, 1).write(folder)
    return folder


def _score(run: Path, overall: float) -> None:
    found = {"overall": overall, "interval": [overall - 0.05, overall + 0.05], "tags": {}, "detector": 1.0}
    (run / "evaluation").mkdir()
    (run / "evaluation" / "results.json").write_text(json.dumps({"geneval_shapes": found}))


def _json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["runs", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _silent_for(run: Path, seconds: float) -> None:
    when = time.time() - seconds
    for file in (file for file in run.rglob("*") if file.is_file()):
        os.utime(file, (when, when))


def test_a_real_run_is_listed_with_what_it_did(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path / "real"), "training.steps=2") == 0
    capsys.readouterr()
    (found,) = _json(capsys, "list", tmp_path)["runs"]
    assert (found["name"], found["stage"], found["state"]) == ("real/run", "pretrain", "done")
    assert (found["step"], found["num_steps"]) == (2, 2)
    line = json.loads((tmp_path / "real" / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["loss"] == line["loss/total"]
    assert found["tokens_per_second"] == line["throughput/tokens_per_second"]
    assert main(["runs", "list", str(tmp_path / "real" / "run")]) == 0
    assert "2 of 2" in capsys.readouterr().out


def test_the_list_tells_runs_that_go_on_from_those_that_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for state in ("done", "stopped", "failed", "running"):
        _run(tmp_path / state, {1: 2.0}, state)
    lost = _run(tmp_path / "deep" / "down" / "lost", {1: 2.0, 2: 1.5}, "running")
    _silent_for(lost, 3600)
    beating = _run(tmp_path / "beating", {1: 2.0}, "running")
    _silent_for(beating, 3600)
    (beating / "heartbeats").mkdir()
    (beating / "heartbeats" / "rank-0").touch()
    stuck = _run(tmp_path / "stuck", {1: 2.0}, "running")
    (stuck / "requeue").touch()
    (tmp_path / "no-run").mkdir()
    found = {run["name"]: run for run in _json(capsys, "list", tmp_path)["runs"]}
    states = {name: run["state"] for name, run in found.items()}
    assert states == {
        **{state: state for state in ("done", "stopped", "failed", "running")},
        "deep/down/lost": "lost",
        "beating": "running",
        "stuck": "stopped",
    }
    assert found["deep/down/lost"]["step"] == 2
    assert 3500 < found["deep/down/lost"]["age_seconds"] < 3700


def test_a_line_that_is_being_written_is_not_yet_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(tmp_path / "run", {1: 2.0, 2: 1.0}, "running")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss/to')
    (found,) = _json(capsys, "list", tmp_path)["runs"]
    assert (found["step"], found["loss"]) == (2, 1.0)


def test_a_damaged_run_is_said_and_the_others_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "good", {1: 2.0})
    bad = _run(tmp_path / "bad", {1: 2.0})
    (bad / "metrics.jsonl").write_text("no json\n" + (bad / "metrics.jsonl").read_text())
    assert main(["runs", "list", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "good" in captured.out
    assert f"{bad / 'metrics.jsonl'}, line 1 is not JSON" in captured.err


def test_diff_names_the_keys_and_the_versions_that_are_not_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _run(tmp_path / "first", {1: 2.0})
    second = _run(tmp_path / "second", {1: 2.0}, config={"optimizer": {"learning_rate": 0.002, "beta2": 0.95}})
    Status("done", 4, 4, 1, git_commit="abc", packages={"torch": "1.0"}).write(first)
    Status("done", 4, 4, 1, git_commit="abc", packages={"torch": "2.0"}).write(second)
    assert _json(capsys, "diff", first, second) == {
        "config": {"optimizer.learning_rate": [0.001, 0.002], "optimizer.beta2": ["-", 0.95]},
        "environment": {"torch": ["1.0", "2.0"]},
    }
    assert main(["runs", "diff", str(first), str(first)]) == 0
    assert capsys.readouterr().out == "configuration: the same\nenvironment: the same\n"


def test_compare_takes_the_steps_that_all_runs_logged_and_their_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _run(tmp_path / "first", {1: 4.0, 2: 3.0, 4: 1.0})
    second = _run(tmp_path / "second", {2: 3.5, 3: 2.5, 4: 1.5})
    _score(second, 0.5)
    found = _json(capsys, "compare", first, second)
    assert found["runs"] == ["first", "second"]
    assert found["steps"] == [2, 4]
    assert found["metrics"]["loss/total"] == [[3.0, 3.5], [1.0, 1.5]]
    assert found["metrics"]["throughput/tokens_per_second"] == [[2000.0, 2000.0], [4000.0, 4000.0]]
    overall = next(score for score in found["scores"] if score["name"] == "overall")
    assert overall["values"] == [None, {"value": 0.5, "interval": [0.45, 0.55]}]

    assert main(["runs", "compare", str(first), str(second), "--metric", "loss/t2i", "--rows", "1"]) == 0
    printed = capsys.readouterr().out
    assert "4     0.5    0.75" in printed
    assert "0.500 0.450 – 0.550" in printed
    assert "loss/total" not in printed


@pytest.mark.parametrize("name", ["curves.png", "curves.html"])
def test_compare_draws_the_curves(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path / name, {1: 4.0, 2: 3.0}) for name in ("one", "<two>")]
    _score(runs[0], 0.5)
    file = tmp_path / "plots" / name
    assert main(["runs", "compare", *map(str, runs), "--plot", str(file)]) == 0
    if name.endswith(".png"):
        assert Image.open(file).size[0] > 500
    else:
        page = file.read_text()
        assert "data:image/svg+xml;base64," in page
        assert "&lt;two&gt;" in page
        assert "0.450 – 0.550" in page


MISTAKES = {
    "no folder": (["list", "gone"], "there is no folder gone"),
    "no run": (["diff", "run", "."], ". is not a run's folder"),
    "no such run": (["compare", "run", "gone"], "gone is not a folder"),
    "no metric": (["compare", "run", "--metric", "loss/gone"], "no run has the metric loss/gone; there are loss/total"),
    "no plot": (["compare", "run", "--plot", "curves.pdf"], "this writes .png or .html files"),
    "nothing in common": (["compare", "run", "other"], "no logged step in common"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "run", {1: 2.0})
    _run(tmp_path / "other", {2: 2.0})
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[name]
    assert main(["runs", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_job_script_learns_where_a_run_goes(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_world.config(tmp_path)
    assert main(["runs", "folder", str(config), "experiment.output_dir=else where"]) == 0
    assert capsys.readouterr().out == "else where\n"
    assert main(["runs", "folder", str(config), "training.stepz=1"]) == 2


def test_a_job_is_started_again_as_long_as_it_gets_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(tmp_path / "run", {1: 2.0}, "running")

    def is_requeued(exit_code: int, checkpoint: int | None = None) -> bool:
        if checkpoint is not None:
            (run / f"checkpoint-{checkpoint}").mkdir()
        return main(["runs", "requeue", str(run), "--exit-code", str(exit_code), "--max-failures", "2"]) == 0

    assert not is_requeued(0)
    assert not is_requeued(2)
    assert is_requeued(75, checkpoint=10)
    assert is_requeued(1)  # once without a newer checkpoint
    assert is_requeued(137, checkpoint=20)
    assert is_requeued(137)
    assert not is_requeued(137)  # twice in a row
    assert "no newer checkpoint than that of step 20 (2 of 2 times in a row)" in capsys.readouterr().out


def test_a_mistake_that_a_launcher_made_exit_code_1_of_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = _run(tmp_path / "run", {1: 2.0}, "running")
    Status("failed", 1, 4, 2, error="DataError: no shard", is_mistake=True).write(run)
    arguments = ["runs", "requeue", str(run), "--exit-code", "1"]
    assert main(arguments) == 1
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # submitted again by someone who has mended it
    assert main(arguments) == 0
