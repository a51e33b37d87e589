# SPDX-License-Identifier: Apache-2.0
"""How a stage runs on the processes that the launcher started. The loop and the checkpoints know nothing else of it.

`accelerate launch --config_file configs/accelerate/<backend>.yaml` writes its choice into the environment of every process
(ACCELERATE_USE_FSDP, ACCELERATE_USE_DEEPSPEED, ACCELERATE_USE_CPU, ...), and `open_backend` reads it there. accelerate gives
processes, device, precision and trackers; the stage is wrapped with torch's and DeepSpeed's own calls, which are the same ones
on GPUs (nccl) and on the CPU (gloo). accelerate's own wrapping depends on the device: on the CPU it quietly gives DDP.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env, patch_environment
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from unigen.config.schema import Config
from unigen.data.batch import Batch
from unigen.errors import ConfigError
from unigen.training.heartbeat import collective_timeout
from unigen.training.optimizer_state import live_tensors, load_parts, write_part
from unigen.training.stages.stage import Stage

BuildOptimizer = Callable[[Stage], torch.optim.Optimizer]


class Backend(ABC):
    """One way to run a stage on all processes. `prepare` comes first; all ranks make every call together."""

    name: str
    """What a checkpoint says it was written by; only the same name reads its state."""
    is_sharded: bool
    """Whether a rank holds only its part of the optimizer's state."""
    has_whole_weights: bool
    """Whether a rank alone can run the model."""
    can_write_copies = True
    """Whether `live_state` and `write_state` can do the work of `save_state`, so that training goes on meanwhile."""
    optimizer: torch.optim.Optimizer
    """Its `param_groups` hold the learning rates; `update` makes the steps."""
    wrapped: nn.Module

    def __init__(self, accelerator: Accelerator, config: Config) -> None:
        self.accelerator = accelerator
        self._config = config

    def prepare(self, stage: Stage, build_optimizer: BuildOptimizer) -> None:
        """Take over a stage, whole and equal on every rank, with the optimizer that `build_optimizer` makes for it.

        Raises:
            TrainingError: the stage is not spread out as the launcher asked.
        """
        self.stage = stage
        self._wrap(build_optimizer)
        self._trained = [parameter for parameter in stage.parameters() if parameter.requires_grad]

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's forward pass in the precision of the run; losses in float32."""
        with self.accelerator.autocast():
            total, sums = self.wrapped(batch, scales)
        return total.float(), {name: value.float() for name, value in sums.items()}

    def micro_batch(self, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one of the batches whose gradients add up to a step."""
        return nullcontext()

    def backward(self, total: Tensor) -> None:
        """Add the gradient of `total` to the step's, which is the mean over ranks of the sum over batches."""
        total.backward()

    def update(self, max_norm: float) -> Tensor:
        """Clip the gradient to `max_norm` (0 does not clip), take the step and clear the gradient.

        Returns:
            the norm before clipping, the same on all ranks; where it is not finite, no step was taken.
        """
        norm = nn.utils.clip_grad_norm_(self._trained, max_norm if max_norm > 0 else math.inf)
        norm = _plain(norm)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def model_state_dict(self) -> dict[str, Tensor] | None:
        """The whole weights of the stage by name (each once, if tied) on the first rank; None on the others.

        Where `is_sharded` they are copies in host memory, else the very tensors that training changes.
        """
        names = {name for name, _ in chain(self.stage.named_parameters(), self.stage.named_buffers())}
        state = {}
        for name, tensor in self.stage.state_dict(keep_vars=True).items():
            if name in names:
                whole = self._whole(tensor)
                if self.accelerator.is_main_process:
                    state[name] = whole
        return state if self.accelerator.is_main_process else None

    def save_state(self, folder: Path) -> None:
        """Write what `load_state` reads into `folder`, which is there: the optimizer's state, where sharded the weights too."""
        self.write_state(self.live_state(), folder)

    def live_state(self) -> dict[str, Tensor]:
        """What `write_state` is to write on this rank, as tensors that training changes: a copy of them may be written later.

        Only where `can_write_copies`.
        """
        num_parts = self.accelerator.num_processes if self.is_sharded else 1
        return live_tensors(self.stage.named_parameters(), self.optimizer, num_parts, with_weights=self.is_sharded)

    def write_state(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Write this rank's file of `live_state()` or a copy of it. Talks to no other rank, so it may run in a thread."""
        if self.is_sharded or self.accelerator.is_main_process:
            write_part(tensors, folder, self.accelerator.process_index)

    def load_state(self, folder: Path) -> None:
        """Take what `save_state` wrote.

        Raises:
            CheckpointError: files of another run, of a number of ranks that does not fit, or of other parameters.
        """
        load_parts(self.stage.named_parameters(), self.optimizer, folder, with_weights=self.is_sharded)

    @abstractmethod
    def _wrap(self, build_optimizer: BuildOptimizer) -> None:
        """Set `wrapped` and `optimizer`; raise TrainingError if the stage did not come out spread as it should."""

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor.detach()


class ReplicatedBackend(Backend):
    """The whole model on one process, or on each of several whose gradients DDP averages during the backward pass."""

    name = "replicated"
    is_sharded = False
    has_whole_weights = True

    def _wrap(self, build_optimizer: BuildOptimizer) -> None:
        device = self.accelerator.device
        self.wrapped = self.stage.to(device)
        self.optimizer = build_optimizer(self.stage)
        if self.accelerator.num_processes > 1:
            self.wrapped = DistributedDataParallel(
                self.stage,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,  # a second copy of all gradients is saved
            )

    def micro_batch(self, is_last: bool) -> AbstractContextManager[None]:
        """Only the last backward pass of a step averages, bucket by bucket while it still runs."""
        if is_last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()


def open_backend(config: Config) -> Backend:
    """The backend that the launcher's environment asks for, on all the processes that it started.

    Raises:
        ConfigError: a choice that does not exist here, or processes that do not find each other.
    """
    wants_fsdp, wants_zero = (parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
    accelerator = _accelerator(config)
    if not wants_fsdp and not wants_zero:
        return ReplicatedBackend(accelerator, config)
    if not torch.distributed.is_initialized():
        raise ConfigError(
            f"the launcher asks for {'FSDP' if wants_fsdp else 'DeepSpeed'}, but started one process without a process "
            "group; start it with accelerate launch --config_file or torchrun, or take configs/accelerate/single_process.yaml"
        )
    if wants_fsdp:
        from unigen.training.fsdp2 import Fsdp2Backend

        return Fsdp2Backend(accelerator, config)
    from unigen.training.zero import ZeroBackend  # DeepSpeed takes seconds to import

    return ZeroBackend(accelerator, config)


def _accelerator(config: Config) -> Accelerator:
    """Processes, device, precision and trackers; no wrapping is left to it."""
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    is_launched = expected > 1 or "LOCAL_RANK" in os.environ
    with patch_environment(ACCELERATE_USE_FSDP="false", ACCELERATE_USE_DEEPSPEED="false"):
        accelerator = Accelerator(
            # Without a GPU, accelerate takes each of several processes for the only one unless it is told.
            cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or (is_launched and not torch.cuda.is_available()),
            mixed_precision="bf16" if config.training.precision == "bfloat16" else "no",
            log_with=list(config.experiment.trackers) or None,
            project_dir=config.experiment.output_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=collective_timeout(config.experiment.stuck_after_minutes))],
        )
    if accelerator.num_processes != expected:
        raise ConfigError(
            f"the launcher started {expected} processes (WORLD_SIZE), but this one sees {accelerator.num_processes}; "
            "start them with accelerate launch --config_file configs/accelerate/multi_gpu.yaml, or with torchrun"
        )
    return accelerator


def host_copy(tensor: Tensor) -> Tensor:
    """A copy in host memory, also of what lies there already."""
    return torch.empty_like(tensor, device="cpu", requires_grad=False).copy_(tensor.detach())


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that is whole here: the norm of sharded gradients is a DTensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
