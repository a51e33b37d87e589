# SPDX-License-Identifier: Apache-2.0
"""Running benchmarks over one model: what is missing is done, then scored, then written to results.json."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.evaluation.job import Benchmark, Job, Options
from unigen.evaluation.manifest import now, surroundings
from unigen.evaluation.ranks import Ranks
from unigen.evaluation.records import read_json, write_json
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

    A benchmark with failed items gets no score.

    Raises:
        EvaluationError: the output folder belongs to another run, or a benchmark's files cannot be used.
    """
    ranks = ranks or Ranks.from_environment()
    model = pipeline.describe()
    results: dict[str, Any] = {}
    failures: list[str] = []
    with ranks.together():
        for benchmark in benchmarks:
            job = Job(pipeline, options, options.output / benchmark.name, model, ranks)
            started = time.monotonic()
            failed = ranks.gather(benchmark.run(job))
            failures += failed
            if ranks.is_first and not failed:
                results |= benchmark.score(job)
                results[benchmark.name]["seconds"] = round(time.monotonic() - started, 3)
    if not ranks.is_first:
        return Outcome(None, failures)
    return Outcome(_write_results(results, model, options), failures)


def _write_results(results: dict[str, Any], model: dict[str, Any], options: Options) -> dict[str, Any]:
    """results.json with these scores, and those of earlier runs over the same weights."""
    path = options.output / RESULTS_NAME
    earlier = read_json(path) or {}
    manifest = {
        "model": model,
        "seed": options.seed,
        "num_images": options.num_images,
        "drawing": options.drawing,
        "world": str(options.world),
        "finished": now(),
        **surroundings(options.output),
    }
    if earlier.get("manifest", {}).get("model", {}).get("weights") != model.get("weights"):
        earlier = {}
    content = {**earlier, **results, "manifest": manifest}
    write_json(content, path)
    return content


def read_results(folder: Path) -> dict[str, Any] | None:
    """What an evaluation folder says; None where nothing was evaluated."""
    return read_json(folder / RESULTS_NAME)
