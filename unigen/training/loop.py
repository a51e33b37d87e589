# SPDX-License-Identifier: Apache-2.0
"""The one training loop. It knows no objective: a stage makes batches of samples and losses of batches.

One global step: this rank's samples -> updates, of each the batches -> frozen encoders -> forward and backward of each batch ->
one step of the optimizer. Most stages have one update a step; those that learn from rewards may have several of their rollouts.
Losses are sums divided by the number of their terms over all ranks and all batches of the step, so neither packing nor the
number of ranks changes them (in the stages that train on rows; contrastive and codebook terms belong to a forward pass).
"""

import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from unigen.config.load import save_config
from unigen.config.schema import Config
from unigen.data.batch import Sample
from unigen.data.lanes import WeightedSource
from unigen.data.loader import StepLoader
from unigen.data.mixture import SampleStream, epoch_steps
from unigen.data.sources import open_mixture, task_sizes
from unigen.data.staging import stage_shards
from unigen.errors import ConfigError, TrainingError
from unigen.training.backend import open_backend
from unigen.training.checkpoint import Checkpointer, SaveReport, TrainState
from unigen.training.compilation import compile_blocks
from unigen.training.ema import Ema
from unigen.training.heartbeat import Heartbeat
from unigen.training.metrics import MetricsLog
from unigen.training.optimizer import build_optimizer, freeze
from unigen.training.recompute import resolve_recompute, set_recompute
from unigen.training.save_policy import TimeLimit
from unigen.training.schedule import learning_rate_factor
from unigen.training.signals import REQUEUE_EXIT_CODE, StopRequest, ask_for_requeue, forget_requeue
from unigen.training.speed import SpeedMeter, Stopwatch
from unigen.training.stages.registry import build_stage
from unigen.training.stages.stage import RunStart, TrainingBatch
from unigen.training.validation import ValidationImages

MOST_NOTES = 8
"""Lines that a step may write for who watches."""


@dataclass(frozen=True)
class _Word:
    """What one rank tells the others before a step."""

    updates: list[tuple[dict[str, int], int]]
    """Of each update the terms of each loss, and how many batches there are."""
    measured: list[Mapping[str, tuple[float, int]]]
    notes: list[str]
    stop: str | None
    """Why this rank asks to stop, if it does."""
    save: bool
    """Its clock says that a checkpoint is due; the first rank's is believed."""
    save_report: SaveReport


@dataclass(frozen=True)
class UpdatePlan:
    """One update of the weights, and this rank's share of it."""

    counts: dict[str, int]
    """Terms of each loss, over all ranks."""
    batches: list[TrainingBatch]
    """As many as on the rank that has the most; empty ones fill up."""


@dataclass(frozen=True)
class StepPlan:
    """What all ranks agreed on before a step."""

    updates: list[UpdatePlan]
    measured: dict[str, tuple[float, int]]
    """Metrics that the ranks found on the way: sums and numbers."""
    stop: str | None
    """Why some rank was told to stop after this step, if one was."""
    save: bool
    """A checkpoint is due after this step."""


class Trainer:
    """Builds a run from its configuration and carries it to the end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.output_dir = Path(config.experiment.output_dir)
        self.backend = open_backend(config)
        self.accelerator = self.backend.accelerator
        torch.set_float32_matmul_precision("high" if config.training.enable_tf32 else "highest")
        self.time_limit = TimeLimit.of(config.experiment, os.environ, time.time())
        if self.accelerator.is_main_process:
            self._begin_folder()
        if self.backend.is_sharded:
            _refuse_what_needs_whole_weights(config)
        self.stage = build_stage(config, self.accelerator.device).train()  # loaded models come in eval mode
        freeze(self.stage, config.training.freeze)
        self.recompute = resolve_recompute(
            config, self.backend.name, self.accelerator.num_processes, self.accelerator.device
        )
        set_recompute(self.stage, self.recompute)
        mixture, self.num_steps = self._data()
        self.loader = self._open_loader(mixture)
        self.backend.prepare(self.stage, lambda stage: build_optimizer(stage, config.optimizer))
        if config.training.compile == "blocks":
            compile_blocks(self.stage, self.backend.name)
        self.stage.begin(RunStart(self.output_dir, self.num_steps, self.backend, lambda: self._open_loader(mixture)))
        self._peak_rates = [group["lr"] for group in self.backend.optimizer.param_groups]
        decay = config.training.ema_decay
        self.ema = Ema(self.stage, decay) if decay else None
        self.state = TrainState()
        self.speed = SpeedMeter()
        self.checkpoints = Checkpointer(self.backend, config, self.stage, self.loader, self.ema)

    def run(self, stop: StopRequest) -> int:
        """Train to the last step, or to that in which `stop` is set; returns the exit code of the process."""
        found = self.checkpoints.find()
        if found is not None:
            self.state = self.checkpoints.load(found)
        validation = ValidationImages(self.config, self.stage, self.backend, self.output_dir)
        with self._heartbeat() as heart:
            with MetricsLog(self.accelerator, self.config, self.state.step, self.num_steps) as log:
                if found is not None:
                    log.say(f"going on from {found}")
                if self.config.training.recompute == "auto":
                    log.say(f"training.recompute=auto: {self.recompute}")
                for metrics in self._steps(stop):
                    log.advance()
                    if metrics:
                        log.write(self.state.step, metrics)
                    validation.draw_if_due(self.state.step)
                    heart.beat(self.state.step)
                self.checkpoints.finish()
                log.say(f"data: {self.loader.faults.describe() or 'no bad records'}")
                is_stopped = self.state.step < self.num_steps
                if is_stopped:
                    log.say(f"stopped after step {self.state.step} ({stop.reason}); saved, and to be started again")
            if is_stopped and self.accelerator.is_main_process:
                ask_for_requeue(self.output_dir)
            self.accelerator.wait_for_everyone()  # a launcher ends all ranks as soon as one has ended
        self.accelerator.state.destroy_process_group()
        return REQUEUE_EXIT_CODE if is_stopped else 0

    def _begin_folder(self) -> None:
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            save_config(self.config, self.output_dir / "config.yaml")
            forget_requeue(self.output_dir)
        except OSError as error:
            raise ConfigError(
                f"experiment.output_dir: cannot write into {self.output_dir} ({error.strerror}); name a folder of your own"
            ) from error

    def _heartbeat(self) -> Heartbeat:
        life = [uuid.uuid4().hex]
        broadcast_object_list(life)
        minutes = self.config.experiment.stuck_after_minutes
        rank, num_ranks = self.accelerator.process_index, self.accelerator.num_processes
        stuck_after = None if minutes is None else 60 * minutes
        return Heartbeat(self.output_dir, rank, num_ranks, life[0], self.state.step, stuck_after)

    def _data(self) -> tuple[dict[str, list[WeightedSource]], int]:
        config, wanted = self.config, self.config.training
        staged = stage_shards(config.data)
        if staged is not None:
            self.accelerator.print(staged)
        mixture = open_mixture(config.data, config.experiment.seed, config.model)
        steps = wanted.steps
        if steps is None:
            epoch = epoch_steps(task_sizes(mixture), wanted.samples_per_step, config.data.epoch_ends)
            steps = max(1, math.ceil(epoch * wanted.epochs))
        return mixture, steps

    def _open_loader(self, mixture: dict[str, list[WeightedSource]]) -> StepLoader[Sample]:
        config = self.config
        stream = SampleStream(
            mixture,
            config.training.samples_per_step,
            self.stage.prepare,
            lanes=config.data.lanes,
            seed=config.experiment.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=config.data.num_workers,
            shuffle_block=config.data.shuffle_block,
        )
        return StepLoader(
            stream, prefetch_steps=config.data.prefetch_steps, max_bad_fraction=config.data.max_bad_fraction
        )

    def _steps(self, stop: StopRequest) -> Iterator[dict[str, float]]:
        """Do the steps that are left; yields metrics, empty but for every `log_every`-th step, the first, and those saved."""
        watch, window = Stopwatch(), _Window()
        every = self.config.experiment.log_every
        steps = iter(self.loader)
        while self.state.step < self.num_steps:
            samples = next(steps)
            waited = watch.lap()
            plan = self._agree(samples, stop)
            window.measure(plan.measured)
            for update in plan.updates:
                window.add(update.counts, *self._update(update))
            self.state.step += 1
            seconds = waited + watch.lap()
            self.speed.count_step(len(samples), seconds, waited)
            self.state.seconds += seconds
            self.state.num_samples += len(samples) * self.accelerator.num_processes
            saves = plan.save or plan.stop is not None or self.state.step == self.num_steps
            # Before a checkpoint too: a run that goes on from it begins a new mean, and no step may be left out of all.
            is_due = saves or self.state.step % every == 0 or self.state.step == 1
            yield self._metrics(window) if is_due else {}
            if saves:
                self.checkpoints.save(self.state)
            if plan.stop is not None:
                stop.reason = plan.stop
                return
            watch.lap()

    def _agree(self, samples: Sequence[Any], stop: StopRequest) -> StepPlan:
        """Sum the counts over ranks, take the largest number of batches; any rank may stop all, the first one's clock rules."""
        updates = self.stage.updates(samples)
        assert len(updates) == self.stage.num_updates, "all ranks have as many"
        reason = "the job's time limit is near" if self.time_limit.is_near(time.time()) else stop.reason
        word = _Word(
            updates=[(update.counts, len(update.batches)) for update in updates],
            measured=[update.measured for update in updates],
            notes=[note for update in updates for note in update.notes],
            stop=reason,
            save=self.checkpoints.is_due(self.state.step + 1),
            save_report=self.checkpoints.report(),
        )
        told: list[_Word] = gather_object([word])
        self.checkpoints.hear([word.save_report for word in told])
        for note in [note for word in told for note in word.notes][:MOST_NOTES]:
            self.accelerator.print(f"step {self.state.step + 1}: {note}")
        return StepPlan(
            updates=[
                self._plan(list(update.batches), [word.updates[number] for word in told])
                for number, update in enumerate(updates)
            ],
            measured=_summed([one for word in told for one in word.measured]),
            stop=next((word.stop for word in told if word.stop is not None), None),
            save=told[0].save,
        )

    def _plan(self, batches: list[TrainingBatch], told: Sequence[tuple[dict[str, int], int]]) -> UpdatePlan:
        names = dict.fromkeys(name for counts, _ in told for name in counts)
        total = {name: sum(counts.get(name, 0) for counts, _ in told) for name in names}
        missing = max(num_batches for _, num_batches in told) - len(batches)
        return UpdatePlan(total, [*batches, *(self.stage.empty_batch() for _ in range(missing))])

    def _update(self, plan: UpdatePlan) -> tuple[dict[str, Tensor], Tensor]:
        """One update; returns the summed losses of this rank and the gradient's norm."""
        scales = self._scales(plan)
        self._set_learning_rate()
        sums: dict[str, Tensor] = {}
        totals = []
        for number, batch in enumerate(plan.batches, start=1):
            with self.backend.micro_batch(is_last=number == len(plan.batches)):
                total, parts = self.backend.forward(self.stage.encode(batch.to(self.accelerator.device)), scales)
                self.backend.backward(total)
            self.speed.count_batch(batch, self.stage.training_flops(batch))
            totals.append(total.detach())
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value
        return sums, self._take_step(plan, totals)

    def _scales(self, plan: UpdatePlan) -> dict[str, float]:
        """Factor of each loss's sum. Gradients are averaged over ranks, hence the number of processes."""
        weights, ranks = self.stage.loss_weights(), self.accelerator.num_processes
        return {name: weights.get(name, 1.0) * ranks / count for name, count in plan.counts.items() if count}

    def _take_step(self, plan: UpdatePlan, totals: list[Tensor]) -> Tensor:
        """Take the step; one whose gradient is not finite is skipped and counted."""
        norm = self.backend.update(self.config.training.gradient_clipping)
        if not bool(torch.isfinite(norm)):
            self._report_skipped(plan, totals)
        elif self.ema is not None:
            self.ema.update()
        return norm

    def _report_skipped(self, plan: UpdatePlan, totals: list[Tensor]) -> None:
        self.state.num_non_finite += 1
        step, limit = self.state.step + 1, self.config.training.max_non_finite_steps
        bad = [batch.keys for batch, total in zip(plan.batches, totals, strict=True) if not bool(torch.isfinite(total))]
        # All ranks come here together: they judge the same norm. Samples of empty batches have no key.
        told = gather_object([(self.accelerator.process_index, key) for group in bad for key in group if key])
        shown = ", ".join(f"{key} (rank {rank})" for rank, key in told[:8])
        more = f", ... ({len(told)} in all)" if len(told) > 8 else ""
        what = f"the loss is not finite, samples {shown}{more}" if told else "no loss but its gradient is not finite"
        message = f"step {step}: {what}; the step is skipped"
        self.accelerator.print(message)
        if self.state.num_non_finite > limit:
            raise TrainingError(
                f"{message}; that is {self.state.num_non_finite} skipped steps, more than training.max_non_finite_steps={limit}"
            )

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.config.schedule, self.state.step, self.num_steps)
        for group, peak in zip(self.backend.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor

    def _metrics(self, window: "_Window") -> dict[str, float]:
        return {
            **window.means(self.accelerator, self.stage.loss_weights()),
            "learning_rate": self.backend.optimizer.param_groups[0]["lr"],
            **self.speed.report(self.accelerator.num_processes),
            "time/seconds": self.state.seconds,
            "training/samples": self.state.num_samples,
            "training/non_finite_steps": self.state.num_non_finite,
            **self.checkpoints.metrics(),
            **self.loader.faults.summary(),
        }


def _refuse_what_needs_whole_weights(config: Config) -> None:
    """What cannot run where a backend splits weights or state."""
    chosen = {
        "optimizer.name is muon": (config.optimizer.name == "muon", "take adamw"),
        "training.loss_kernel is liger": (config.training.loss_kernel == "liger", "take chunked"),
        "training.ema_decay is set": (config.training.ema_decay is not None, "set it to null"),
        "tokenizer_stage.enable_code_restart is true": (
            config.stage == "tokenizer" and config.tokenizer_stage.enable_code_restart,
            "set it to false",
        ),
        f"stage is {config.stage}": (
            config.stage.startswith("grpo_"),
            "start it with configs/accelerate/multi_gpu.yaml, not",
        ),
    }
    for what, (is_chosen, remedy) in chosen.items():
        if is_chosen:
            raise ConfigError(f"{what}, which needs whole weights on a rank; {remedy} with FSDP or DeepSpeed")


class _Window:
    """Losses since the last line of metrics."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._losses: set[str] = set()
        self._norm: Tensor | None = None
        self._measured: list[Mapping[str, tuple[float, int]]] = []

    def measure(self, measured: Mapping[str, tuple[float, int]]) -> None:
        self._measured.append(measured)

    def add(self, counts: dict[str, int], sums: dict[str, Tensor], norm: Tensor) -> None:
        self._norm = norm
        if not bool(torch.isfinite(norm)):
            return  # the step was skipped; its losses would make the means of the others useless
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._losses |= counts.keys()
        for name in sums:
            self._counts[name] = self._counts.get(name, 0) + counts.get(name, next(iter(counts.values()), 0))

    def means(self, accelerator: Accelerator, weights: Mapping[str, float]) -> dict[str, float]:
        """Mean of each loss over all ranks and steps of the window, their weighted total, the last gradient norm; clears."""
        measured = {name: total / max(1, count) for name, (total, count) in _summed(self._measured).items()}
        self._measured = []
        if not self._sums:
            return measured
        names = sorted(self._sums)
        sums = accelerator.reduce(torch.stack([self._sums[name].float() for name in names]), "sum")
        means = {name: float(value) / max(1, self._counts[name]) for name, value in zip(names, sums, strict=True)}
        # "images" is the sum of a stage's terms already.
        found = {name if "/" in name else f"loss/{name}": mean for name, mean in means.items() if name != "images"}
        found["loss/total"] = sum(weights.get(name, 1.0) * means[name] for name in names if name in self._losses)
        if self._norm is not None:
            found["training/gradient_norm"] = float(self._norm)
        self._sums, self._counts, self._losses = {}, {}, set()
        return found | measured


def _summed(measured: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, tuple[float, int]]:
    """Sums and numbers of each name, over all that were given."""
    found: dict[str, tuple[float, int]] = {}
    for one in measured:
        for name, (total, count) in one.items():
            before = found.get(name, (0.0, 0))
            found[name] = before[0] + total, before[1] + count
    return found
