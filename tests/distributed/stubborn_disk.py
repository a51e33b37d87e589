# SPDX-License-Identifier: Apache-2.0
"""`unigen` on a disk that plays tricks on the second rank's part of the state.

The part of checkpoint 2 is held back until two more steps are done; there is no room for that of checkpoint 4.
"""

import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from unigen.cli.main import main
from unigen.training.fsdp2 import Fsdp2Backend

HELD = "held.json"
"""In the run's folder: what the second rank saw when it went on."""


def run(arguments: Sequence[str]) -> int:
    honest = Fsdp2Backend.write_state

    def write_state(self: Fsdp2Backend, tensors: Mapping[str, Tensor], folder: Path) -> None:
        assert self.accelerator.num_processes == 2
        name, output_dir = folder.parents[1].name, folder.parents[2]
        if self.accelerator.process_index == 1 and name == "checkpoint-2.tmp":
            _hold(output_dir)
        if self.accelerator.process_index == 1 and name == "checkpoint-4.tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(self, tensors, folder)

    Fsdp2Backend.write_state = write_state  # type: ignore[method-assign]
    return main(arguments)


def _hold(output_dir: Path) -> None:
    file, deadline = output_dir / "metrics.jsonl", time.monotonic() + 120
    step = 0
    while step < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
        lines = file.read_text().splitlines(keepends=True)
        step = max(json.loads(line)["step"] for line in lines if line.endswith("\n"))
    seen = {"step": step, "checkpoints": sorted(path.name for path in output_dir.glob("checkpoint-*"))}
    (output_dir / HELD).write_text(json.dumps(seen))
