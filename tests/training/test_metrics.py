# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl and the trackers: one line per logged step, valid after a crash and a resume; and how the run ended."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.world import TinyWorld, command, metrics, quiet_environment, train
from unigen.errors import CheckpointError, DataWorkerError
from unigen.runs.requeue import judge
from unigen.training.signals import REQUEUE_EXIT_CODE
from unigen.training.status import FailureNoted, read_status

LOSSES = ("loss/t2i", "loss/mmu", "loss/lm", "loss/total")


def test_every_logged_step_has_one_line_with_losses_and_speed(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path, experiment={"log_every": 2}), "training.steps=5") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 4, 5]
    wanted = {"loss/t2i", "loss/mmu", "loss/lm", "loss/total", "learning_rate", "training/gradient_norm"}
    speed = {"throughput/tokens_per_second", "throughput/images_per_second", "throughput/data_wait_fraction"}
    assert wanted | speed <= lines[-1].keys()
    assert lines[-1]["training/samples"] == 5 * 8
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 5 of 5: loss ")]
    is_peak_known = "throughput/model_flops_utilization" in lines[-1]
    assert ("MFU" in said) == is_peak_known, "of a device of unknown peak there is no use to show"


def test_the_total_is_the_weighted_sum_of_the_tasks_losses(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, training={"loss_weights": {"t2i": 2.0, "mmu": 0.5}})
    assert train(config) == 0
    for line in metrics(tmp_path / "run"):
        expected = 2.0 * line["loss/t2i"] + 0.5 * line["loss/mmu"] + line["loss/lm"]
        assert abs(line["loss/total"] - expected) < 1e-5


def test_lines_of_steps_that_are_done_again_and_a_torn_line_are_dropped(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=2") == 0
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss/total": -1.0}) + "\n" + '{"step": 4, "lo')
    assert train(config, "training.steps=4") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["loss/total"] > 0


def test_a_run_that_went_on_has_the_lines_of_one_that_was_never_stopped(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Also where the checkpoint lies between two lines of `log_every`: their means leave no step out."""
    sections = {"experiment": {"log_every": 4, "checkpoint_every": 3}, "training": {"steps": 8}}
    whole, broken = (tiny_world.config(tmp_path / name, **sections) for name in ("whole", "broken"))
    assert train(whole) == 0
    assert train(broken, "training.steps=6") == 0  # its last checkpoint is that of step 6
    assert train(broken) == 0
    found, expected = (metrics(tmp_path / name / "run") for name in ("broken", "whole"))
    assert [line["step"] for line in found] == [line["step"] for line in expected] == [1, 3, 4, 6, 8]
    for line, undisturbed in zip(found, expected, strict=True):
        assert {name: line[name] for name in LOSSES} == {name: undisturbed[name] for name in LOSSES}


def test_tensorboard_gets_the_same_numbers_and_shows_steps_done_twice_once(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    config = tiny_world.config(tmp_path, experiment={"trackers": ["tensorboard"]})
    assert train(config, "training.steps=2") == 0
    (events,) = {file.parent for file in (tmp_path / "run").rglob("events.out.tfevents.*")}
    with SummaryWriter(str(events)) as crashed:  # what a process left that got further than its last checkpoint
        crashed.add_scalar("loss/total", -1.0, global_step=3)
    assert train(config, "training.steps=4") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for name in (*LOSSES, "learning_rate"):
        assert _scalars(events, name) == pytest.approx({line["step"]: line[name] for line in lines})


def test_wandb_without_a_key_writes_offline_runs_that_share_one_id(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc with a key
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_world.config(tmp_path, experiment={"trackers": ["wandb"]})
    environment = {**quiet_environment()}
    for steps in (2, 3):
        finished = subprocess.run(
            command("train", config, f"training.steps={steps}"),
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
    run = tmp_path / "run"
    first, second = sorted((run / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime)
    name = (run / "wandb_run_id").read_text().strip()
    assert first.name.endswith(f"-{name}")
    assert second.name.endswith(f"-{name}")
    lines = {line["step"]: line["loss/total"] for line in metrics(run)}
    assert _wandb_history(first) == pytest.approx({step: lines[step] for step in (1, 2)})
    assert _wandb_history(second) == pytest.approx({3: lines[3]})


def test_a_cluster_that_signals_every_process_of_a_run_does_not_take_its_trackers_away(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = tiny_world.config(tmp_path, experiment={"trackers": ["wandb", "tensorboard"]})
    process = subprocess.Popen(
        command("train", config, "training.steps=100000"),
        env={**quiet_environment(), "WANDB_MODE": "offline"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for_line(tmp_path / "run" / "metrics.jsonl", process)
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == REQUEUE_EXIT_CODE, output
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert max(_wandb_history(offline)) == metrics(tmp_path / "run")[-1]["step"]


def test_the_status_says_how_a_run_ended(tiny_world: TinyWorld, tmp_path: Path) -> None:
    done = tiny_world.config(tmp_path / "done")
    assert train(done) == 0
    status = read_status(tmp_path / "done" / "run")
    assert status is not None
    assert (status.state, status.step, status.num_steps, status.num_processes) == ("done", 3, 3, 1)
    assert status.packages["torch"]

    mistaken = tiny_world.config(tmp_path / "mistaken")
    assert train(mistaken, "model.language_model=elsewhere") == 2
    status = read_status(tmp_path / "mistaken" / "run")
    assert status is not None
    assert (status.state, status.is_mistake) == ("failed", True)
    assert status.error is not None
    assert "elsewhere" in status.error
    assert train(mistaken) == 0
    status = read_status(tmp_path / "mistaken" / "run")
    assert status is not None
    assert (status.state, status.error) == ("done", None)


def test_of_several_ranks_the_first_to_say_why_it_broke_off_is_believed(tmp_path: Path) -> None:
    for error in (CheckpointError("no space for checkpoint-5"), RuntimeError("Connection closed by peer")):
        with pytest.raises(type(error)), FailureNoted(tmp_path):
            raise error
    status = read_status(tmp_path)
    assert status is not None
    assert status.error == "CheckpointError: no space for checkpoint-5"


def test_a_data_worker_that_died_is_noted_as_no_mistake_so_that_the_job_is_started_again(tmp_path: Path) -> None:
    with pytest.raises(DataWorkerError), FailureNoted(tmp_path):
        raise DataWorkerError("a data worker died or hangs")
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.is_mistake) == ("failed", False)
    assert judge(tmp_path, exit_code=1, max_failures=3).requeue


def _scalars(folder: Path, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    points = [(event.step, event.value) for event in reader.Scalars(name)]
    assert len(dict(points)) == len(points), "a step is shown twice"
    return dict(points)


def _wandb_history(folder: Path) -> dict[int, float]:
    """Step -> total loss, as an offline run holds it."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    history = {}
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            values: dict[str, Any] = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            history[int(values["_step"])] = values["loss/total"]
    return history


def _wait_for_line(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while not (path.is_file() and path.stat().st_size):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run wrote no metrics"
        time.sleep(0.05)
