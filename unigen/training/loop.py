# SPDX-License-Identifier: Apache-2.0
"""The one training loop. It knows no objective: a stage makes batches of samples and losses of batches.

One global step: this rank's samples -> batches -> frozen encoders -> forward and backward of each batch -> one update.
Losses are sums divided by the number of their terms over all ranks and all batches of the step, so neither packing nor the
number of ranks changes them (in the stages that train on rows; contrastive and codebook terms belong to a forward pass).
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, gather_object
from torch import Tensor

from unigen.config.load import save_config
from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample
from unigen.data.loader import StepLoader
from unigen.data.mixture import SampleStream, epoch_steps
from unigen.data.sources import open_mixture, task_sizes
from unigen.errors import ConfigError, TrainingError
from unigen.training.checkpoint import Checkpointer, TrainState, is_sharded
from unigen.training.ema import Ema
from unigen.training.metrics import MetricsLog
from unigen.training.optimizer import build_optimizer, freeze
from unigen.training.schedule import learning_rate_factor
from unigen.training.signals import REQUEUE_EXIT_CODE, StopRequest
from unigen.training.speed import SpeedMeter, Stopwatch
from unigen.training.stages.registry import build_stage
from unigen.training.stages.stage import Stage
from unigen.training.validation import ValidationImages


@dataclass(frozen=True)
class StepPlan:
    """What all ranks agree on before a step: terms of each loss, batches a rank runs, and whether someone was told to stop."""

    counts: dict[str, int]
    num_batches: int
    stop: bool


class Trainer:
    """Builds a run from its configuration and carries it to the end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.output_dir = Path(config.experiment.output_dir)
        self.accelerator = _accelerator(config)
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            save_config(config, self.output_dir / "config.yaml")
        self.stage = build_stage(config, self.accelerator.device).train()  # loaded models come in eval mode
        freeze(self.stage, config.training.freeze)
        _set_recompute(self.stage, config.training.recompute)
        self.loader, self.num_steps = self._data()
        optimizer = build_optimizer(self.stage, config.optimizer)
        self._peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.wrapped, self.optimizer = self.accelerator.prepare(self.stage, optimizer)
        decay = config.training.ema_decay
        if decay and is_sharded(self.accelerator):
            raise ConfigError("training.ema_decay needs whole weights on a rank; set it to null with FSDP or DeepSpeed")
        self.ema = Ema(self.accelerator.unwrap_model(self.wrapped), decay) if decay else None
        self.state = TrainState()
        self.speed = SpeedMeter()
        self.checkpoints = Checkpointer(
            self.accelerator, config, self.stage, self.wrapped, self.optimizer, self.loader, self.ema
        )
        self._trained = [parameter for parameter in self.wrapped.parameters() if parameter.requires_grad]

    def run(self) -> int:
        """Train to the last step; returns the exit code of the process."""
        found = self.checkpoints.find()
        if found is not None:
            self.state = self.checkpoints.load(found)
        log = MetricsLog(self.accelerator, self.output_dir, self.state.step, self.num_steps)
        if found is not None:
            log.say(f"going on from {found}")
        validation = ValidationImages(self.config, self.stage, self.accelerator, self.output_dir)
        with StopRequest() as stop:
            for metrics in self._steps(stop):
                log.advance()
                if metrics:
                    log.write(self.state.step, metrics)
                validation.draw_if_due(self.state.step)
        log.say(f"data: {self.loader.faults.describe() or 'no bad records'}")
        log.close()
        return REQUEUE_EXIT_CODE if stop.is_set and self.state.step < self.num_steps else 0

    def _data(self) -> tuple[StepLoader[Sample], int]:
        config, wanted = self.config, self.config.training
        mixture = open_mixture(config.data, config.experiment.seed)
        steps = wanted.steps
        if steps is None:
            epoch = epoch_steps(task_sizes(mixture), wanted.samples_per_step, config.data.epoch_ends)
            steps = max(1, math.ceil(epoch * wanted.epochs))
        stream = SampleStream(
            mixture,
            wanted.samples_per_step,
            self.stage.prepare,
            lanes=config.data.lanes,
            seed=config.experiment.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=config.data.num_workers,
            shuffle_block=config.data.shuffle_block,
        )
        loader = StepLoader(
            stream, prefetch_steps=config.data.prefetch_steps, max_bad_fraction=config.data.max_bad_fraction
        )
        return loader, steps

    def _steps(self, stop: StopRequest) -> Iterator[dict[str, float]]:
        """Do the steps that are left; yields metrics, empty but for every `log_every`-th step, the first and the last."""
        watch, window = Stopwatch(), _Window()
        every = self.config.experiment.log_every
        steps = iter(self.loader)
        while self.state.step < self.num_steps:
            samples = next(steps)
            waited = watch.lap()
            plan = self._agree(samples, stop)
            window.add(plan.counts, *self._step(samples, plan))
            seconds = waited + watch.lap()
            self.speed.count_step(len(samples), seconds, waited)
            self.state.seconds += seconds
            self.state.num_samples += len(samples) * self.accelerator.num_processes
            is_due = self.state.step % every == 0 or self.state.step in (1, self.num_steps)
            yield self._metrics(window) if is_due else {}
            self._checkpoint_if_due(plan.stop)
            if plan.stop:
                stop.is_set = True
                return
            watch.lap()

    def _agree(self, samples: Sequence[Sample], stop: StopRequest) -> StepPlan:
        """Sum the counts over ranks, take the largest number of batches, and stop if any rank was asked to."""
        counts = self.stage.counts(samples)
        self._batches = list(self.stage.batches(samples))
        if self.accelerator.num_processes == 1:
            return StepPlan(counts, len(self._batches), stop.is_set)
        told = gather_object([(counts, len(self._batches), stop.is_set)])
        names = dict.fromkeys(name for part, _, _ in told for name in part)
        total = {name: sum(part.get(name, 0) for part, _, _ in told) for name in names}
        return StepPlan(total, max(number for _, number, _ in told), any(asked for _, _, asked in told))

    def _step(self, samples: Sequence[Sample], plan: StepPlan) -> tuple[dict[str, Tensor], Tensor | None]:
        """One update; returns the summed losses of this rank and the gradient's norm."""
        batches = [*self._batches, *(self.stage.empty_batch() for _ in range(plan.num_batches - len(self._batches)))]
        scales = self._scales(plan)
        self._set_learning_rate()
        self.accelerator.gradient_accumulation_steps = len(batches)
        self.accelerator.step = 0
        sums: dict[str, Tensor] = {}
        totals = []
        for batch in batches:
            with self.accelerator.accumulate(self.wrapped):
                total, parts = self._backward(batch, scales, len(batches))
                totals.append(total)
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0) + value
        norm = self._update(totals)
        self.state.step += 1
        return sums, norm

    def _backward(self, batch: Batch, scales: dict[str, float], num_batches: int) -> tuple[Tensor, dict[str, Tensor]]:
        moved = self.stage.encode(batch.to(self.accelerator.device))
        total, parts = self.wrapped(moved, scales)
        self.speed.count_batch(batch, self.stage.training_flops(batch))
        # accelerate divides by the number of accumulated batches; our scales are whole already.
        is_divided = self.accelerator.distributed_type != DistributedType.DEEPSPEED
        self.accelerator.backward(total * num_batches if is_divided else total)
        return total.detach(), parts

    def _scales(self, plan: StepPlan) -> dict[str, float]:
        """Factor of each loss's sum. Gradients are averaged over ranks, hence the number of processes."""
        weights, ranks = self.config.training.loss_weights, self.accelerator.num_processes
        return {name: weights.get(name, 1.0) * ranks / count for name, count in plan.counts.items() if count}

    def _update(self, totals: list[Tensor]) -> Tensor | None:
        """Clip, step and clear; a step with a non-finite loss or gradient is skipped and counted."""
        clip = self.config.training.gradient_clipping
        norm = self.accelerator.clip_grad_norm_(self._trained, clip if clip > 0 else math.inf)
        loss = torch.stack(totals).sum()
        if norm is not None and hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        judged = loss if norm is None else norm
        if not bool(torch.isfinite(torch.as_tensor(judged))):
            self._skip(totals)
        else:
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
        self.optimizer.zero_grad()
        return None if norm is None else torch.as_tensor(norm)

    def _skip(self, totals: list[Tensor]) -> None:
        self.state.num_non_finite += 1
        step, limit = self.state.step + 1, self.config.training.max_non_finite_steps
        bad = [
            batch.keys for batch, total in zip(self._batches, totals, strict=False) if not bool(torch.isfinite(total))
        ]
        # All ranks come here together: they judge the same norm.
        told = gather_object([(self.accelerator.process_index, key) for group in bad for key in group])
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
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor

    def _metrics(self, window: "_Window") -> dict[str, float]:
        return {
            **window.means(self.accelerator, self.config.training.loss_weights),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **self.speed.report(self.accelerator.num_processes),
            "time/seconds": self.state.seconds,
            "training/samples": self.state.num_samples,
            "training/non_finite_steps": self.state.num_non_finite,
            **self.loader.faults.summary(),
        }

    def _checkpoint_if_due(self, stop: bool) -> None:
        every = self.config.experiment.checkpoint_every
        is_last = self.state.step == self.num_steps
        if stop or is_last or (every > 0 and self.state.step % every == 0):
            self.checkpoints.save(self.state)


class _Window:
    """Losses since the last line of metrics."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norm: Tensor | None = None

    def add(self, counts: dict[str, int], sums: dict[str, Tensor], norm: Tensor | None) -> None:
        self._norm = norm
        if norm is not None and not bool(torch.isfinite(norm)):
            return  # the step was skipped; its losses would make the means of the others useless
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0) + value
        for name in sums:
            self._counts[name] = self._counts.get(name, 0) + counts.get(name, next(iter(counts.values()), 0))

    def means(self, accelerator: Accelerator, weights: dict[str, float]) -> dict[str, float]:
        """Mean of each loss over all ranks and steps of the window, their weighted total, the last gradient norm; clears."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = accelerator.reduce(torch.stack([self._sums[name].float() for name in names]), "sum")
        means = {name: float(value) / max(1, self._counts[name]) for name, value in zip(names, sums, strict=True)}
        parts = ["images"] if "images" in names else names  # "images" is the sum of a stage's terms already
        found = {f"loss/{name}": mean for name, mean in means.items() if name != "images"}
        found["loss/total"] = sum(weights.get(name, 1.0) * means[name] for name in parts)
        if self._norm is not None:
            found["training/gradient_norm"] = float(self._norm)
        self._sums, self._counts = {}, {}
        return found


def _accelerator(config: Config) -> Accelerator:
    """The launcher's environment decides the backend; the configuration decides precision, clipping and trackers."""
    accelerator = Accelerator(
        mixed_precision="bf16" if config.training.precision == "bfloat16" else "no",
        log_with=list(config.experiment.trackers) or None,
        project_dir=config.experiment.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    torch.set_float32_matmul_precision("high" if config.training.enable_tf32 else "highest")
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        plugin.deepspeed_config["gradient_clipping"] = config.training.gradient_clipping
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
        plugin.deepspeed_config["gradient_accumulation_steps"] = 1
        plugin.deepspeed_config["zero_allow_untested_optimizer"] = True
    if config.experiment.trackers:
        Path(config.experiment.output_dir).mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(config.experiment.project, init_kwargs=_tracker_options(config))
    return accelerator


def _tracker_options(config: Config) -> dict[str, dict[str, Any]]:
    options = {"name": config.experiment.name, "dir": config.experiment.output_dir}
    if "wandb" in config.experiment.trackers and "WANDB_MODE" not in os.environ:
        import wandb

        options["mode"] = "online" if wandb.api.api_key else "offline"
    return {"wandb": options}


def _set_recompute(stage: Stage, recompute: str) -> None:
    if recompute == "none":
        return
    enable = getattr(stage.model, "gradient_checkpointing_enable", None)
    if enable is None or not getattr(stage.model, "supports_gradient_checkpointing", False):
        raise ConfigError(f"training.recompute is {recompute}, but this model cannot recompute; set it to none")
    options: dict[str, Any] = {"use_reentrant": False}
    if recompute == "selective":
        options["context_fn"] = _keep_matrix_products
    enable(gradient_checkpointing_kwargs=options)


def _keep_matrix_products() -> Any:
    """Recompute everything but matrix products, and SDPA's attention: little to compute again, most of the memory saved."""
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    aten = torch.ops.aten
    return create_selective_checkpoint_contexts(
        [
            aten.mm.default,
            aten.addmm.default,
            aten._scaled_dot_product_flash_attention.default,
            aten._scaled_dot_product_efficient_attention.default,
            aten._scaled_dot_product_flash_attention_for_cpu.default,
        ]
    )
