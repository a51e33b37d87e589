# SPDX-License-Identifier: Apache-2.0
"""Being told to stop: the step is finished, saved, and the exit code asks to be started again."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, command, quiet_environment, train, weights
from unigen.training.signals import REQUEUE_EXIT_CODE, StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_sets_the_request_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set
    assert signal.getsignal(number) == before


def test_a_terminated_run_saves_its_step_and_goes_on_bitwise(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"data": {"num_workers": 2}}
    stopped = tiny_world.config(tmp_path / "stopped", **sections)
    run = tmp_path / "stopped" / "run"
    process = subprocess.Popen(
        command("train", stopped, "training.steps=100000"),
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_for(run / "metrics.jsonl", process)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == REQUEUE_EXIT_CODE, output
    (checkpoint,) = run.glob("checkpoint-*")
    steps = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 1 <= steps < 100000

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that was stopped: the order of sums depends on it
    try:
        whole = tiny_world.config(tmp_path / "whole", **sections)
        assert train(stopped, f"training.steps={steps + 2}") == 0
        assert train(whole, f"training.steps={steps + 2}") == 0
    finally:
        torch.set_num_threads(num_threads)
    assert_equal_weights(weights(run), weights(tmp_path / "whole" / "run"))


def _wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run wrote no metrics"
        time.sleep(0.05)
