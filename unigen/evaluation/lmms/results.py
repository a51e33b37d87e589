# SPDX-License-Identifier: Apache-2.0
"""Reading what lmms-eval wrote: `<time>_results.json` and, beside it, `<time>_samples_<task>.jsonl` with a line a document."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.json_files import numbered_lines, read_json
from unigen.errors import EvaluationError
from unigen.evaluation.lmms.judges import is_judged
from unigen.evaluation.statistics import clustered, estimate

RESULTS_SUFFIX = "_results.json"
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class LmmsResults:
    """One results file, with the samples that belong to it."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def newest(cls, folder: Path, known: set[Path]) -> "LmmsResults | None":
        """The results that were written into `folder` besides the `known` ones; None where there are none."""
        new = sorted(results_files(folder) - known)
        content = read_json(new[-1]) if new else None
        return None if content is None else cls(new[-1], content)

    def names(self, task: str) -> list[str]:
        """A task's own name where it has results; where it is a group, those of its members."""
        members = self.content["group_subtasks"].get(task, [])
        if members:
            return [name for member in members for name in self.names(member)]
        return [task] if task in self.content["results"] else []

    def is_judged(self, name: str) -> bool:
        """Whether another model judged the answers to a task."""
        return is_judged(name, self.content["higher_is_better"].get(name, {}))

    def samples(self, name: str) -> list[Sample]:
        """The documents of a task, in order.

        Raises:
            EvaluationError: some are missing.
        """
        path = self.path.with_name(self.path.name.removesuffix(RESULTS_SUFFIX) + f"_samples_{name}.jsonl")
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = sorted((json.loads(line) for _, line in numbered_lines(text)), key=lambda sample: int(sample["doc_id"]))
        wanted = self.content["n-samples"][name]["original"]
        present = len({sample["doc_id"] for sample in found})
        if present != wanted:
            raise EvaluationError(f"{name}: lmms-eval scored {present} of {wanted} documents")
        return found

    def scores(self, name: str) -> dict[str, Any]:
        """Every number of a task: the metric, where lmms-eval gives one its standard error, where it is a mean its interval.

        Raises:
            EvaluationError: documents are missing, or the judge did not answer.
        """
        samples = self.samples(name)
        if self.is_judged(name):
            _require_judged(name, samples)
        found: dict[str, Any] = {}
        metrics = self.content["higher_is_better"].get(name, {})
        for key, value in self.content["results"][name].items():
            metric, _, scorer = key.partition(",")
            if metric in metrics:
                label = metric if metric not in found else f"{metric}_{scorer}"
                found |= _score(
                    label, metric, value, self.content["results"][name].get(f"{metric}_stderr,{scorer}"), samples
                )
        if not found:
            raise EvaluationError(f"{name}: lmms-eval wrote no number for it")
        return {**found, "num_documents": len(samples), "documents_sha256": _hash(samples)}


def results_files(folder: Path) -> set[Path]:
    """All results that lmms-eval wrote into a folder."""
    return set(folder.rglob(f"*{RESULTS_SUFFIX}"))


def document_scores(metric: str, samples: Sequence[Sample]) -> list[tuple[int, float]]:
    """(document, score) where a metric is one number a document, or says in one of the usual ways whether it was right."""
    found = []
    for sample in samples:
        value = sample.get(metric)
        if isinstance(value, Mapping):
            value = next(_says_right(value), None)
        if isinstance(value, bool | int | float):
            found.append((int(sample["doc_id"]), float(value)))
    return found


def _are_plain(metric: str, samples: Sequence[Sample]) -> bool:
    """Whether a metric is a bare number a document, so that nothing else than their mean can be meant."""
    return not any(isinstance(sample.get(metric), Mapping) for sample in samples)


def _says_right(value: Mapping[str, Any]) -> Iterator[float]:
    yield from (
        float(value[name]) for name in ("score", "true_false") if isinstance(value.get(name), bool | int | float)
    )
    if isinstance(value.get("pred"), str) and isinstance(value.get("answer"), str):
        yield float(value["pred"].strip().lower() == value["answer"].strip().lower())


def _score(label: str, metric: str, value: Any, stderr: Any, samples: Sequence[Sample]) -> dict[str, Any]:
    """One metric. MathVista says nothing where no answer was right: that is 0."""
    pairs = document_scores(metric, samples)
    if value is None and pairs and not any(score for _, score in pairs):
        value = 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {}
    found: dict[str, Any] = {label: float(value)}
    if isinstance(stderr, int | float):
        found[f"{label}_stderr"] = float(stderr)
    # Scores that are all alike fit a sum or an F1 as well as a mean, and their interval would have no width.
    has_mean = _are_plain(metric, samples) or len({score for _, score in pairs}) > 1
    interval = _interval(float(value), pairs) if has_mean else None
    return found if interval is None else {**found, f"{label}_interval": interval}


def _interval(value: float, pairs: Sequence[tuple[int, float]]) -> list[float] | None:
    """95% by bootstrap over documents, where the value is their mean (or their percentage, rounded to two digits)."""
    if not pairs:
        return None
    found = estimate(clustered(pairs))
    for scale, tolerance in ((1.0, 1e-6), (100.0, 0.0051)):
        if abs(found.value * scale - value) <= tolerance:
            return [bound * scale for bound in found.interval]
    return None


def _require_judged(name: str, samples: Sequence[Sample]) -> None:
    """Whether the judge answered for every document: where it cannot be reached, lmms-eval scores 0 and goes on."""
    silent = sum(_is_unjudged(sample) for sample in samples)
    if silent:
        raise EvaluationError(
            f"{name}: the judge gave no answer for {silent} of {len(samples)} documents; see that it can be reached and run "
            "the same command again (the model's answers are kept)"
        )


def _is_unjudged(sample: Sample) -> bool:
    verdicts = [value for value in sample.values() if isinstance(value, Mapping)]
    has_answer = bool(str(sample.get("filtered_resps", "")).strip())
    return any(
        verdict.get("eval_model") == "" or (has_answer and verdict.get("extraction") == "") for verdict in verdicts
    )


def _hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of what was asked and expected: lmms-eval's own hash of documents is that of nothing (0.7.3)."""
    asked = [[sample["doc_id"], sample.get("input"), sample.get("target")] for sample in samples]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
