# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: SIGTERM (scancel, preemption) and SIGUSR1 (sbatch --signal) let the step finish first."""

import signal
from types import FrameType

REQUEUE_EXIT_CODE = 75
"""EX_TEMPFAIL: the run saved itself and wants to be started again; a job script can requeue on it."""


class StopRequest:
    """Set by a signal; installed for as long as the context lasts."""

    def __init__(self) -> None:
        self.is_set = False
        self._previous: dict[signal.Signals, object] = {}

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._set)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
