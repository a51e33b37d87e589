# SPDX-License-Identifier: Apache-2.0
"""Saving beside training, and what happens when the disk refuses."""

import errno
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, metrics, train, weights
from unigen.runs.requeue import judge
from unigen.training import optimizer_state, save_policy
from unigen.training.checkpoint import Checkpointer
from unigen.training.checkpoint_folder import find_damage, newest_checkpoint
from unigen.training.signals import REQUEUE_EXIT_CODE
from unigen.training.stages.pretrain import PretrainStage


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoint-*"))


@pytest.fixture
def before_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Call a function with the folder of every model, on the thread that is about to write it."""
    honest = PretrainStage.save

    def install(function: Callable[[Path], None]) -> None:
        def save(self: PretrainStage, folder: Path, *rest: Any) -> None:
            function(folder)
            honest(self, folder, *rest)

        monkeypatch.setattr(PretrainStage, "save", save)

    return install


@pytest.fixture
def around_saves(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Call a function with the step of every save, on the training thread: the one before is written, this one not begun."""
    honest = Checkpointer.save

    def install(function: Callable[[int], None]) -> None:
        def save(self: Checkpointer, state: Any) -> None:
            self._settle()
            function(state.step)
            honest(self, state)

        monkeypatch.setattr(Checkpointer, "save", save)

    return install


def test_steps_are_trained_while_a_save_is_in_flight_and_the_file_holds_its_own_step(
    tiny_world: TinyWorld, tmp_path: Path, before_writing: Callable[[Callable[[Path], None]], None]
) -> None:
    sections = {"experiment": {"checkpoint_every": 2, "keep_last": 0}, "training": {"steps": 5, "ema_decay": 0.5}}
    waiting, beside = (tiny_world.config(tmp_path / name, **sections) for name in ("waiting", "beside"))
    assert train(waiting, "experiment.async_save=false") == 0
    run = tmp_path / "beside" / "run"
    seen: dict[str, int] = {}

    def hold(folder: Path) -> None:
        """Let the write of checkpoint 2 begin only when step 4 is done: the save of step 4 waits for it."""
        assert threading.current_thread() is not threading.main_thread()
        if "checkpoint-2" in folder.parent.name and folder.name == "unwrapped_model":
            deadline = time.monotonic() + 60
            while metrics(run)[-1]["step"] < 4 and time.monotonic() < deadline:
                time.sleep(0.01)
        seen[folder.parent.name] = metrics(run)[-1]["step"]

    before_writing(hold)
    assert train(beside) == 0
    assert seen["checkpoint-2.tmp"] == 4, "two steps were trained in the meantime, and the next save waited"
    assert checkpoints(run) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    for step in (2, 4, 5):
        for part in ("unwrapped_model", "ema_model"):
            pair = [weights(tmp_path / name / "run" / f"checkpoint-{step}" / part) for name in ("beside", "waiting")]
            assert_equal_weights(*pair)
        for file in ("rng.safetensors", "ema.safetensors", "backend/part-00000.safetensors"):
            first, second = (
                tmp_path / name / "run" / f"checkpoint-{step}" / "state" / file for name in ("beside", "waiting")
            )
            assert first.read_bytes() == second.read_bytes(), f"{file} of step {step}"
    positions = [
        json.loads((tmp_path / name / "run" / "checkpoint-2" / "state" / "trainer.json").read_text())["data"]
        for name in ("beside", "waiting")
    ]
    assert positions[0] == positions[1]
    assert all(line["checkpoint/failed_saves"] == 0 for line in metrics(run))


def test_an_error_of_the_writer_ends_the_run_at_the_next_step(
    tiny_world: TinyWorld,
    tmp_path: Path,
    before_writing: Callable[[Callable[[Path], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path) -> None:
        raise ValueError("a mistake of ours")

    before_writing(fail)
    config = tiny_world.config(tmp_path, experiment={"checkpoint_every": 2})
    assert train(config, "training.steps=1000") == 2
    assert "a checkpoint was not written: ValueError: a mistake of ours" in capsys.readouterr().err
    assert metrics(tmp_path / "run")[-1]["step"] < 100
    assert checkpoints(tmp_path / "run") == []


def test_an_error_of_the_last_save_is_not_lost(
    tiny_world: TinyWorld,
    tmp_path: Path,
    before_writing: Callable[[Callable[[Path], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(folder: Path) -> None:
        if "checkpoint-3" in str(folder):
            raise ValueError("a mistake of ours")

    before_writing(fail)
    assert train(tiny_world.config(tmp_path, experiment={"checkpoint_every": 2})) == 2
    assert "a mistake of ours" in capsys.readouterr().err
    assert checkpoints(tmp_path / "run") == ["checkpoint-2"]


def test_saves_by_the_clock_and_those_that_stay_for_good(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a step takes 20 s of: 0.5 minutes are two steps."""
    now = [0.0]
    monkeypatch.setattr("unigen.training.checkpoint.time.monotonic", lambda: now[0])
    honest = Checkpointer.is_due

    def is_due(self: Checkpointer, step: int) -> bool:
        now[0] += 20.0
        return honest(self, step)

    monkeypatch.setattr(Checkpointer, "is_due", is_due)
    keys = {"checkpoint_every_minutes": 0.5, "keep_last": 1, "keep_every": 3}
    assert train(tiny_world.config(tmp_path, experiment=keys), "training.steps=8") == 0
    # Saved: 2, 3 (for good; the clock begins anew), 5, 6 (for good), 8.
    assert checkpoints(tmp_path / "run") == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]


def test_a_run_saves_itself_and_asks_to_be_started_again_before_the_end_of_the_job(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(save_policy.SLURM_END, str(time.time() + 40.0))
    config = tiny_world.config(
        tmp_path, experiment={"stop_before_limit_minutes": 60.0}
    )  # a quarter of what there is: 10 s
    assert train(config, "training.steps=1000000") == REQUEUE_EXIT_CODE
    assert (tmp_path / "run" / "requeue").is_file()
    (only,) = checkpoints(tmp_path / "run")
    step = int(only.removeprefix("checkpoint-"))
    assert step > 1
    monkeypatch.delenv(save_policy.SLURM_END)
    assert train(config, f"training.steps={step + 1}") == 0
    assert metrics(tmp_path / "run")[-1]["step"] == step + 1
    assert not (tmp_path / "run" / "requeue").exists()


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, damaged = (
        tiny_world.config(tmp_path / name, experiment={"checkpoint_every": 1, "keep_last": 2})
        for name in ("whole", "damaged")
    )
    assert train(whole, "training.steps=4") == 0
    assert train(damaged, "training.steps=3") == 0
    run = tmp_path / "damaged" / "run"
    file = run / "checkpoint-3" / "unwrapped_model" / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    capsys.readouterr()
    assert train(damaged, "training.steps=4") == 0
    printed = capsys.readouterr().out
    assert "checkpoint-3 is damaged: unwrapped_model/model.safetensors has" in printed
    assert "goes on from" in printed
    assert (run / "checkpoint-3.damaged").is_dir()
    assert checkpoints(run) == ["checkpoint-3", "checkpoint-3.damaged", "checkpoint-4"]
    assert_equal_weights(weights(run / "checkpoint-4"), weights(tmp_path / "whole" / "run" / "checkpoint-4"))


@pytest.fixture
def refusing_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """While the list holds a number, the file of the optimizer's state meets that error of the operating system."""
    errors: list[int] = []
    honest = optimizer_state.save_file

    def save_file(tensors: Any, path: Path) -> None:
        if errors:
            path.write_bytes(b"half")
            raise OSError(errors[0], os.strerror(errors[0]))
        honest(tensors, path)

    monkeypatch.setattr(optimizer_state, "save_file", save_file)
    return errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_save_that_the_disk_refuses_is_said_and_tried_again_at_the_next(
    tiny_world: TinyWorld,
    tmp_path: Path,
    refusing_disk: list[int],
    around_saves: Callable[[Callable[[int], None]], None],
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def fill_and_free(step: int) -> None:
        refusing_disk[:] = [number] if 2 <= step < 5 else []

    around_saves(fill_and_free)
    keys = {"checkpoint_every": 1, "keep_last": 1}
    assert train(tiny_world.config(tmp_path, experiment=keys), "training.steps=6") == 0
    printed = capsys.readouterr().out
    assert printed.count("WARNING") >= 2
    assert "checkpoint-2" in printed
    assert "Training goes on" in printed
    assert metrics(tmp_path / "run")[-1]["checkpoint/failed_saves"] == 3
    assert checkpoints(tmp_path / "run") == ["checkpoint-6"]


def test_a_disk_that_refuses_the_first_save_ends_the_run_before_more_is_lost(
    tiny_world: TinyWorld, tmp_path: Path, refusing_disk: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    refusing_disk.append(errno.ENOSPC)
    config = tiny_world.config(tmp_path, experiment={"checkpoint_every": 2})
    assert train(config, "training.steps=1000") == 2
    assert "no space for" in capsys.readouterr().err
    assert metrics(tmp_path / "run")[-1]["step"] < 100
    assert checkpoints(tmp_path / "run") == [], "what was half written is gone"


def test_a_run_whose_last_checkpoint_is_missing_fails_and_is_to_be_started_again_from_an_earlier_one(
    tiny_world: TinyWorld,
    tmp_path: Path,
    refusing_disk: list[int],
    around_saves: Callable[[Callable[[int], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    around_saves(lambda step: refusing_disk.append(errno.ENOSPC) if step > 1 else None)
    assert train(tiny_world.config(tmp_path, experiment={"checkpoint_every": 1})) == 1
    assert "the last checkpoint is missing: no space for" in capsys.readouterr().err
    assert judge(tmp_path / "run", 1, max_failures=3).requeue
    assert not judge(tmp_path / "run", 1, max_failures=1).requeue, "but not for ever"
    assert checkpoints(tmp_path / "run") == ["checkpoint-1"]
    assert find_damage(tmp_path / "run" / "checkpoint-1") is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_disk_that_is_really_full_the_run_goes_on_and_saves_when_there_is_room_again(
    tiny_world: TinyWorld,
    small_disk: Path,
    around_saves: Callable[[Callable[[int], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ballast = small_disk / "ballast"

    def fill_and_free(step: int) -> None:
        if step == 2:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 12))
        if step == 5:
            ballast.unlink()

    around_saves(fill_and_free)
    config = tiny_world.config(small_disk, experiment={"checkpoint_every": 1, "keep_last": 2})
    assert train(config, "training.steps=6") == 0
    printed = capsys.readouterr().out
    assert f"no space for {small_disk / 'run' / 'checkpoint-2'}: it needs about" in printed
    assert "experiment.keep_last" in printed
    assert newest_checkpoint(small_disk / "run") == small_disk / "run" / "checkpoint-6"
    assert checkpoints(small_disk / "run") == ["checkpoint-5", "checkpoint-6"]
    assert all(json.loads(line) for line in (small_disk / "run" / "metrics.jsonl").read_text().splitlines())


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_built(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    config = tiny_world.config(tmp_path)
    assert train(config, f"experiment.output_dir={tmp_path / 'file' / 'run'}") == 2
    error = capsys.readouterr().err
    assert "experiment.output_dir: cannot write into" in error
    assert "Not a directory" in error


def test_what_a_killed_save_left_is_cleared_away_at_the_next_start(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=1") == 0
    (tmp_path / "run" / "checkpoint-2.tmp" / "state").mkdir(parents=True)
    assert train(config, "training.steps=1") == 0
    assert checkpoints(tmp_path / "run") == ["checkpoint-1"]
