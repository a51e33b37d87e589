# SPDX-License-Identifier: Apache-2.0
"""TensorBoard and Weights & Biases, by configuration; a run that goes on is one run to both."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from unigen.config.schema import Config

WANDB_ID = "wandb_run_id"


def start_trackers(accelerator: Accelerator, config: Config, first_step: int) -> None:
    """Start what `experiment.trackers` names, on the first rank, for a run that goes on after `first_step` steps."""
    if not config.experiment.trackers:
        return
    # TensorBoard hides what an earlier process said of steps that are done again.
    options: dict[str, dict[str, Any]] = {"tensorboard": {"purge_step": first_step + 1}}
    if "wandb" in config.experiment.trackers and accelerator.is_main_process:
        options["wandb"] = _wandb_options(config, first_step)
    with _signals_held():
        accelerator.init_trackers(config.experiment.project, init_kwargs=options)


def _wandb_options(config: Config, first_step: int) -> dict[str, Any]:
    import wandb

    folder = config.experiment.output_dir
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    return {
        "name": config.experiment.name,
        "dir": folder,
        "config": asdict(config),
        "mode": mode,
        "id": _wandb_id(Path(folder), first_step),
        "resume": "allow"
        if mode == "online"
        else None,  # offline it would only warn; `wandb sync` joins what has one id
    }


def _wandb_id(folder: Path, first_step: int) -> str:
    """The id that this run had before; a run that begins anew gets one of its own."""
    file = folder / WANDB_ID
    if first_step > 0 and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    name = secrets.token_hex(4)
    file.write_text(name + "\n", encoding="utf-8")
    return name


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that is started meanwhile does not hear SIGTERM and SIGUSR1: a cluster sends them to all processes of a
    job, and the trackers' own must live until the last step is logged. It ends with its parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
