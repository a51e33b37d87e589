# SPDX-License-Identifier: Apache-2.0
"""Evaluations side by side: a page for people, JSON for programs, and a table for a README."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from unigen.data.json_files import write_json
from unigen.errors import EvaluationError
from unigen.evaluation.page import render
from unigen.evaluation.run import RESULTS_NAME, read_results
from unigen.evaluation.tables import Score, partial_benchmarks, score_table

PAGE_NAME, TABLE_NAME = "report.html", "results.md"
UNWRAPPED = "unwrapped_model"


def labels_of(models: Sequence[str]) -> list[str]:
    """A short name of each model that can name a folder: the end of its path, as long as it takes to tell it from the others.

    Raises:
        EvaluationError: a model is given twice.
    """
    paths = [[part for part in PurePath(model).parts if part not in (UNWRAPPED, "/", "..")] for model in models]
    for length in range(1, max(len(parts) for parts in paths) + 1):
        labels = ["-".join(parts[-length:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise EvaluationError(f"one of the models {', '.join(models)} is given twice; name each once")


def read_evaluations(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The results of evaluation folders by label.

    Raises:
        EvaluationError: a folder has no results.
    """
    found = [read_results(folder) for folder in folders]
    for folder, results in zip(folders, found, strict=True):
        if results is None:
            raise EvaluationError(f"{folder} has no {RESULTS_NAME}; name the --output of `unigen evaluate`")
    labels = labels_of([str(folder.resolve()) for folder in folders])
    return {label: results for label, results in zip(labels, found, strict=True) if results is not None}


def write_comparison(evaluations: Mapping[str, Mapping[str, Any]], folder: Path, *, writes_json: bool = True) -> Path:
    """Write the page, the README's table and, for several evaluations, `results.json` over all; returns the page.

    Args:
        writes_json: false where `folder` is that of an evaluation, whose own results.json stands there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if writes_json:
        write_json({"checkpoints": dict(evaluations)}, folder / RESULTS_NAME)
    (folder / TABLE_NAME).write_text(markdown_table(evaluations), encoding="utf-8")
    page = folder / PAGE_NAME
    page.write_text(_render(evaluations), encoding="utf-8")
    return page


def markdown_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """A table in Markdown: a row a score, a column an evaluation, with 95% intervals; what is partial or failed is named."""
    lines = [f"| score | {' | '.join(evaluations)} |", f"|---|{'---|' * len(evaluations)}"]
    for example, row in score_table(evaluations):
        lines.append(f"| {example.group}, {example.name} | {' | '.join(_cell(score) for score in row)} |")
    lines += ["", *(f"{label}: {remark}." for label, remark in remarks(evaluations))]
    return "\n".join(lines).rstrip() + "\n"


def remarks(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(label, what a reader must know of its scores)."""
    found = []
    for label, results in evaluations.items():
        found += [(label, f"{name} is partial: items are missing from it") for name in partial_benchmarks(results)]
        found += [(label, line) for line in _doubts(results)]
        for name, lines in results.get("failed", {}).items():
            found.append((label, f"{name} failed ({len(lines)}): {lines[0]}"))
    return found


def _doubts(results: Mapping[str, Any]) -> Iterator[str]:
    """What makes a whole score less comparable."""
    for name, found in results.items():
        if not isinstance(found, Mapping):
            continue
        if found.get("num_prompts_beyond_row"):
            yield f"{name} has {found['num_prompts_beyond_row']} prompts longer than the rows that the model was trained on"
        if found.get("is_rank_deficient"):
            yield f"{name} is over fewer images than features, whose distance is too large"


def _cell(score: Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.text} [{score.interval_text}]" if score.interval else score.text


def _render(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    return render(
        "comparison.html.j2",
        labels=list(evaluations),
        rows=score_table(evaluations),
        remarks=remarks(evaluations),
        alignment=_alignment(evaluations),
        manifests={label: results.get("manifest", {}) for label, results in evaluations.items()},
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )


def _alignment(evaluations: Mapping[str, Mapping[str, Any]]) -> str | None:
    aligned = {label: results["alignment"] for label, results in evaluations.items() if "alignment" in results}
    if not aligned:
        return None
    from unigen.evaluation.figures import alignment_curves  # imports matplotlib

    return alignment_curves(aligned)
