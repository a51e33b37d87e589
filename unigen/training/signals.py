# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: SIGTERM (scancel, preemption) and SIGUSR1 (sbatch --signal) let the step finish first.

The run then saves itself and ends with `REQUEUE_EXIT_CODE`. Launchers of several processes (torchrun, accelerate) turn every
exit code into 1, so the run also leaves a file in its folder, from which scripts/launch.sh makes the code again.
"""

import signal
from pathlib import Path
from types import FrameType

REQUEUE_EXIT_CODE = 75
"""EX_TEMPFAIL: the run saved itself and wants to be started again; a job script can requeue on it."""
REQUEUE_FILE = "requeue"
"""In the run's folder: its last life ended with that code."""


class StopRequest:
    """Set by a signal, or by the loop; signals are heard for as long as the context lasts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """What asked for it; None until then."""
        self._previous: dict[signal.Signals, object] = {}

    @property
    def is_set(self) -> bool:
        return self.reason is not None

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._set)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def ask_for_requeue(output_dir: Path) -> None:
    (output_dir / REQUEUE_FILE).touch()


def forget_requeue(output_dir: Path) -> None:
    """At the start of a life, so that the next exit code is its own."""
    (output_dir / REQUEUE_FILE).unlink(missing_ok=True)
