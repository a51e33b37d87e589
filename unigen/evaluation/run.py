# SPDX-License-Identifier: Apache-2.0
"""Running benchmarks over one model: what is missing is done, then scored, then written to results.json."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unigen.data.json_files import read_json, write_json
from unigen.data.manifest import close_runs, now, surroundings
from unigen.data.ranks import Ranks
from unigen.errors import CheckpointError, ConfigError, DataError, EvaluationError
from unigen.evaluation.job import Benchmark, Job, Options
from unigen.generation.pipeline import Pipeline

RESULTS_NAME = "results.json"
MISTAKES = (EvaluationError, ConfigError, DataError, CheckpointError)
"""What keeps one benchmark from being run and says nothing of the others."""


@dataclass(frozen=True)
class Outcome:
    """What came out: the content of results.json (None on other ranks than the first), and what failed."""

    results: dict[str, Any] | None
    failures: list[str]
    """A line for each item that failed, and for each benchmark that could not be run or scored."""
    has_mistake: bool = False
    """Whether a benchmark could not be run for a reason that a person has to mend."""


@dataclass
class _Found:
    """What came out of one benchmark."""

    scores: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return self.mistakes + self.failures


def evaluate(
    pipeline: Pipeline,
    benchmarks: Sequence[Benchmark],
    options: Options,
    ranks: Ranks | None = None,
    warn: Callable[[list[str]], None] = lambda lines: None,
) -> Outcome:
    """Run and score benchmarks; every finished item is kept, so that a run can be stopped and started again.

    A benchmark with failed items gets no score, unless `options` allow a partial one; results.json names it under `failed`, and
    so it does one that cannot be run at all, which keeps none of the others from being run.

    Args:
        warn: is told, on the first rank and before anything is done, what makes it impossible to run a benchmark.
    Raises:
        EvaluationError: no benchmark can be run: the output folder belongs to another run, or files cannot be used.
    """
    ranks = ranks or Ranks.from_environment()
    model = pipeline.describe()
    jobs = [Job(pipeline, options, options.output / one.name, model, ranks) for one in benchmarks]
    found: dict[str, _Found] = {}
    with ranks.together():
        for benchmark, job in zip(benchmarks, jobs, strict=True):
            found[benchmark.name] = _Found(mistakes=_mistakes(benchmark.check, job, benchmark.name, "the check"))
        if ranks.is_first and len(benchmarks) > 1:
            warn([line for one in found.values() for line in one.mistakes])
        for benchmark, job in zip(benchmarks, jobs, strict=True):
            if not found[benchmark.name].mistakes:
                found[benchmark.name] = _run(benchmark, job)
    lines = [line for one in found.values() for line in one.lines]
    if all(one.mistakes for one in found.values()):
        raise EvaluationError("; ".join(lines))
    results = _write_results(found, model, options, ranks) if ranks.is_first else None
    return Outcome(results, lines, any(one.mistakes for one in found.values()))


def _run(benchmark: Benchmark, job: Job) -> _Found:
    """Do what is missing, and score it on the first rank."""
    started = time.monotonic()
    found = _Found()
    found.mistakes = _mistakes(lambda job: found.failures.extend(benchmark.run(job)), job, benchmark.name, "the end")
    found.failures = job.ranks.gather(found.failures, at=f"the failures of {benchmark.name}")
    if not job.ranks.is_first or found.mistakes or (found.failures and not job.options.is_partial_allowed):
        return found
    try:
        found.scores = benchmark.score(job)
        next(iter(found.scores.values()))["seconds"] = round(time.monotonic() - started, 3)
    except EvaluationError as error:  # the other benchmarks may still have their scores
        found.failures.append(str(error))
    if not found.failures:
        close_runs(job.folder)
    return found


def _mistakes(act: Callable[[Job], None], job: Job, name: str, where: str) -> list[str]:
    """What any rank's `act` ends with, each once."""
    mistakes = []
    try:
        act(job)
    except MISTAKES as error:
        said = str(error)
        mistakes.append(said if said.startswith(name) else f"{name}: {said}")
    return list(dict.fromkeys(job.ranks.gather(mistakes, at=f"{where} of {name}")))


def _write_results(
    found: Mapping[str, _Found], model: dict[str, Any], options: Options, ranks: Ranks
) -> dict[str, Any]:
    """results.json with these scores, and those of earlier runs over the same weights."""
    path = options.output / RESULTS_NAME
    earlier = read_json(path) or {}
    manifest = {
        "model": model,
        "seed": options.seed,
        "num_images": options.num_images,
        "drawing": options.drawing.given(),
        "settings": json.loads(json.dumps(asdict(options.config))),  # lists for tuples, as they are read again
        "world": str(options.world),
        "world_size": ranks.world_size,
        "finished": now(),
        **surroundings(options.output),
    }
    if earlier.get("manifest", {}).get("model", {}).get("weights") != model.get("weights"):
        earlier = {}
    failed = {**earlier.pop("failed", {}), **{name: one.lines for name, one in found.items()}}
    failed = {name: lines for name, lines in failed.items() if lines}
    kept = {name: value for name, value in earlier.items() if name not in failed}
    results = {name: scores for one in found.values() for name, scores in one.scores.items()}
    content = {**kept, **results, **({"failed": failed} if failed else {}), "manifest": manifest}
    write_json(content, path)
    return content


def read_results(folder: Path) -> dict[str, Any] | None:
    """What an evaluation folder says; None where nothing was evaluated."""
    return read_json(folder / RESULTS_NAME)
