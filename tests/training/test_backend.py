# SPDX-License-Identifier: Apache-2.0
"""Which backend a run gets, and the refusals: never another one than was asked for, without a word."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.world import TinyWorld, forget_last_run, train
from unigen.config.load import load_config
from unigen.config.schema import Config
from unigen.errors import CheckpointError, ConfigError, TrainingError
from unigen.training import backend, fsdp2
from unigen.training.backend import ReplicatedBackend, open_backend
from unigen.training.fsdp2 import Fsdp2Backend
from unigen.training.optimizer import build_optimizer
from unigen.training.stages.registry import build_stage
from unigen.training.zero import ZeroBackend


@pytest.fixture
def config(tiny_world: TinyWorld, tmp_path: Path) -> Config:
    forget_last_run()
    return load_config(tiny_world.config(tmp_path), ())


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_sharded_backend_without_a_process_group_is_refused_in_one_line(
    name: str,
    tiny_world: TinyWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`accelerate launch --cpu` with such a file starts one process and leaves the rest to luck."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    assert train(tiny_world.config(tmp_path)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "process group" in error
    assert "accelerate launch --config_file" in error


def test_processes_that_do_not_find_each_other_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would take itself for the only one and train on all the data."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(backend, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(ConfigError, match=r"2 processes.*sees 1"):
        open_backend(config)


def test_one_process_without_a_launcher_holds_everything(config: Config) -> None:
    found = open_backend(config)
    assert isinstance(found, ReplicatedBackend)
    assert (found.accelerator.num_processes, found.is_sharded, found.has_whole_weights) == (1, False, True)


def test_fsdp2_that_leaves_weights_whole_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setattr(fsdp2, "init_device_mesh", lambda *_: None)
    monkeypatch.setattr(fsdp2, "fully_shard", lambda module, **_: module)
    accelerator = open_backend(config).accelerator
    stage = build_stage(config, accelerator.device)
    with pytest.raises(TrainingError, match=r"asks for FSDP2, but .* are not sharded"):
        Fsdp2Backend(accelerator, config).prepare(stage, lambda one: build_optimizer(one, config.optimizer))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("FSDP_VERSION", "1", "fsdp_version: 1"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "training.recompute"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading"),
    ],
)
def test_settings_of_fsdp_that_are_not_followed_are_refused(
    key: str, value: str, named: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=named):
        Fsdp2Backend(open_backend(config).accelerator, config)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"zero_optimization": {"stage": 1}}, "zero_stage to 2 or 3"),
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Adam"}}, "'optimizer'"),
        ({"zero_optimization": {"stage": 2}, "scheduler": {"type": "WarmupLR"}}, "'scheduler'"),
        ({"zero_optimization": {"stage": 2}, "fp16": {"enabled": True}}, "training.precision"),
    ],
)
def test_settings_of_deepspeed_that_the_run_decides_are_refused(
    content: dict[str, Any], named: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps(content))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    with pytest.raises(ConfigError, match=named):
        ZeroBackend(open_backend(config).accelerator, config)


def test_a_copy_of_the_state_that_is_written_later_is_the_state_of_its_moment(config: Config, tmp_path: Path) -> None:
    made = open_backend(config)
    stage = build_stage(config, made.accelerator.device)
    made.prepare(stage, lambda one: build_optimizer(one, config.optimizer))
    _step(made)
    copies = {name: tensor.clone() for name, tensor in made.live_state().items()}
    _step(made)
    made.write_state(copies, tmp_path)
    made.load_state(tmp_path)
    found = made.live_state()
    assert found.keys() == copies.keys()
    assert all(torch.equal(found[name], copies[name]) for name in copies)


def _step(made: backend.Backend) -> None:
    made.backward(sum((one.square().sum() for one in made.stage.parameters()), torch.zeros(())))
    assert float(made.update(1.0)) > 1.0


def test_deepspeed_is_let_at_no_file_that_the_run_did_not_write(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    opened: list[str] = []
    made = ZeroBackend(open_backend(config).accelerator, config)
    made._engine = SimpleNamespace(load_checkpoint=lambda folder, tag: opened.append(folder))
    (tmp_path / "mp_rank_00_model_states.pt").write_bytes(b"a pickle that somebody sent")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        made.load_state(tmp_path)
    assert opened == []
