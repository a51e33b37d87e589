# SPDX-License-Identifier: Apache-2.0
"""The thread that looks after one rank: what it leaves behind, and how a process that hangs ends."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from unigen.training.heartbeat import MAX_TIMES, Heartbeat
from unigen.training.signals import REQUEUE_EXIT_CODE

HANGS = """
    import ctypes, sys, threading
    from pathlib import Path
    from unigen.training import heartbeat

    heartbeat.GRACE, heartbeat.LONGEST_PAUSE = 1.0, 0.2

    def wait_for_a_sample_that_never_comes():
        threading.Event().wait()

    def hold_the_lock_of_the_interpreter():
        ctypes.PyDLL(None).sleep(1000)

    with heartbeat.Heartbeat(Path(sys.argv[1]), 0, 1, sys.argv[2], step=6, stuck_after=1.0) as heart:
        heart.beat(7)
        globals()[sys.argv[3]]()
"""


def hang(output_dir: Path, life: str, function: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", textwrap.dedent(HANGS), str(output_dir), life, function]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_that_hangs_leaves_its_stacks_and_asks_to_be_started_again(tmp_path: Path) -> None:
    finished = hang(tmp_path, "first", "wait_for_a_sample_that_never_comes")
    assert finished.returncode == REQUEUE_EXIT_CODE, finished.stderr
    assert "in wait_for_a_sample_that_never_comes" in (tmp_path / "stacks" / "rank-0.txt").read_text()
    assert (tmp_path / "requeue").is_file()
    assert "since step 7" in finished.stderr
    heart = json.loads((tmp_path / "heartbeats" / "rank-0").read_text())
    assert heart["step"] == 7
    assert {"time", "host", "pid"} <= heart.keys()


def test_a_run_that_hangs_again_and_again_at_one_step_is_given_up(tmp_path: Path) -> None:
    codes = [
        hang(tmp_path, str(life), "wait_for_a_sample_that_never_comes").returncode for life in range(MAX_TIMES - 1)
    ]
    assert codes == [REQUEUE_EXIT_CODE] * (MAX_TIMES - 1)
    (tmp_path / "requeue").unlink()
    assert hang(tmp_path, "last", "wait_for_a_sample_that_never_comes").returncode == 1
    assert not (tmp_path / "requeue").exists()


def test_a_process_whose_threads_cannot_run_any_more_ends_with_its_stacks_on_stderr(tmp_path: Path) -> None:
    finished = hang(tmp_path, "first", "hold_the_lock_of_the_interpreter")
    assert finished.returncode == 1
    assert "in hold_the_lock_of_the_interpreter" in finished.stderr


def test_a_rank_that_is_told_by_another_that_the_run_is_stuck_leaves_its_stacks_too(tmp_path: Path) -> None:
    program = textwrap.dedent(HANGS).replace("stuck_after=1.0", "stuck_after=1000.0")
    command = [sys.executable, "-c", program, str(tmp_path), "first", "wait_for_a_sample_that_never_comes"]
    with subprocess.Popen(command) as process:
        try:
            while _step_of(tmp_path / "heartbeats" / "rank-0") != 7:
                assert process.poll() is None
                time.sleep(0.05)
            (tmp_path / "heartbeats" / "stuck.json").write_text(json.dumps({"life": "first", "step": 7, "times": 1}))
            assert process.wait(timeout=60) == REQUEUE_EXIT_CODE
        finally:
            process.kill()
    assert "in wait_for_a_sample_that_never_comes" in (tmp_path / "stacks" / "rank-0.txt").read_text()


def _step_of(heart: Path) -> int | None:
    return json.loads(heart.read_text())["step"] if heart.is_file() else None


def test_the_alarm_of_an_earlier_life_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "stuck.json").write_text(json.dumps({"life": "earlier", "step": 0, "times": 1}))
    with Heartbeat(tmp_path, 3, 4, "later", step=0, stuck_after=1000.0) as heart:
        heart.beat(1)
    assert (tmp_path / "heartbeats" / "rank-3").is_file()
    assert not (tmp_path / "stacks").exists()
