# SPDX-License-Identifier: Apache-2.0
"""`unigen` with a witness: every rank writes how it was really run to `<output_dir>/rank-<n>.json`.

`python -m tests.distributed.observed train CONFIG.yaml key=value ...` is what a launcher starts in place of `python -m unigen`.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from unigen.cli.main import main
from unigen.data.batch import Sample
from unigen.training import loop
from unigen.training.metrics import MetricsLog
from unigen.training.stages.policy import PolicyStage
from unigen.training.stages.stage import Stage

KILL = "UNIGEN_TEST_KILL"
"""Environment: `after:<step>` or `saving:<step>`; every rank that comes there dies as by kill -9."""


class ObservedTrainer(loop.Trainer):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._keys: list[list[str]] = []
        self._tasks: list[list[str]] = []

    def _agree(self, samples: Sequence[Sample], *others: Any) -> Any:
        self._keys.append([sample.key for sample in samples])
        # What a policy has terms of is known once it has acted.
        self._tasks.append([] if isinstance(self.stage, PolicyStage) else sorted(self.stage.counts(samples)))
        return super()._agree(samples, *others)

    def run(self, *arguments: Any) -> int:
        code = super().run(*arguments)
        rank = self.accelerator.process_index
        facts = {
            "world_size": self.accelerator.num_processes,
            "backend": self.backend.name,
            "wrapper": type(self.backend.wrapped).__name__,
            "placements": _placements(self.stage),
            "local_weights": sum(_local_size(one) for one in self.stage.parameters()),
            "weights": sum(_whole_size(one) for one in self.stage.parameters()),
            "optimizer_values": _optimizer_values(self.backend.optimizer),
            "keys": self._keys,
            "tasks": self._tasks,
        }
        (self.output_dir / f"rank-{rank}.json").write_text(json.dumps(facts))
        return code


def _placements(stage: Stage) -> dict[str, str]:
    return {
        name: str(parameter.placements)
        for name, parameter in stage.named_parameters()
        if isinstance(parameter, DTensor)
    }


def _local_size(parameter: Any) -> int:
    if hasattr(parameter, "ds_tensor"):  # ZeRO-3: what this rank keeps between the steps
        return parameter.ds_tensor.numel()
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def _whole_size(parameter: Any) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())


def _optimizer_values(optimizer: Any) -> int:
    averages = [state.get("exp_avg", state.get("momentum_buffer")) for state in optimizer.state.values()]
    return sum((one.to_local() if isinstance(one, DTensor) else one).numel() for one in averages)


@dataclass(frozen=True)
class Death:
    """A moment at which a process ends without having a say in it."""

    kind: str
    step: int

    def lie_in_wait(self) -> None:
        if self.kind == "saving":
            replace = os.replace

            def replace_or_die(source: Any, target: Any, **options: Any) -> None:
                if Path(target).name == f"checkpoint-{self.step}":
                    _die()
                replace(source, target, **options)

            os.replace = replace_or_die  # type: ignore[assignment]
            return
        write = MetricsLog.write

        def write_and_die(log: MetricsLog, step: int, metrics: dict[str, float]) -> None:
            write(log, step, metrics)
            if step == self.step:
                _die()

        MetricsLog.write = write_and_die  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: Sequence[str]) -> int:
    loop.Trainer = ObservedTrainer  # type: ignore[misc]
    if os.environ.get(KILL):
        kind, _, step = os.environ[KILL].partition(":")
        Death(kind, int(step)).lie_in_wait()
    return main(list(arguments))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
