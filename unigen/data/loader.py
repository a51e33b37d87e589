# SPDX-License-Identifier: Apache-2.0
"""From the stream of samples to the steps of a run: workers, read-ahead, faults, and the position to resume from."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from unigen.data.faults import FaultLog
from unigen.data.mixture import SampleStream, StepPart
from unigen.errors import CheckpointError, DataError, DataWorkerError

T = TypeVar("T")


class StepLoader(Generic[T]):
    """Iterating yields, for every global step, this rank's samples in the order of their positions. Endless.

    `state_dict()` is the position after the step that was handed out last, whatever the workers have read ahead.
    """

    def __init__(
        self,
        stream: SampleStream[T],
        *,
        prefetch_steps: int = 2,
        max_bad_fraction: float = 0.01,
        timeout_seconds: float = 600.0,
    ) -> None:
        """
        Args:
            prefetch_steps: steps that each worker reads ahead.
            timeout_seconds: a worker that needs longer for its part of a step is ended and reported.
        """
        self._stream = stream
        self._prefetch_steps = max(1, prefetch_steps)
        self._timeout_seconds = timeout_seconds
        self.faults = FaultLog(max_bad_fraction)
        self.step = 0
        """Steps handed out, over all runs that were resumed."""
        self._states: dict[int, dict[str, Any]] = {lane: {} for lane in stream.own_lanes}

    def __iter__(self) -> Iterator[list[T]]:
        """Goes on after the step that was handed out last.

        Raises:
            DataError: too many bad records, a source without a usable one, or (DataWorkerError) workers that died or hang.
        """
        self._stream.start_step, self._stream.start_states = self.step, dict(self._states)
        waiting: dict[int, list[StepPart[T]]] = {}
        for part in self._parts():
            self.faults.add(part.faults, part.seen)
            self.faults.check()
            if part.failure is not None:
                raise DataError(part.failure)
            if not part.is_whole:
                continue
            waiting.setdefault(part.step, []).append(part)
            while len(waiting.get(self.step, ())) == max(1, self._stream.num_workers):
                yield self._commit(waiting.pop(self.step))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: the step and the state of this rank's lanes. `merge_states` joins those of all ranks."""
        settings = self._stream.settings
        lanes = {str(lane): state for lane, state in self._states.items()}
        return {"step": self.step, "num_lanes": settings.lanes, "seed": settings.seed, "lanes": lanes}

    def load_state_dict(self, whole: Mapping[str, Any]) -> None:
        """Go on from the merged state of all ranks, of which there may have been another number.

        Raises:
            CheckpointError: another number of lanes or seed, or lanes that are missing.
        """
        settings = self._stream.settings
        for key, here in (("num_lanes", settings.lanes), ("seed", settings.seed)):
            if whole[key] != here:
                raise CheckpointError(
                    f"the checkpoint's data position has {key} {whole[key]}, this run {here}; resume with the same value"
                )
        missing = [lane for lane in self._stream.own_lanes if str(lane) not in whole["lanes"]]
        if missing:
            raise CheckpointError(
                f"the checkpoint's data position lacks lanes {missing}; was it merged over all ranks?"
            )
        self.step = int(whole["step"])
        self._states = {lane: whole["lanes"][str(lane)] for lane in self._stream.own_lanes}

    def _commit(self, parts: list[StepPart[T]]) -> list[T]:
        self.step += 1
        for part in parts:
            self._states.update(part.states)
        placed = sorted((sample for part in parts for sample in part.samples), key=lambda sample: sample[0])
        return [value for _, value in placed]

    def _parts(self) -> Iterator[StepPart[T]]:
        workers = self._stream.num_workers
        if workers == 0:
            yield from self._stream
            return
        _allow_open_files()
        loader = DataLoader(
            _Punctual(self._stream, self._timeout_seconds),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=self._prefetch_steps,
            collate_fn=_as_it_is,
            worker_init_fn=_settle_worker,
            # A fork costs nothing and needs nothing pickled. The children touch no GPU and use one thread.
            multiprocessing_context=multiprocessing.get_context("fork" if sys.platform == "linux" else None),
            in_order=True,
            generator=torch.Generator(),  # else the loader draws its seed from the generator that training draws from
        )
        try:
            with _sigterm_held():
                parts = iter(loader)
            yield from parts
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            first = str(error).splitlines()[0]
            message = f"a data worker died or hangs: {first}; try data.num_workers=0 to see why"
            raise DataWorkerError(message) from error


class _Punctual(IterableDataset[StepPart[T]]):
    """A stream whose process ends when one part takes longer than `seconds`; the loader sees that within seconds.

    The loader's own `timeout` would do it too, but then it does not look after workers that have died.
    """

    def __init__(self, stream: SampleStream[T], seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    def __iter__(self) -> Iterator[StepPart[T]]:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        parts = iter(self._stream)
        while True:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            part = next(parts, None)
            signal.setitimer(signal.ITIMER_REAL, 0.0)  # waiting to be asked is not counted
            if part is None:
                return
            yield part


def merge_states(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole position from the `state_dict()` of every rank."""
    states = list(states)
    lanes = {lane: state for part in states for lane, state in part["lanes"].items()}
    assert len({part["step"] for part in states}) == 1, "the ranks are at different steps"
    return {**states[0], "lanes": lanes}


def _as_it_is(part: Any) -> Any:
    return part


@contextmanager
def _sigterm_held() -> Iterator[None]:
    """Workers started meanwhile leave SIGTERM to `_obey_parent_alone`: a process inherits what is blocked, and so do
    the threads that libraries start in it as it begins."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle_worker(_: int) -> None:
    """One thread per worker; and a signal to the whole job must not take the data away before the last step is done."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    threading.Thread(target=_obey_parent_alone, daemon=True).start()


def _obey_parent_alone() -> None:
    """End on the training process's SIGTERM, not on that of a cluster. (If the parent dies, torch ends its workers.)"""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _allow_open_files() -> None:
    """Every tensor that a worker hands over holds an open file; the usual soft limit of 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
