# SPDX-License-Identifier: Apache-2.0
"""Scores as rows of a table, for the terminal and for reports over one or several evaluations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """One number of an evaluation."""

    group: str
    name: str
    value: float
    interval: tuple[float, float] | None = None
    unit: str = ""
    note: str = ""
    is_reference: bool = False
    """A bound or a baseline, not a score of the model."""

    @property
    def text(self) -> str:
        return f"{self.value:.2f} {self.unit}" if self.unit else f"{self.value:.3f}"

    @property
    def interval_text(self) -> str:
        """The 95% interval, empty where there is none."""
        if self.interval is None:
            return ""
        digits = 2 if self.unit else 3
        return f"{self.interval[0]:.{digits}f} – {self.interval[1]:.{digits}f}"


DRAWING, READING, TOKENIZER = "Drawing (geneval_shapes)", "Reading (vqa_shapes)", "Image tokenizer"
UNDERSTANDING = "Understanding (lmms)"


def scores(results: Mapping[str, Any]) -> list[Score]:
    """Every number of a results.json worth showing, in the order of a report."""
    sections = {
        "geneval_shapes": _drawing(results),
        "geneval": _geneval(results),
        "dpg": _dpg(results),
        "fid": _fid(results),
        "unified_bench": _unified_bench(results),
        "best_of_n": _best_of_n(results),
        "vqa_shapes": _reading(results),
        "lmms": _understanding(results),
        "questions": _question_files(results),
        "alignment": _alignment(results),
        "tokenizer": _tokenizer(results),
    }
    return [score for section in sections.values() for score in section]


def partial_benchmarks(results: Mapping[str, Any]) -> list[str]:
    """The benchmarks that were scored though items were missing."""
    return [name for name, found in results.items() if isinstance(found, Mapping) and found.get("partial")]


def score_table(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[Score, list[Score | None]]]:
    """One row for every score that any evaluation has: one example of it, and the score of each evaluation (or None)."""
    columns = [{(score.group, score.name): score for score in scores(results)} for results in evaluations.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[column.get(name) for column in columns] for name in names]
    return [(next(score for score in row if score is not None), row) for row in rows]


def _drawing(results: Mapping[str, Any]) -> Iterator[Score]:
    found = results.get("geneval_shapes")
    if not found:
        return
    yield Score(DRAWING, "overall", found["overall"], tuple(found["interval"]), note="mean over the tags")
    for tag, value in found["tags"].items():
        yield Score(DRAWING, tag, value, tuple(found["tag_intervals"][tag]))
    for name, note in (
        ("seen", "tags with withheld combinations: those that training shows"),
        ("unseen", "the same tags: combinations withheld from training"),
    ):
        if found.get(name) is not None:
            yield Score(DRAWING, name, found[name], tuple(found[f"{name}_interval"]), note=note)
    if found.get("ceiling") is not None:
        yield Score(
            DRAWING, "ceiling", found["ceiling"], note="true renders after the image tokenizer", is_reference=True
        )
    yield Score(DRAWING, "detector", found["detector"], note="true renders as they are", is_reference=True)


def _geneval(results: Mapping[str, Any]) -> Iterator[Score]:
    found = results.get("geneval")
    if found:
        note = f"mean over the tags; {found['variant']}" if "variant" in found else "mean over the tags"
        yield Score("GenEval", "overall", found["overall"], tuple(found["interval"]), note=note)
        for tag, value in found["tags"].items():
            yield Score("GenEval", tag, value, tuple(found["tag_intervals"][tag]))


def _dpg(results: Mapping[str, Any]) -> Iterator[Score]:
    for name, found in results.items():
        if (name == "dpg" or name.startswith("dpg_")) and "fixed" in found:
            fixed, group = found["fixed"], f"DPG-Bench ({name})"
            yield Score(
                group, "overall", found["overall"], tuple(found["interval"]), "/ 100", "as the published scorer"
            )
            yield Score(
                group, "fixed", fixed["overall"], tuple(fixed["interval"]), "/ 100", "all prompts, tiles, questions"
            )
            for level, value in found["levels"].items():
                yield Score(group, level, value, unit="/ 100")


def _fid(results: Mapping[str, Any]) -> Iterator[Score]:
    for name in ("mjhq_fid", "fid"):
        found = results.get(name)
        if found:
            yield Score(
                f"FID ({name})", "overall", found["overall"], note=f"{found['num_images']} images; less is better"
            )
            for category, value in found["categories"].items():
                yield Score(f"FID ({name})", category, value)


def _unified_bench(results: Mapping[str, Any]) -> Iterator[Score]:
    found = results.get("unified_bench")
    if not found:
        return
    group = "Redrawing (unified_bench)"
    if "overall" in found:
        yield Score(group, "overall", found["overall"], tuple(found["interval"]), "/ 100", "mean of the four encoders")
    for name, one in found["similarity"].items():
        note = f"cosine, {found['num_images']} images"
        yield Score(group, name, one["mean"], (one["low"], one["high"]), note=note)


def _best_of_n(results: Mapping[str, Any]) -> Iterator[Score]:
    """Benchmarks whose images were chosen out of many, beside the same without a choice."""
    for name, found in results.items():
        if not isinstance(found, Mapping) or "first_of_n" not in found:
            continue
        group = f"Best of N ({name})"
        rows = {f"{rater}, {found['selection']}": one for rater, one in found["best_of_n"].items()}
        for row, one in rows.items():
            yield Score(group, row, one["overall"], tuple(one["interval"]), note="chosen by the model itself")
        first = found["first_of_n"]
        yield Score(group, "first", first["overall"], tuple(first["interval"]), note="no choice", is_reference=True)
        oracle = found.get("oracle_best_of_n")
        if oracle:
            interval = tuple(oracle["interval"])
            yield Score(group, "oracle", oracle["overall"], interval, note="chosen by the truth", is_reference=True)


def _reading(results: Mapping[str, Any]) -> Iterator[Score]:
    found = results.get("vqa_shapes")
    if not found:
        return
    yield Score(READING, "accuracy", found["accuracy"], tuple(found["interval"]), note="exact match")
    for kind, value in found["kinds"].items():
        yield Score(READING, kind, value, tuple(found["kind_intervals"][kind]))
    yield Score(
        READING, "blind", found["blind"], tuple(found["blind_interval"]), note="images exchanged", is_reference=True
    )
    yield Score(READING, "majority", found["majority"], note="always the commonest answer of a kind", is_reference=True)


def _understanding(results: Mapping[str, Any]) -> Iterator[Score]:
    tasks = {name: found for name, found in results.get("lmms", {}).items() if isinstance(found, Mapping)}
    for task, found in tasks.items():
        for metric, value in found.items():
            if isinstance(value, float) and not metric.endswith("_stderr"):
                interval = found.get(f"{metric}_interval")
                yield Score(UNDERSTANDING, f"{task} {metric}", value, tuple(interval) if interval else None)


def _question_files(results: Mapping[str, Any]) -> Iterator[Score]:
    """Benchmarks of the LLaVA 1.5 protocol."""
    for name, found in results.items():
        if isinstance(found, Mapping) and "metrics" in found:
            for metric, value in found["metrics"].items():
                interval = found["intervals"].get(metric)
                yield Score(f"Understanding ({name})", metric, value, tuple(interval) if interval else None)


def _alignment(results: Mapping[str, Any]) -> Iterator[Score]:
    """Of each curve its highest and its last point."""
    found = results.get("alignment")
    if not found:
        return
    group = f"Alignment (mutual {found['k']}-NN)"
    for way, curve in found["ways"].items():
        values = curve["alignment"]
        best = max(range(len(values)), key=values.__getitem__)
        for name, place, note in (("highest", best, "of all layers"), ("last layer", -1, "")):
            yield Score(group, f"{way}, {name}", values[place], tuple(curve["intervals"][place]), note=note)
    yield Score(group, "chance", found["chance"], note=f"{found['num_pairs']} pairs", is_reference=True)


def _tokenizer(results: Mapping[str, Any]) -> Iterator[Score]:
    found = results.get("tokenizer")
    if found:
        interval = (found["interval"][0], found["interval"][1])
        yield Score(TOKENIZER, "PSNR", found["psnr"], interval, "dB", f"{found['num_images']} held-out images")
