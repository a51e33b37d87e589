# SPDX-License-Identifier: Apache-2.0
"""scripts/launch.sh passes on what SLURM sends, waits for the save, and ends with the code that the ranks asked for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import TinyWorld, metrics, quiet_environment
from unigen.training.checkpoint_folder import find_damage, newest_checkpoint
from unigen.training.signals import REQUEUE_EXIT_CODE

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_pretraining.sh"
ACCELERATE = SCRIPT.parents[1] / "configs" / "accelerate" / "multi_gpu.yaml"


def start(config: Path, output_dir: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """The script with two processes, in a process group of its own, as the job of a cluster."""
    command = ["bash", str(SCRIPT), "--experiment_config", str(config), "--output_dir", str(output_dir)]
    return subprocess.Popen(
        [*command, "--num_processes", "2", *words],
        env={**quiet_environment(), "CUDA_VISIBLE_DEVICES": "", "VIRTUAL_ENV": sys.prefix, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(is_so: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 200
    while not is_so():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            pytest.fail(process.communicate()[0][-3000:] or "nothing happened")
        time.sleep(0.1)


def processes_below(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, new = [], [pid]
    while new:
        found += new
        new = [child for parent in new for child in children.get(parent, [])]
    return found


def last_step(run: Path) -> int:
    file = run / "metrics.jsonl"
    lines = metrics(run) if file.is_file() and file.read_text().endswith("\n") else []
    return lines[-1]["step"] if lines else 0


def stop_by(process: "subprocess.Popen[str]", send: Callable[[], object]) -> str:
    """What a stopped run printed; it must have saved the step that it stopped after."""
    try:
        send()
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == REQUEUE_EXIT_CODE, output[-3000:]
    return output


def test_two_processes_save_themselves_at_a_signal_and_the_next_life_goes_on(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """First SIGUSR1 to the script alone (sbatch --signal=B:USR1@300); under accelerate, SIGTERM to every process (scancel)."""
    config, run = tiny_world.config(tmp_path), tmp_path / "run"
    first = start(config, run, "training.steps=1000000")
    wait_until(lambda: last_step(run) >= 2, first)
    output = stop_by(first, lambda: first.send_signal(signal.SIGUSR1))
    assert "stopped after step" in output
    saved = newest_checkpoint(run)
    assert saved is not None
    steps = last_step(run)
    assert saved.name == f"checkpoint-{steps}"
    assert (run / "requeue").is_file()

    second = start(
        config, run, "training.steps=1000000", "--accelerate_config", str(ACCELERATE), ACCELERATE_USE_CPU="true"
    )
    wait_until(lambda: last_step(run) >= steps + 2, second)

    def stop_all() -> None:
        for pid in processes_below(second.pid):
            os.kill(pid, signal.SIGTERM)

    assert f"going on from {saved}" in stop_by(second, stop_all)
    again = newest_checkpoint(run)
    assert again is not None
    assert again.name == f"checkpoint-{last_step(run)}"
    assert find_damage(again) is None
    assert last_step(run) >= steps + 2


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A configuration file, and an environment whose python is a script that the test writes."""
    (tmp_path / "config.yaml").touch()
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    return tmp_path


def run_with(place: Path, python: str) -> "subprocess.Popen[str]":
    program = place / "environment" / "bin" / "python"
    program.write_text(f"#!/bin/bash\n{python}\n")
    program.chmod(0o755)
    return start(place / "config.yaml", place / "run", VIRTUAL_ENV=str(place / "environment"))


def test_a_code_that_the_launcher_swallowed_is_given_back(place: Path) -> None:
    process = run_with(place, f"mkdir -p '{place}/run'; touch '{place}/run/requeue'; exit 1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == REQUEUE_EXIT_CODE
    assert "wants to be started again" in output


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_wish_of_an_earlier_life_changes_no_code(place: Path, code: int) -> None:
    (place / "run").mkdir()
    (place / "run" / "requeue").touch()
    process = run_with(place, f"exit {code}")
    process.communicate(timeout=60)
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_script_alone_reaches_what_it_started_and_is_waited_for(
    place: Path, number: signal.Signals
) -> None:
    started, ended = place / "started", place / "ended"
    trap = f"trap 'sleep 1; touch {ended}; exit 7' TERM"
    process = run_with(place, f"{trap}; touch {started}; while :; do sleep 0.1; done")
    wait_until(started.exists, process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert ended.exists()
