# SPDX-License-Identifier: Apache-2.0
"""Ranks that start in a moment: they are forked from a server that has imported everything, with the launcher's environment.

What the launcher writes into it is made by accelerate itself from the shipped configs/accelerate files; that the launcher's own
processes run the same is what `launched` is for.
"""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from tests.distributed import observed
from tests.world import quiet_environment

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
Run = Callable[[Sequence[str]], int]
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed chooses its device when the server imports it
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.distributed.observed", "deepspeed"])


@dataclass(frozen=True)
class Outcome:
    codes: list[int]
    """Exit code of each rank; -9 where it was killed."""
    output: str


def start_ranks(
    accelerate_config: str | Path | None,
    number: int,
    log: Path,
    *arguments: str | Path,
    kill: str = "",
    timeout: float = 280,
    run: Run = observed.run,
) -> Outcome:
    """Run `unigen <arguments>` on each of `number` ranks of a backend. If one dies, so do the others, as under a launcher.

    Args:
        accelerate_config: a file, or the name of one of configs/accelerate; None is torchrun without a GPU.
        kill: see `observed.KILL`.
        run: a function of a module, in place of the command.
    """
    shared = {**launcher_environment(accelerate_config, number), observed.KILL: kill}
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    ranks = [SERVER.Process(target=_rank, args=(run, shared, rank, log, arguments)) for rank in range(number)]
    for rank in ranks:
        rank.start()
    _wait(ranks, timeout)
    return Outcome(
        [rank.exitcode if rank.exitcode is not None else -9 for rank in ranks], log.read_text(errors="replace")
    )


def launched(accelerate_config: str | Path, number: int, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """The same through `accelerate launch`, whose processes import everything for themselves."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
    ports = ["--main_process_port", str(_free_port())]
    return subprocess.run(
        [
            *launcher,
            str(CONFIGS / accelerate_config),
            *("--num_processes", str(number)),
            *ports,
            *("-m", "tests.distributed.observed"),
            *map(str, arguments),
        ],
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def launcher_environment(accelerate_config: str | Path | None, number: int) -> dict[str, str]:
    """What the launcher tells its processes, but for their rank."""
    if accelerate_config == "single_process.yaml":
        return quiet_environment()  # a process like any other
    world = {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    if accelerate_config is None:
        quiet = {name: value for name, value in quiet_environment().items() if not name.startswith("ACCELERATE_")}
        return {**quiet, **world, "CUDA_VISIBLE_DEVICES": ""}
    words = ["--config_file", str(CONFIGS / accelerate_config), "--num_processes", str(number), "unigen"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    return {**environment, **quiet_environment(), **world}


def zero3_file(folder: Path) -> Path:
    """ZeRO-3 that keeps no weight whole between the steps; by default it would keep all of so small a model."""
    settings = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    (folder / "zero3.json").write_text(json.dumps(settings))
    content = yaml.safe_load((CONFIGS / "zero3.yaml").read_text())
    content["deepspeed_config"] = {"deepspeed_config_file": str(folder / "zero3.json"), "zero3_init_flag": False}
    del content["mixed_precision"]
    path = folder / "zero3.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _rank(run: Run, environment: Mapping[str, str], rank: int, log: Path, arguments: tuple[str | Path, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if "WORLD_SIZE" in environment:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    # A forked process makes torch's pool of threads anew; that must not begin in several threads at once.
    torch.set_num_threads(1)
    sys.exit(run([str(word) for word in arguments]))


def _wait(ranks: list[BaseProcess], timeout: float) -> None:
    alive = list(ranks)
    while alive:
        ended = wait([rank.sentinel for rank in alive], timeout)
        done = [rank for rank in alive if rank.sentinel in ended]
        for rank in done:
            rank.join()
            alive.remove(rank)
        if not done or any(rank.exitcode for rank in done):
            for rank in alive:
                rank.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
