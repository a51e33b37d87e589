# SPDX-License-Identifier: Apache-2.0
"""Running benchmarks over one model: what is missing is done, then scored, then written to results.json."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unigen.data.json_files import read_json, write_json
from unigen.data.manifest import now, surroundings
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.job import Benchmark, Job, Options
from unigen.generation.pipeline import Pipeline

RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class Outcome:
    """What came out: the content of results.json (None on other ranks than the first), and what failed."""

    results: dict[str, Any] | None
    failures: list[str]


def evaluate(
    pipeline: Pipeline, benchmarks: Sequence[Benchmark], options: Options, ranks: Ranks | None = None
) -> Outcome:
    """Run and score benchmarks; every finished item is kept, so that a run can be stopped and started again.

    A benchmark with failed items gets no score, unless `options` allow a partial one; results.json names it under `failed`.

    Raises:
        EvaluationError: the output folder belongs to another run, or a benchmark's files cannot be used.
    """
    ranks = ranks or Ranks.from_environment()
    model = pipeline.describe()
    results: dict[str, Any] = {}
    failures: dict[str, list[str]] = {}
    with ranks.together():
        for benchmark in benchmarks:
            job = Job(pipeline, options, options.output / benchmark.name, model, ranks)
            started = time.monotonic()
            failures[benchmark.name] = ranks.gather(benchmark.run(job))
            if ranks.is_first and (not failures[benchmark.name] or options.is_partial_allowed):
                try:
                    scores = benchmark.score(job)
                except EvaluationError as error:  # the other benchmarks may still have their scores
                    failures[benchmark.name].append(str(error))
                    continue
                next(iter(scores.values()))["seconds"] = round(time.monotonic() - started, 3)
                results |= scores
    lines = [line for failed in failures.values() for line in failed]
    return Outcome(_write_results(results, failures, model, options, ranks) if ranks.is_first else None, lines)


def _write_results(
    results: dict[str, Any],
    failures: Mapping[str, Sequence[str]],
    model: dict[str, Any],
    options: Options,
    ranks: Ranks,
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
    failed = {**earlier.pop("failed", {}), **{name: list(lines) for name, lines in failures.items()}}
    failed = {name: lines for name, lines in failed.items() if lines}
    kept = {name: value for name, value in earlier.items() if name not in failed}
    content = {**kept, **results, **({"failed": failed} if failed else {}), "manifest": manifest}
    write_json(content, path)
    return content


def read_results(folder: Path) -> dict[str, Any] | None:
    """What an evaluation folder says; None where nothing was evaluated."""
    return read_json(folder / RESULTS_NAME)
