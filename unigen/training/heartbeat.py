# SPDX-License-Identifier: Apache-2.0
"""Finding a rank that is stuck: in its data, in a collective that another rank never enters, on a file system that hangs.

Every rank has a thread that writes how far the rank is to `heartbeats/rank-<n>` and looks at the clock. Where no step has
ended for too long, it says so in `heartbeats/stuck.json`, which the threads of all ranks look at: each writes the stacks of
all its threads to `stacks/rank-<n>.txt`, and ends its process with the exit code that asks to be started again.
"""

import faulthandler
import json
import os
import platform
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from unigen.training.signals import REQUEUE_EXIT_CODE, ask_for_requeue

FIRST_STEP_FACTOR = 4
"""How much longer the first step may take: it compiles, fills the queues of data and reads up to where it stopped."""
LONGEST_PAUSE = 10.0
"""Seconds between two looks of a thread, at most."""
GRACE = 30.0
"""Seconds for which a rank waits for the stacks of the others before it ends."""
MAX_TIMES = 3
"""A run that is stuck so often in a row at one and the same step would only be so again: it is not started again."""
STDERR = 2


def collective_timeout(stuck_after_minutes: float | None) -> timedelta | None:
    """For the process group, whose own clock would else end a rank that waits before its stacks are written."""
    if stuck_after_minutes is None:
        return None
    return timedelta(seconds=60 * FIRST_STEP_FACTOR * stuck_after_minutes + LONGEST_PAUSE + 4 * GRACE)


class Heartbeat:
    """A context around the steps of one rank, which calls `beat` after each.

    Args:
        life: names this start of the run, the same on all ranks; what an earlier one left in the folder is not believed.
        stuck_after: seconds without a step; None writes the heartbeats and waits for ever.
    """

    def __init__(
        self, output_dir: Path, rank: int, num_ranks: int, life: str, step: int, stuck_after: float | None
    ) -> None:
        self._output_dir, self._rank, self._num_ranks, self._life = output_dir, rank, num_ranks, life
        self._stuck_after = stuck_after
        self._pause = LONGEST_PAUSE if stuck_after is None else min(LONGEST_PAUSE, stuck_after / 4)
        self._step, self._when = step, time.monotonic()
        self._is_first = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def beat(self, step: int) -> None:
        """`step` steps are done. Costs no file access."""
        self._step, self._when, self._is_first = step, time.monotonic(), False

    def __enter__(self) -> "Heartbeat":
        self._heart.parent.mkdir(parents=True, exist_ok=True)
        self._when = time.monotonic()
        self._set_timer()  # before the thread: it may never get the interpreter's lock
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._stuck_after is not None:
            faulthandler.cancel_dump_traceback_later()

    @property
    def _heart(self) -> Path:
        return self._output_dir / "heartbeats" / f"rank-{self._rank}"

    @property
    def _alarm(self) -> Path:
        return self._output_dir / "heartbeats" / "stuck.json"

    def _stacks(self, rank: int) -> Path:
        return self._output_dir / "stacks" / f"rank-{rank}.txt"

    def _watch(self) -> None:
        while True:
            self._write_heart()
            if self._stuck_after is not None:
                alarm = self._read_alarm()
                if alarm is None and self._is_stuck():
                    alarm = self._raise_alarm()
                if alarm is not None:
                    self._give_up(alarm)
            self._set_timer()
            if self._ended.wait(self._pause):
                return

    def _set_timer(self) -> None:
        """No thread of Python runs while one of them holds the interpreter's lock; a timer of the C library does."""
        if self._stuck_after is not None:
            faulthandler.dump_traceback_later(self._patience() + GRACE, exit=True, file=STDERR)

    def _patience(self) -> float:
        assert self._stuck_after is not None, "else nobody asks"
        return self._stuck_after * (FIRST_STEP_FACTOR if self._is_first else 1)

    def _is_stuck(self) -> bool:
        return time.monotonic() - self._when > self._patience()

    def _write_heart(self) -> None:
        content = {**self._describe(), "seconds_since_step": round(time.monotonic() - self._when, 1)}
        try:
            _write(self._heart, json.dumps(content))
        except OSError:
            return  # a full disk is reported where it is in the way of something that matters

    def _describe(self) -> dict[str, Any]:
        return {"step": self._step, "time": time.time(), "host": platform.node(), "pid": os.getpid()}

    def _read_alarm(self) -> dict[str, Any] | None:
        """The alarm of this life, if some rank has raised it."""
        alarm = _read(self._alarm)
        return alarm if alarm.get("life") == self._life else None

    def _raise_alarm(self) -> dict[str, Any]:
        earlier = _read(self._alarm)
        times = earlier.get("times", 0) + 1 if earlier.get("step") == self._step else 1
        alarm = {**self._describe(), "rank": self._rank, "life": self._life, "times": times}
        minutes = self._patience() / 60
        _say(
            f"rank {self._rank}: no step has ended for {minutes:g} minutes since step {self._step} "
            f"({times} in a row there); the stacks of all ranks go to {self._stacks(0).parent}"
        )
        try:
            _write(self._alarm, json.dumps(alarm))
        except OSError as error:
            _say(f"rank {self._rank}: the others cannot be told: {error}")
        return alarm

    def _give_up(self, alarm: dict[str, Any]) -> None:
        """Write the stacks, wait until the others have done it too, and end the process."""
        is_hopeless = alarm["times"] >= MAX_TIMES
        try:
            self._dump_stacks()
            self._wait_for_other_stacks()
            if not is_hopeless:
                ask_for_requeue(self._output_dir)
        except OSError as error:
            _say(f"rank {self._rank}: no stacks: {error}")
        # The main thread hangs where no exception reaches it.
        os._exit(1 if is_hopeless else REQUEUE_EXIT_CODE)

    def _dump_stacks(self) -> None:
        path = self._stacks(self._rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp")
        with partial.open("w", encoding="utf-8") as file:
            file.write(f"life {self._life}: {json.dumps(self._describe())}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        os.replace(partial, path)

    def _wait_for_other_stacks(self) -> None:
        """A launcher ends all ranks as soon as one has ended."""
        deadline = time.monotonic() + GRACE
        missing = set(range(self._num_ranks)) - {self._rank}
        while missing and time.monotonic() < deadline:
            missing = {rank for rank in missing if not self._has_dumped(rank)}
            time.sleep(0.1)

    def _has_dumped(self, rank: int) -> bool:
        try:
            with self._stacks(rank).open(encoding="utf-8") as file:
                return self._life in file.readline()
        except OSError:
            return False


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()  # the process is about to end without any cleaning up


def _write(path: Path, content: str) -> None:
    """At once, or not at all."""
    partial = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.tmp")
    partial.write_text(content + "\n", encoding="utf-8")
    os.replace(partial, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
