# SPDX-License-Identifier: Apache-2.0
"""What a run would take, without weights, network or GPU: parameters, lengths, tokens, operations, memory, GPU-days."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from unigen.config.schema import Config
from unigen.data.mixture import epoch_steps
from unigen.data.sources import open_source
from unigen.errors import ConfigError, DataError
from unigen.models.cost import H200_BFLOAT16_FLOPS, count_parameters
from unigen.training.meta_model import MetaModels, build_on_meta
from unigen.training.recompute import choose_recompute
from unigen.training.step_cost import memory_per_gpu, sharded_totals, step_flops, step_load

GPU = "H200"
GPU_BYTES = 141 * 10**9
"""Its memory (NVIDIA's data sheet)."""
SECONDS_PER_DAY = 86400
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class RunPlan:
    """Sizes are counts, bytes and operations. None where the stage has no such thing or nothing here says it."""

    name: str
    stage: str
    num_gpus: int
    parameters: dict[str, int]
    """By part; `total` is what stands in memory, `trained` and `frozen` its halves."""
    vocabulary_size: int | None
    text_ids: int | None
    row_length: int | None
    """Tokens of the longest sample."""
    samples_per_step: dict[str, int]
    rows_per_step: int
    """Rows of tokens_per_row, if every sample were of the longest."""
    tokens_per_step: int
    """Upper bound: every sample of the longest."""
    flops_per_step: dict[str, float]
    """By part, upper bound as tokens_per_step; forward and backward of what is trained, forward of frozen encoders."""
    memory_per_gpu: dict[str, int]
    memory_per_gpu_by_backend: dict[str, int]
    steps: int | None
    gpu: str
    peak_flops: float
    mfu: float
    gpu_days: float | None
    recompute: str
    """Activations that are computed again; `auto` is resolved for the GPU's memory under DDP."""
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def plan_run(config: Config, mfu: float) -> RunPlan:
    """Work out a run from its configuration alone.

    Args:
        mfu: share of the GPU's peak that the run is taken to reach, in (0, 1].

    Raises:
        CheckpointError, ConfigError: sizes that nothing on this machine says, or that do not fit together.
    """
    if not 0.0 < mfu <= 1.0:
        raise ConfigError(f"--mfu is {mfu}; give the share of the GPU's peak that you expect, such as 0.4")
    models = build_on_meta(config)
    if config.training.recompute == "auto":
        kind = choose_recompute(models, "ddp", GPU_BYTES)
        models.config = config = replace(config, training=replace(config.training, recompute=kind))
    load, flops, steps = step_load(models), step_flops(models), _num_steps(config)
    needs, rows = memory_per_gpu(models, load), models.row_config
    days = None if steps is None else steps * flops["total"] / (H200_BFLOAT16_FLOPS * mfu) / SECONDS_PER_DAY
    return RunPlan(
        name=config.experiment.name,
        stage=config.stage,
        num_gpus=config.training.num_gpus,
        parameters=_parameters(models),
        vocabulary_size=None if rows is None else rows.llm_config.vocab_size,
        text_ids=None if rows is None else rows.num_text_ids,
        row_length=None if rows is None else rows.row_length,
        samples_per_step={task: count for task, count in config.training.samples_per_step.items() if count},
        rows_per_step=load.rows,
        tokens_per_step=load.tokens,
        flops_per_step=flops,
        memory_per_gpu=needs,
        memory_per_gpu_by_backend=sharded_totals(models, needs),
        steps=steps,
        gpu=GPU,
        peak_flops=H200_BFLOAT16_FLOPS,
        mfu=mfu,
        gpu_days=days,
        recompute=config.training.recompute,
        notes=models.notes,
    )


def _parameters(models: MetaModels) -> dict[str, int]:
    total = sum(models.parameters.values())
    trained = count_parameters(models.trained, trained_only=True)
    return {**models.parameters, "total": total, "trained": trained, "frozen": total - trained}


def _num_steps(config: Config) -> int | None:
    training, wanted = config.training, config.training.samples_per_step
    if training.steps is not None:
        return training.steps
    sizes = {task: _task_size(config, task) for task, count in wanted.items() if count > 0}
    if None in sizes.values():
        return None
    return max(1, math.ceil(epoch_steps(sizes, wanted, config.data.epoch_ends) * training.epochs))


def _task_size(config: Config, task: str) -> int | None:
    """Samples of a task: as the configuration says, else counted where the files are here."""
    total = 0
    for name, source in config.data.sources.items():
        if source.task != task or source.weight <= 0:
            continue
        size = source.num_samples
        if size is None:
            try:
                size = open_source(name, source, config.data, config.experiment.seed).num_samples()
            except DataError:
                return None
        if size is None:
            return None
        total += size
    return total


def describe_run(plan: RunPlan) -> str:
    """The plan for people, a line for each thing."""
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in plan.parameters.items())
    samples = ", ".join(f"{task} {count}" for task, count in plan.samples_per_step.items())
    lines = [f"{plan.name}: stage {plan.stage}", f"parameters      {parts}"]
    if plan.row_length is not None:
        lines.append(f"vocabulary      {plan.vocabulary_size:,}, of which {plan.text_ids:,} text and task tokens")
        lines.append(f"longest row     {plan.row_length:,} tokens")
        lines.append(
            f"a step          {samples} samples; at most {plan.tokens_per_step:,} tokens, {plan.rows_per_step} rows"
        )
    else:
        lines.append(f"a step          {samples} samples")
    return "\n".join([*lines, *_describe_cost(plan), *(f"note            {note}" for note in plan.notes)])


def _describe_cost(plan: RunPlan) -> list[str]:
    lines = [
        f"operations      at most {_listed(plan.flops_per_step, 'FLOP')} a step",
        f"memory per GPU  about {_listed(plan.memory_per_gpu, 'B')}",
        f"  with          recompute {plan.recompute}",
        f"  by backend    {_listed(plan.memory_per_gpu_by_backend, 'B')} on {plan.num_gpus} GPUs",
    ]
    if plan.steps is None or plan.gpu_days is None:
        return [*lines, "steps           not known: give num_samples in each source, or training.steps"]
    peak = f"{plan.mfu:.0%} of the {_scaled(plan.peak_flops, 'FLOP/s')} of an {plan.gpu} (bfloat16, dense)"
    days = f"{plan.gpu_days / plan.num_gpus:,.2g} days on {plan.num_gpus} GPUs"
    return [
        *lines,
        f"steps           {plan.steps:,}",
        f"GPU-days        at most {plan.gpu_days:,.3g} at {peak}: {days}",
    ]


def _listed(values: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_scaled(value, unit)}" for name, value in values.items() if value)


def _scaled(value: float, unit: str) -> str:
    for factor, prefix in PREFIXES:
        if value >= factor:
            return f"{value / factor:,.1f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"
