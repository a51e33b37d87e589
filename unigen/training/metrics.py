# SPDX-License-Identifier: Apache-2.0
"""Where numbers go: metrics.jsonl always, trackers by configuration, a progress bar on the first rank."""

import json
import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

FILE = "metrics.jsonl"
SHOWN = {"loss/total": "loss", "throughput/tokens_per_second": "tok/s", "throughput/images_per_second": "img/s"}


class MetricsLog:
    def __init__(self, accelerator: Accelerator, output_dir: Path, first_step: int, num_steps: int) -> None:
        self._accelerator = accelerator
        self._is_main = accelerator.is_main_process
        self._path = output_dir / FILE
        if self._is_main:
            self._forget_after(first_step)
        self._bar = tqdm(
            total=num_steps, initial=first_step, disable=not self._is_main, dynamic_ncols=True, unit="step"
        )

    def advance(self) -> None:
        self._bar.update()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One line of metrics after `step` steps."""
        if self._is_main:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            shown: dict[str, Any] = {short: f"{metrics[name]:.4g}" for name, short in SHOWN.items() if name in metrics}
            shown["wait"] = f"{metrics.get('throughput/data_wait_fraction', 0.0):.1%}"
            shown["MFU"] = f"{metrics.get('throughput/model_flops_utilization', 0.0):.1%}"
            self._bar.set_postfix(shown, refresh=False)
        self._accelerator.log(metrics, step=step)

    def say(self, message: str) -> None:
        """A line for the person at the terminal, without breaking the progress bar."""
        if self._is_main:
            self._bar.write(message)

    def close(self) -> None:
        self._bar.close()
        self._accelerator.end_training()

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
