# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: `checkpoint-<step>/unwrapped_model` (the model) and `checkpoint-<step>/state` (what resuming needs).

Everything is written into `checkpoint-<step>.tmp`, which is renamed when it is whole: a half-written one is never taken for
a checkpoint. Our own state is JSON and safetensors. Backends that shard (DeepSpeed, FSDP2) write their own files beside it.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigen.config.load import save_config
from unigen.config.schema import Config
from unigen.data.loader import StepLoader, merge_states
from unigen.environment import git_commit, package_versions
from unigen.errors import CheckpointError
from unigen.training.ema import Ema
from unigen.training.stages.stage import Stage

FORMAT = 1
MODEL_PREFIX = "model."


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


def is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)


def newest_checkpoint(output_dir: Path) -> Path | None:
    """The whole checkpoint with the largest step."""
    found = [path for path in output_dir.glob("checkpoint-*") if (path / "state" / "trainer.json").is_file()]
    return max((path for path in found if _step_of(path) >= 0), key=_step_of, default=None)


def _step_of(path: Path) -> int:
    digits = path.name.removeprefix("checkpoint-")
    return int(digits) if digits.isdigit() else -1


@dataclass
class Checkpointer:
    """Writes and reads the checkpoints of one run. All ranks call it."""

    accelerator: Accelerator
    config: Config
    stage: Stage
    wrapped: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loader: StepLoader[Any]
    ema: Ema | None

    @property
    def output_dir(self) -> Path:
        return Path(self.config.experiment.output_dir)

    def save(self, state: TrainState) -> Path:
        """Write the checkpoint of `state.step`, prune old ones, and return its folder."""
        folder = self.output_dir / f"checkpoint-{state.step}"
        temporary = folder.with_name(folder.name + ".tmp")
        positions = gather_object([self.loader.state_dict()])
        rng = gather_object([_rng_states()])
        weights = self._weights()
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "state").mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        if is_sharded(self.accelerator):
            self.accelerator.save_state(str(temporary / "state" / "backend"))
        if self.accelerator.is_main_process:
            self._write(temporary, weights, state, merge_states(positions), rng)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            self._prune()
        self.accelerator.wait_for_everyone()
        return folder

    def _weights(self) -> dict[str, Tensor] | None:
        """The whole state dict on the first rank where the backend shards it; None where the stage holds it itself."""
        return self.accelerator.get_state_dict(self.wrapped) if is_sharded(self.accelerator) else None

    def _write(
        self,
        folder: Path,
        weights: dict[str, Tensor] | None,
        state: TrainState,
        position: dict[str, Any],
        rng: list[dict[str, Tensor]],
    ) -> None:
        model_weights = None
        if weights is not None:
            model_weights = {
                name.removeprefix(MODEL_PREFIX): tensor
                for name, tensor in weights.items()
                if name.startswith(MODEL_PREFIX)
            }
        self.stage.save(folder / "unwrapped_model", model_weights)
        if self.ema is not None:
            with self.ema.applied():
                self.stage.save(folder / "ema_model")
            save_file(self.ema.state_dict(), folder / "state" / "ema.safetensors")
        if weights is None:
            _save_optimizer(self.optimizer, folder / "state")
            others = {
                name: tensor.contiguous()
                for name, tensor in self.stage.state_dict().items()
                if not name.startswith(MODEL_PREFIX)
            }
            save_file(others, folder / "state" / "stage.safetensors")
        states = {f"{rank}.{kind}": one for rank, part in enumerate(rng) for kind, one in part.items()}
        save_file(states, folder / "state" / "rng.safetensors")
        save_config(self.config, folder / "config.yaml")
        environment = {"git_commit": git_commit(), "packages": package_versions()}
        (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
        content = {"format": FORMAT, "backend": str(self.accelerator.distributed_type), "data": position, **vars(state)}
        (folder / "state" / "trainer.json").write_text(json.dumps(content) + "\n", encoding="utf-8")

    def _prune(self) -> None:
        keep = self.config.experiment.keep_last
        if keep <= 0:
            return
        found = sorted((path for path in self.output_dir.glob("checkpoint-*") if _step_of(path) >= 0), key=_step_of)
        for old in found[:-keep]:
            shutil.rmtree(old)

    def find(self) -> Path | None:
        """The checkpoint to resume from, the same on all ranks."""
        if not self.config.experiment.resume:
            return None
        found = [newest_checkpoint(self.output_dir)]
        broadcast_object_list(found)
        return found[0]

    def load(self, folder: Path) -> TrainState:
        """Take weights, optimizer, rng, data position and counters from a checkpoint.

        Raises:
            CheckpointError: written by another backend, or unreadable.
        """
        content = json.loads((folder / "state" / "trainer.json").read_text(encoding="utf-8"))
        backend = str(self.accelerator.distributed_type)
        if is_sharded(self.accelerator) or (folder / "state" / "backend").is_dir():
            if content["backend"] != backend:
                raise CheckpointError(
                    f"{folder} was written by {content['backend']}, this run uses {backend}; launch it the same way, "
                    f"or start anew from its weights with model.pretrained={folder}"
                )
            self.accelerator.load_state(str(folder / "state" / "backend"))
        else:
            self.stage.load(folder / "unwrapped_model")
            self.stage.load_state_dict(load_file(folder / "state" / "stage.safetensors"), strict=False)
            _load_optimizer(self.optimizer, folder / "state")
        if self.ema is not None and (folder / "state" / "ema.safetensors").is_file():
            self.ema.load_state_dict(load_file(folder / "state" / "ema.safetensors"))
        self.loader.load_state_dict(content["data"])
        _set_rng_states(load_file(folder / "state" / "rng.safetensors"), self.accelerator.process_index)
        fields = {name: content[name] for name in vars(TrainState())}
        return TrainState(**fields)


def _save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    content = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": value.contiguous() if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in content["state"].items()
        for name, value in values.items()
    }
    save_file(tensors, folder / "optimizer.safetensors")
    groups = [{name: value for name, value in group.items() if name != "betas"} for group in content["param_groups"]]
    (folder / "optimizer.json").write_text(json.dumps(groups) + "\n", encoding="utf-8")


def _load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    groups = json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, field_name = name.partition(".")
        states.setdefault(int(index), {})[field_name] = tensor
    here = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in here]:
        raise CheckpointError(
            f"{folder} was written with other trained parameters; start in a new experiment.output_dir"
        )
    merged = [{**now, **then} for now, then in zip(here, groups, strict=True)]
    optimizer.load_state_dict({"state": states, "param_groups": merged})


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
