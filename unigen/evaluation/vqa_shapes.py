# SPDX-License-Identifier: Apache-2.0
"""Questions about held-out images of the world of shapes: one-word answers, exact match.

Beside the accuracy stand two scores of not looking: always the commonest answer of a kind of question (`majority`), and the
model's own answers when the images are exchanged among the questions (`blind`).
"""

import string
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.manifest import file_hash, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.families import UAE, UNIFORK, UNIGEN
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import Job
from unigen.evaluation.records import RecordWriter, read_records
from unigen.evaluation.statistics import Estimate, clustered, estimate
from unigen.generation.pipeline import AskRequest

QUESTIONS_FILE = "evaluation/vqa_shapes.jsonl"
MAX_NEW_TOKENS = 16
LOOKING, BLIND = 0, 1  # the two samples of a question

Entry = Mapping[str, Any]
Answer = tuple[Entry, bool]
"""A question, and whether its answer was right."""


class VqaShapes:
    name = "vqa_shapes"
    families = frozenset({UNIGEN, UNIFORK, UAE})

    def check(self, job: Job) -> None:
        _work(job)
        open_run(job.folder, _identity(job), writes=False)

    def run(self, job: Job) -> list[str]:
        entries, items = _work(job)
        open_run(job.folder, _identity(job), writes=job.ranks.is_first)
        records = read_records(job.folder)
        pending = [item for item in job.share(items) if item.item_id not in records]
        images = {LOOKING: {}, BLIND: exchanged([entry["image"] for entry in entries], job.options.seed)}
        ready: list[tuple[Item, str]] = []
        requests: list[AskRequest] = []
        failures = []
        for item in pending:
            image = entries[item.index]["image"]
            image = images[item.sample].get(image, image)
            try:
                requests.append(_request(job.options.world, entries[item.index], image))
                ready.append((item, image))
            except (OSError, SampleRefused) as error:
                failures.append(f"{self.name}, item {item.item_id}: {image}: {error}")
        answers = job.pipeline.ask_requests(
            requests, batch_size=job.options.batch_size, temperature=0.0, max_new_tokens=MAX_NEW_TOKENS
        )
        writer = RecordWriter(job.folder, job.ranks.rank)
        for (item, image), answer in job.progress(zip(ready, answers, strict=True), len(ready), self.name):
            writer.append(item, _record(entries[item.index], image, answer, job.ranks.rank))
        return failures

    def score(self, job: Job) -> dict[str, Any]:
        entries, items = _work(job)
        finished = job.finished(self.name, items)
        seen = [(entries[item.index], record, item.sample) for item, record in finished.pairs]
        looking = [(entry, record["correct"]) for entry, record, sample in seen if sample == LOOKING]
        blind = [(entry, record["correct"]) for entry, record, sample in seen if sample == BLIND]
        if not (looking and blind):
            raise EvaluationError(f"{self.name}: too little is done for a score; run the same command again")
        return {self.name: {**score_answers(looking, blind), **finished.mark}}


def normalised(answer: str) -> str:
    """Lower case, without punctuation and outer or repeated blanks."""
    return " ".join(answer.lower().translate(str.maketrans("", "", string.punctuation)).split())


def exchanged(images: Sequence[str], seed: int) -> dict[str, str]:
    """Another image for each different image: one random cycle, so that none keeps its own (but a single one, which must)."""
    unique = list(dict.fromkeys(images))
    order = np.random.default_rng([seed, 1]).permutation(len(unique))
    return {unique[here]: unique[there] for here, there in zip(order, np.roll(order, 1), strict=True)}


def score_answers(looking: Sequence[Answer], blind: Sequence[Answer]) -> dict[str, Any]:
    """Accuracy with its interval (questions about one image are a cluster), by kind, and what it has to be compared with."""
    entries = [entry for entry, _ in looking]
    kinds = list(dict.fromkeys(entry["kind"] for entry in entries))
    overall, shuffled = _accuracy(looking), _accuracy(blind)
    by_kind = {kind: _accuracy(looking, kind) for kind in kinds}
    return {
        "accuracy": overall.value,
        "interval": overall.interval,
        "kinds": {kind: found.value for kind, found in by_kind.items()},
        "kind_intervals": {kind: found.interval for kind, found in by_kind.items()},
        "majority": majority(entries),
        "blind": shuffled.value,
        "blind_interval": shuffled.interval,
        "num_questions": len(entries),
    }


def majority(entries: Sequence[Entry]) -> float:
    """Accuracy of always giving the commonest answer of each kind of question."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        answers[entry["kind"]][normalised(entry["answer"])] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(entries)


def _accuracy(answers: Sequence[Answer], kind: str | None = None) -> Estimate:
    return estimate(clustered((entry["image"], right) for entry, right in answers if kind in (None, entry["kind"])))


def _work(job: Job) -> tuple[list[dict[str, Any]], list[Item]]:
    remedy = "give the folder of a world of shapes with --data"
    entries = read_entries(job.options.world / QUESTIONS_FILE, ("image", "question", "answer", "kind"), remedy)
    return entries, expand(VqaShapes.name, len(entries), 2, job.options.seed)


def _identity(job: Job) -> dict[str, Any]:
    """What the answers depend on."""
    return job.identity(file_hash(job.options.world / QUESTIONS_FILE), max_new_tokens=MAX_NEW_TOKENS)


def _request(world: Path, entry: Entry, image: str) -> AskRequest:
    content = ((world / QUESTIONS_FILE).parent / image).read_bytes()
    return AskRequest(entry["question"], (decode_image(content),))


def _record(entry: Entry, image: str, prediction: str, rank: int) -> dict[str, Any]:
    return {
        "kind": entry["kind"],
        "question": entry["question"],
        "answer": entry["answer"],
        "prediction": prediction,
        "correct": normalised(prediction) == normalised(entry["answer"]),
        "image": image,
        "rank": rank,
    }
