# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: `checkpoint-<step>/unwrapped_model` (the model) and `checkpoint-<step>/state` (what resuming needs).

Saving stops training for as long as a copy into host memory takes: a thread of each rank writes the copies. The folder gets
its name (`checkpoint_folder`) when all is written; where several ranks write, as soon as the loop hears, at a step's
boundary, that all of them are done. A save that the disk refuses is said and tried again when the next one is due, as long as
the run has an earlier checkpoint to fall back on; what could not be written last ends the run with an error. Our own state is
JSON and safetensors.
"""

import copy
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from unigen.config.load import save_config
from unigen.config.schema import Config
from unigen.data.loader import StepLoader, merge_states
from unigen.environment import git_commit, package_versions
from unigen.errors import CheckpointError, UnsavedError
from unigen.training import checkpoint_folder as folders
from unigen.training.backend import Backend
from unigen.training.ema import Ema
from unigen.training.host_copies import HostCopies, num_bytes
from unigen.training.save_policy import SavePolicy
from unigen.training.stages.stage import Stage

FORMAT = 1
MODEL_PREFIX = "model."
BACKEND = Path("state") / "backend"


@dataclass
class TrainState:
    """What a run has to know to go on, besides weights, optimizer, rng and the position in the data."""

    step: int = 0
    """Global steps that are done."""
    seconds: float = 0.0
    """Time spent training, over all runs that were resumed."""
    num_non_finite: int = 0
    """Steps that were skipped because their loss or gradient was not a number."""
    num_samples: int = 0


@dataclass(frozen=True)
class SaveReport:
    """What one rank says of its part of the save in flight."""

    is_done: bool = True
    """Written, or given up; also where no save is in flight."""
    problem: str | None = None
    is_passing: bool = True
    """The problem is the disk's; the next save may find it solved."""


@dataclass(frozen=True)
class _Snapshot:
    """What the first rank alone writes, as it was at the step."""

    weights: dict[str, Tensor]
    """Of the whole stage."""
    ema: dict[str, Tensor] | None
    rng: dict[str, Tensor]
    num_bytes: int
    """Of what all ranks write, at least."""


class Checkpointer:
    """Writes and reads the checkpoints of one run. All ranks make every call, but for `is_due` and `report`."""

    def __init__(
        self, backend: Backend, config: Config, stage: Stage, loader: StepLoader[Any], ema: Ema | None
    ) -> None:
        self.backend, self.accelerator = backend, backend.accelerator
        self.config, self.stage, self.loader, self.ema = config, stage, loader, ema
        self.output_dir = Path(config.experiment.output_dir)
        self.policy = SavePolicy.of(config.experiment)
        self.num_failed = 0
        """Saves that were given up."""
        self.stall_seconds = 0.0
        """For which the last save stopped training."""
        self._writes_alone = not (backend.is_sharded and backend.can_write_copies)
        """The first rank, on its thread: what other ranks write, if anything, is written before."""
        self._copies = HostCopies()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._pending: tuple[Path, dict[str, Any]] | None = None
        self._last_problem: str | None = None
        self._last_time = time.monotonic()
        self._last_bytes: int | None = None
        self._has_earlier = False
        disable_progress_bar()  # of the files of weights, in the middle of the run's own

    def is_due(self, step: int) -> bool:
        """Whether to save after `step`, by the clock of this rank."""
        return self.policy.is_due(step, time.monotonic() - self._last_time)

    def save(self, state: TrainState) -> None:
        """Copy the run as it is now and begin to write it; waits for the save before.

        Raises:
            CheckpointError: the save before has failed, and there is nothing to fall back on.
        """
        began = time.monotonic()
        self._settle()
        folder = folders.checkpoint_folder(self.output_dir, state.step)
        trouble = self._begin(folder) if self.accelerator.is_main_process else None
        tensors = self._state_tensors()
        told = gather_object([(self.loader.state_dict(), _rng_states(), num_bytes(tensors))])
        position = copy.deepcopy(merge_states(part for part, _, _ in told))
        snapshot = self._snapshot([rng for _, rng, _ in told], sum(size for _, _, size in told))
        if not self.backend.can_write_copies:
            trouble = self._save_backend_state(folder, trouble)
        content = {"format": FORMAT, "backend": self.backend.name, "data": position, **vars(state)}
        self._pending = (folder, content)
        self._writing = self._writer.submit(self._write, folder, content, tensors, snapshot, trouble)
        if not self.config.experiment.async_save:
            self._settle()
        self._last_time = time.monotonic()
        self.stall_seconds = self._last_time - began

    def report(self) -> SaveReport:
        """How far this rank is with the save in flight. `hear` wants the reports of all ranks."""
        if self._writing is None:
            return SaveReport()
        if not self._writing.done():
            return SaveReport(is_done=False)
        error = self._writing.exception()
        if error is None or isinstance(error, CheckpointError):
            return SaveReport(problem=None if error is None else str(error))
        return SaveReport(problem=f"a checkpoint was not written: {type(error).__name__}: {error}", is_passing=False)

    def hear(self, reports: Sequence[SaveReport]) -> None:
        """Finish the save in flight if all ranks are done with it.

        Raises:
            CheckpointError: it failed, and there is nothing to fall back on or no use in another try.
        """
        if self._pending is None or not all(report.is_done for report in reports):
            return
        error = self._writing.exception() if self._writing is not None else None
        (folder, content), self._pending, self._writing = self._pending, None, None
        failed = next((report for report in reports if report.problem is not None), None)
        if failed is None and not self._writes_alone:
            problem = [self._try_to_commit(folder, content) if self.accelerator.is_main_process else None]
            broadcast_object_list(problem)
            failed = SaveReport(problem=problem[0]) if problem[0] is not None else None
        if failed is not None:
            self._give_up(folder, failed, error)
        else:
            self._has_earlier, self._last_problem = True, None

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            UnsavedError: what was to be saved last is not on the disk; an earlier checkpoint is.
        """
        self._settle()
        self._writer.shutdown()
        if self._last_problem is not None:
            raise UnsavedError(f"the last checkpoint is missing: {self._last_problem}")

    def metrics(self) -> dict[str, float]:
        return {"checkpoint/failed_saves": self.num_failed, "checkpoint/stall_seconds": self.stall_seconds}

    def _settle(self) -> None:
        if self._writing is not None:
            wait([self._writing])
            self.hear(gather_object([self.report()]))

    def _begin(self, folder: Path) -> str | None:
        try:
            with folders.explained(folder):
                folders.begin(folder, BACKEND)
        except CheckpointError as error:
            return str(error)
        return None

    def _state_tensors(self) -> dict[str, Tensor]:
        """This rank's part of the backend's state, as it stays; nothing where the backend writes it itself."""
        is_ours = self.backend.is_sharded or self.accelerator.is_main_process
        if not is_ours or not self.backend.can_write_copies:
            return {}
        return self._kept("state", self.backend.live_state())

    def _kept(self, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """As they are now: a copy, unless training waits for the writing."""
        return self._copies.take(kind, tensors) if self.config.experiment.async_save else tensors

    def _snapshot(self, rng: list[dict[str, Tensor]], state_bytes: int) -> _Snapshot | None:
        weights = self.backend.model_state_dict()
        if weights is None:
            return None
        trained = {name for name, one in self.stage.named_parameters() if one.requires_grad}
        fixed = {name for name, one in self.stage.named_parameters() if not one.requires_grad}
        if not self.backend.is_sharded:  # else they were gathered, which is a copy
            moving = {name: tensor for name, tensor in weights.items() if name not in fixed}
            weights = {**weights, **self._kept("weights", moving)}
        ema = None if self.ema is None else self._kept("ema", self.ema.state_dict())
        size = state_bytes + num_bytes({name: weights[name] for name in trained}) + 2 * num_bytes(ema or {})
        states = {f"{rank}.{kind}": one for rank, part in enumerate(rng) for kind, one in part.items()}
        return _Snapshot(weights, ema, states, self._last_bytes or size)

    def _save_backend_state(self, folder: Path, trouble: str | None) -> str | None:
        """All ranks together; the first trouble of any rank, on all."""
        try:
            with folders.explained(folder):
                self.backend.save_state(folders.unfinished_folder(folder) / BACKEND)
        except (CheckpointError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
            trouble = trouble or str(error)
        return next((one for one in gather_object([trouble]) if one is not None), None)

    def _write(
        self,
        folder: Path,
        content: dict[str, Any],
        tensors: dict[str, Tensor],
        snapshot: _Snapshot | None,
        trouble: str | None,
    ) -> None:
        """What this rank writes; on its thread."""
        if trouble is not None:
            raise CheckpointError(trouble)
        unfinished = folders.unfinished_folder(folder)
        with folders.explained(folder, None if snapshot is None else snapshot.num_bytes):
            if snapshot is not None:
                folders.check_space(folder, snapshot.num_bytes)
                self._write_snapshot(unfinished, snapshot)
            if tensors:
                self.backend.write_state(tensors, unfinished / BACKEND)
            folders.flush(unfinished if snapshot is not None else unfinished / BACKEND)
            if snapshot is not None and self._writes_alone:
                self._commit(folder, content)

    def _write_snapshot(self, folder: Path, snapshot: _Snapshot) -> None:
        weights, ema = snapshot.weights, snapshot.ema
        self.stage.save(folder / "unwrapped_model", _of_model(weights))
        if ema is not None:
            self.stage.save(folder / "ema_model", _of_model({**weights, **ema}))
            save_file(ema, folder / "state" / "ema.safetensors")
        others = {name: one.contiguous() for name, one in weights.items() if not name.startswith(MODEL_PREFIX)}
        save_file(others, folder / "state" / "stage.safetensors")
        save_file(snapshot.rng, folder / "state" / "rng.safetensors")
        save_config(self.config, folder / "config.yaml")
        environment = {"git_commit": git_commit(), "packages": package_versions()}
        (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")

    def _try_to_commit(self, folder: Path, content: dict[str, Any]) -> str | None:
        try:
            with folders.explained(folder):
                self._commit(folder, content)
        except CheckpointError as error:
            return str(error)
        return None

    def _commit(self, folder: Path, content: dict[str, Any]) -> None:
        self._last_bytes = folders.commit(folder, content)
        self._writer.submit(self._prune, content["step"])

    def _prune(self, newest: int) -> None:
        for step in self.policy.superfluous(folders.saved_steps(self.output_dir), newest):
            folders.delete(folders.checkpoint_folder(self.output_dir, step))

    def _give_up(self, folder: Path, report: SaveReport, error: BaseException | None) -> None:
        self.num_failed += 1
        self._last_problem = report.problem
        if self.accelerator.is_main_process:
            shutil.rmtree(folders.unfinished_folder(folder), ignore_errors=True)
        if not report.is_passing or not self._has_earlier:
            raise CheckpointError(report.problem) from error
        self.accelerator.print(f"WARNING: {report.problem}. Training goes on, the next save tries again")

    def find(self) -> Path | None:
        """The checkpoint to resume from, the same on all ranks. What is damaged or unfinished is cleared away.

        Raises:
            CheckpointError: there are checkpoints, but none is whole.
        """
        found: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            folders.remove_unfinished(self.output_dir)
            if self.config.experiment.resume:
                found = self._look()
        broadcast_object_list(found)
        folder, problem = found
        if problem is not None:
            raise CheckpointError(problem)
        self._has_earlier = folder is not None
        return folder

    def _look(self) -> list[Any]:
        try:
            for line in folders.set_damaged_aside(self.output_dir):
                self.accelerator.print(line)
        except CheckpointError as error:
            return [None, str(error)]
        return [folders.newest_checkpoint(self.output_dir), None]

    def load(self, folder: Path) -> TrainState:
        """Take weights, optimizer, rng, data position and counters from a checkpoint.

        Raises:
            CheckpointError: written by another backend, or unreadable.
        """
        content = folders.read_trainer_file(folder)
        if content["backend"] != self.backend.name:
            raise CheckpointError(
                f"{folder} was written by {content['backend']}, this run uses {self.backend.name}; launch it the same way, "
                f"or start anew from its weights with model.pretrained={folder}"
            )
        if not self.backend.is_sharded:
            self.stage.load(folder / "unwrapped_model")
            others = load_file(folder / "state" / "stage.safetensors")
            if others:
                self.stage.load_state_dict(others, strict=False)
        self.backend.load_state(folder / BACKEND)
        if self.ema is not None and (folder / "state" / "ema.safetensors").is_file():
            self.ema.load_state_dict(load_file(folder / "state" / "ema.safetensors"))
        self.loader.load_state_dict(content["data"])
        _set_rng_states(load_file(folder / "state" / "rng.safetensors"), self.accelerator.process_index)
        self._last_bytes = sum(content.get("files", {}).values()) or None
        fields = {name: content[name] for name in vars(TrainState())}
        return TrainState(**fields)


def _of_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of `stage.model`, under its own names."""
    return {
        name.removeprefix(MODEL_PREFIX): tensor for name, tensor in weights.items() if name.startswith(MODEL_PREFIX)
    }


def _rng_states() -> dict[str, Tensor]:
    """torch's generators of this rank; all other draws follow from the sample."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_rng_states(states: dict[str, Tensor], rank: int) -> None:
    """Set what was saved for this rank; a rank that was not there keeps its own."""
    if f"{rank}.cpu" in states:
        torch.set_rng_state(states[f"{rank}.cpu"])
    if f"{rank}.cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[f"{rank}.cuda"])
