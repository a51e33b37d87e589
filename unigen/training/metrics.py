# SPDX-License-Identifier: Apache-2.0
"""Where numbers go: metrics.jsonl always, trackers by configuration, a progress bar or lines for the person who watches."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from unigen.config.schema import Config
from unigen.training.status import Status
from unigen.training.trackers import start_trackers

FILE = "metrics.jsonl"
SHOWN = {"loss/total": "loss", "throughput/tokens_per_second": "tok/s", "throughput/images_per_second": "img/s"}


class MetricsLog:
    """What a run says while it goes on. Leaving the context without an error says in `status.json` how the run ended."""

    def __init__(self, accelerator: Accelerator, config: Config, first_step: int, num_steps: int) -> None:
        self._accelerator = accelerator
        self._is_main = accelerator.is_main_process
        self._folder = Path(config.experiment.output_dir)
        self._path = self._folder / FILE
        self._step = first_step
        self._status = Status("running", first_step, num_steps, accelerator.num_processes)
        if self._is_main:
            self._forget_after(first_step)
            self._status.write(self._folder)
        start_trackers(accelerator, config, first_step)
        has_bar = self._is_main and sys.stderr.isatty()  # a file, such as a cluster's log, gets lines
        self._num_steps = num_steps
        self._bar = tqdm(total=num_steps, initial=first_step, disable=not has_bar, dynamic_ncols=True, unit="step")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if error is not None:  # the trackers see for themselves that the process breaks off
            return
        if self._is_main:
            with suppress(OSError):  # the checkpoint is there, and says as much
                self._status.write_end(self._folder, self._step)
        for tracker in self._accelerator.trackers:  # end_training() would part the ranks too early
            tracker.finish()

    def advance(self) -> None:
        self._step += 1
        self._bar.update()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One line of metrics after `step` steps."""
        if self._is_main:
            self._append(json.dumps({"step": step, **metrics}) + "\n")
            shown: dict[str, Any] = {short: f"{metrics[name]:.4g}" for name, short in SHOWN.items() if name in metrics}
            shown["wait"] = f"{metrics.get('throughput/data_wait_fraction', 0.0):.1%}"
            if "throughput/model_flops_utilization" in metrics:  # only of devices whose peak is known
                shown["MFU"] = f"{metrics['throughput/model_flops_utilization']:.1%}"
            if self._bar.disable:
                self.say(
                    f"step {step} of {self._num_steps}: {', '.join(f'{name} {text}' for name, text in shown.items())}"
                )
            else:
                self._bar.set_postfix(shown, refresh=False)
        self._accelerator.log(metrics, step=step)

    def _append(self, line: str) -> None:
        """A disk that is full costs the line, not the run."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, size)
            self.say(f"WARNING: a line is missing from {self._path}: {error.strerror}")

    def say(self, message: str) -> None:
        """A line for the person at the terminal, without breaking the progress bar."""
        if self._is_main:
            self._bar.write(message)

    def _forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run does again, and a line that a crash cut off."""
        if not self._path.is_file():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                continue
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self._path)
