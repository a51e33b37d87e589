# SPDX-License-Identifier: Apache-2.0
"""The report of a run: report.json for programs and one self-contained page for people."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from unigen.data.json_files import write_json
from unigen.environment import git_commit, inspect_machine, package_versions
from unigen.evaluation import showcase
from unigen.evaluation.figures import loss_curves, score_chart
from unigen.evaluation.page import render
from unigen.evaluation.run_folder import RunFolder
from unigen.evaluation.tables import DRAWING, READING, score_table, scores

JSON_NAME, PAGE_NAME = "report.json", "report.html"
SHOWN_VERSIONS = ("python", "torch", "transformers", "accelerate", "unigen")
CARDS = {
    "overall": "images as asked for",
    "single_object": "single objects drawn right",
    "accuracy": "questions answered right",
    "PSNR": "image tokenizer, PSNR",
}
GIBIBYTE = 2**30


def write_report(folder: Path, page: Path | None = None) -> dict[str, Any]:
    """Write report.json and the page of a run's folder; returns the content of report.json.

    Args:
        page: where to put the page, `<folder>/report.html` if not given.
    Raises:
        EvaluationError: there is nothing to report on, or a file is damaged.
    """
    run = RunFolder.read(folder)
    summary = summarise(run)
    write_json(summary, folder / JSON_NAME)
    page = page or folder / PAGE_NAME
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_render(run, summary), encoding="utf-8")
    return summary


def summarise(run: RunFolder) -> dict[str, Any]:
    """What report.json says; a benchmark that was not run has no key."""
    stages = {}
    for stage in run.stages:
        first, last = stage.loss_at_edges()
        stages[stage.name] = {
            "steps": stage.steps,
            "seconds": round(stage.seconds, 1),
            "loss_first": first,
            "loss_last": last,
        }
    benchmarks = {
        name: run.results[name] for name in ("geneval_shapes", "vqa_shapes", "tokenizer") if name in run.results
    }
    return {
        **benchmarks,
        "stages": stages,
        "seconds": {"total": round(run.seconds, 1)},
        "seed": run.seed,
        "git_commit": run.git_commit or git_commit(),
    }


def _render(run: RunFolder, summary: Mapping[str, Any]) -> str:
    found = scores(run.results)
    charts = {group: [score for score in found if score.group == group] for group in (DRAWING, READING)}
    manifest = run.results.get("manifest", {})
    return render(
        "report.html.j2",
        title=run.path.resolve().name,
        summary=summary,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        cards=_cards(run.results),
        table=score_table({"score": run.results}),
        charts={group: score_chart(rows) for group, rows in charts.items() if rows},
        drawings=showcase.drawings(run.evaluation),
        answers=showcase.answers(run.evaluation, Path(manifest.get("world", ""))),
        reconstructions=showcase.reconstructions(run.evaluation),
        curves=loss_curves(run.stages) if run.stages else None,
        parts=_parts(run, summary),
        model=manifest.get("model", {}),
        drawing=manifest.get("drawing", {}),
        machine=_machine(run),
        versions=_versions(manifest),
    )


def _cards(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers at the head of the page."""
    found = {score.name: score for score in scores(results)}
    return [
        {"title": title, "text": found[name].text, "interval": found[name].interval_text}
        for name, title in CARDS.items()
        if name in found
    ]


def _parts(run: RunFolder, summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Where the time went: every stage, the evaluation, and the rest (set-up, writing the data, loading)."""
    parts = [(stage.name, stage.seconds) for stage in run.stages]
    evaluated = [
        run.results[name].get("seconds", 0.0) for name in ("geneval_shapes", "vqa_shapes") if name in run.results
    ]
    if evaluated:
        parts.append(("evaluation", sum(evaluated)))
    rest = summary["seconds"]["total"] - sum(seconds for _, seconds in parts)
    return [*parts, ("set-up, data, loading", rest)] if rest > 1 else parts


def _machine(run: RunFolder) -> str:
    machine = run.results.get("manifest", {}).get("machine")
    if machine is None:
        here = inspect_machine(run.path)
        machine = {
            "num_cpus": here.num_cpus,
            "memory_bytes": here.memory_bytes,
            "gpus": [vars(gpu) for gpu in here.gpus],
        }
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    return f"{machine['num_cpus']} CPU cores, {machine['memory_bytes'] / GIBIBYTE:.0f} GiB memory, {gpus}"


def _versions(manifest: Mapping[str, Any]) -> dict[str, str]:
    versions = manifest.get("versions") or package_versions()
    return {name: versions[name] for name in SHOWN_VERSIONS if name in versions}
