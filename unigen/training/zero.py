# SPDX-License-Identifier: Apache-2.0
"""DeepSpeed's ZeRO-2 (gradients and optimizer state split over the ranks) and ZeRO-3 (the weights too)."""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor

from unigen.config.schema import Config
from unigen.errors import CheckpointError, ConfigError, TrainingError
from unigen.training.backend import Backend, BuildOptimizer, host_copy
from unigen.training.manifest import check_manifest, write_manifest

STAGES = (2, 3)
TAG = "zero"


class ZeroBackend(Backend):
    """A DeepSpeed engine around the stage. It averages gradients, clips, and skips steps whose norm is not finite."""

    is_sharded = True
    can_write_copies = False

    def __init__(self, accelerator: Accelerator, config: Config) -> None:
        super().__init__(accelerator, config)
        self._settings = _settings(config, accelerator.num_processes)
        self._stage_number = self._settings["zero_optimization"]["stage"]
        self.name = f"zero-{self._stage_number}"
        self.has_whole_weights = self._stage_number < 3

    def _wrap(self, build_optimizer: BuildOptimizer) -> None:
        deepspeed = _import_deepspeed(self.accelerator.device)
        self.optimizer = build_optimizer(self.stage)
        self._engine, *_ = deepspeed.initialize(model=self.stage, optimizer=self.optimizer, config=self._settings)
        self._check()
        self.wrapped = self._engine
        if self._stage_number == 3:
            for parameter in self.stage.directly_read_parameters():
                deepspeed.zero.register_external_parameter(self.stage, parameter)

    def _check(self) -> None:
        found = self._engine.zero_optimization_stage()
        if found != self._stage_number:
            raise TrainingError(f"the launcher asks for ZeRO-{self._stage_number}, but DeepSpeed runs stage {found}")
        parts = self._engine.dp_world_size
        if parts != self.accelerator.num_processes:
            raise TrainingError(f"DeepSpeed splits over {parts} ranks, but there are {self.accelerator.num_processes}")

    @contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(is_last)
        yield

    def backward(self, total: Tensor) -> None:
        self._engine.backward(total)

    def update(self, max_norm: float) -> Tensor:
        """DeepSpeed clips to the `gradient_clipping` that it was built with, which is `max_norm`."""
        assert max_norm == self._settings["gradient_clipping"]
        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), device=self.accelerator.device).float()

    def save_state(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        write_manifest(folder, self._run_folder, self.accelerator)

    def live_state(self) -> dict[str, Tensor]:
        raise NotImplementedError("DeepSpeed writes its own files, from the tensors that training changes")

    def write_state(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        raise NotImplementedError("DeepSpeed writes its own files, from the tensors that training changes")

    def load_state(self, folder: Path) -> None:
        check_manifest(folder, self._run_folder, self.accelerator)  # before anything is unpickled
        found, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if found is None:
            raise CheckpointError(f"DeepSpeed finds nothing to load in {folder}; take an older checkpoint")

    @property
    def _run_folder(self) -> Path:
        return Path(self._config.experiment.output_dir)

    def _whole(self, tensor: Tensor) -> Tensor:
        """In float32 where the ranks keep it so, whatever the weights compute in."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        if tensor.requires_grad:
            return host_copy(safe_get_full_fp32_param(tensor))
        with deepspeed.zero.GatheredParameters([tensor], enabled=self._stage_number == 3):
            return host_copy(tensor)


def _import_deepspeed(device: torch.device) -> ModuleType:
    is_cpu = device.type == "cpu"
    if is_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read by the import
    import deepspeed

    if is_cpu:
        # It would be compiled at the start, for collectives of inference that training never calls.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _settings(config: Config, num_processes: int) -> dict[str, Any]:
    """DeepSpeed's configuration: what the launcher wrote into the environment, and what the run's configuration decides.

    Raises:
        ConfigError: a file of DeepSpeed's that decides what the run's configuration does, or a stage that is not run here.
    """
    settings = _without_auto(copy.deepcopy(DeepSpeedPlugin().deepspeed_config))
    stage = settings["zero_optimization"].get("stage")
    if stage not in STAGES:
        raise ConfigError(
            f"the launcher asks for ZeRO stage {stage}; set zero_stage to {' or '.join(map(str, STAGES))}"
        )
    for section, key in (("optimizer", "optimizer"), ("scheduler", "schedule"), ("fp16", "training.precision")):
        if settings.get(section, {}).get("enabled", True) and section in settings:
            raise ConfigError(f"DeepSpeed's configuration has a section {section!r}; drop it, {key} decides that")
    is_bfloat16 = config.training.precision == "bfloat16"
    return {
        **settings,
        # Batches are packed, and their number differs from step to step: the loop counts them, not DeepSpeed.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": num_processes,
        "gradient_clipping": config.training.gradient_clipping,
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "bf16": {"enabled": is_bfloat16},
        # Gradients are added up and averaged in float32 also where the weights compute in bfloat16.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
    }


def _without_auto(section: dict[str, Any]) -> dict[str, Any]:
    """Values that accelerate leaves for its own wrapping to fill in."""
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if value != "auto"
    }
