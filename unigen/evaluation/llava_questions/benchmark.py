# SPDX-License-Identifier: Apache-2.0
"""Understanding by the LLaVA 1.5 protocol: every question of a file about its image, greedily, then a benchmark's own rules.

The questions are asked as they stand. The answers are also written as the protocol's answer file, `answers.jsonl`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.config.evaluation import QuestionFileConfig
from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.json_files import write_lines
from unigen.data.manifest import file_hash, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.families import UNIFORK, UNIGEN
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import Job
from unigen.evaluation.llava_questions.answers import Answered, Scores
from unigen.evaluation.llava_questions.gqa import score_gqa
from unigen.evaluation.llava_questions.mme import score_mme
from unigen.evaluation.llava_questions.pope import score_pope
from unigen.evaluation.llava_questions.seed import score_seed
from unigen.evaluation.llava_questions.vqav2 import score_vqav2
from unigen.evaluation.records import RecordWriter, read_records
from unigen.generation.pipeline import AskRequest

MAX_NEW_TOKENS = 128
MAX_PIXELS = 2**28
ANSWERS_NAME = "answers.jsonl"


@dataclass(frozen=True)
class Places:
    """Where the files of a benchmark lie, unless its settings say otherwise: as the protocol's folder has them."""

    questions: str
    images: str
    truth: str | None


@dataclass
class QuestionBenchmark:
    """One benchmark of question files."""

    name: str
    places: Places
    rules: Callable[[Sequence[Answered], Any, Path], Scores]
    """Of the answers, the truth and the folder for its files."""
    families = frozenset({UNIGEN, UNIFORK})

    def check(self, job: Job) -> None:
        self._work(job)
        self._truth(job)
        open_run(job.folder, self._identity(job), writes=False)

    def run(self, job: Job) -> list[str]:
        questions, items = self._work(job)
        open_run(job.folder, self._identity(job), writes=job.ranks.is_first)
        records = read_records(job.folder)
        failures: list[str] = []
        ready: list[Item] = []
        requests: list[AskRequest] = []
        for item in job.share(items):
            if item.item_id in records:
                continue
            question = questions[item.index]
            try:
                requests.append(_request(question, self._images(job)))
                ready.append(item)
            except (OSError, SampleRefused) as error:
                failures.append(f"{self.name}, question {question['question_id']}: {question['image']}: {error}")
        answers = job.pipeline.ask_requests(
            requests, batch_size=job.options.batch_size, temperature=0.0, max_new_tokens=MAX_NEW_TOKENS
        )
        writer = RecordWriter(job.folder, job.ranks.rank)
        for item, text in job.progress(zip(ready, answers, strict=True), len(ready), self.name):
            question_id = questions[item.index]["question_id"]
            writer.append(item, {"question_id": question_id, "text": text, "rank": job.ranks.rank})
        return failures

    def score(self, job: Job) -> dict[str, Any]:
        questions, items = self._work(job)
        finished = job.finished(self.name, items)
        answered = [Answered(questions[item.index], record["text"]) for item, record in finished.pairs]
        write_lines([one.line(job.pipeline.name) for one in answered], job.folder / ANSWERS_NAME)
        scores = self.rules(answered, self._truth(job), job.folder)
        return {self.name: {**scores.content(), "num_questions": len(answered), **finished.mark}}

    def _identity(self, job: Job) -> dict[str, Any]:
        return job.identity(file_hash(self._questions_file(job)), max_new_tokens=MAX_NEW_TOKENS)

    def _settings(self, job: Job) -> QuestionFileConfig:
        found: QuestionFileConfig = getattr(job.options, self.name)
        return found

    def _questions_file(self, job: Job) -> Path:
        return Path(self._settings(job).questions or self.places.questions)

    def _images(self, job: Job) -> Path:
        return Path(self._settings(job).images or self.places.images)

    def _truth(self, job: Job) -> Path | None:
        place = self._settings(job).truth or self.places.truth
        if place is None:
            return None
        if not Path(place).exists():
            raise EvaluationError(
                f"{self.name}: there is no {place}; name the benchmark's answers by {self.name}.truth=PATH"
            )
        return Path(place)

    def _work(self, job: Job) -> tuple[list[dict[str, Any]], list[Item]]:
        remedy = f"name the question file by {self.name}.questions=FILE"
        questions = read_entries(self._questions_file(job), ("question_id", "image", "text"), remedy)
        return questions, expand(self.name, len(questions), 1, job.options.seed)


def _request(question: Mapping[str, Any], images: Path) -> AskRequest:
    content = (images / question["image"]).read_bytes()
    return AskRequest(str(question["text"]), (decode_image(content, max_pixels=MAX_PIXELS),))


_ROOT = "playground/data/eval"
MME = QuestionBenchmark(
    "mme",
    Places(
        f"{_ROOT}/MME/llava_mme.jsonl",
        f"{_ROOT}/MME/MME_Benchmark_release_version",
        f"{_ROOT}/MME/MME_Benchmark_release_version",
    ),
    score_mme,
)
POPE = QuestionBenchmark(
    "pope", Places(f"{_ROOT}/pope/llava_pope_test.jsonl", f"{_ROOT}/pope/val2014", f"{_ROOT}/pope/coco"), score_pope
)
SEED_BENCH = QuestionBenchmark(
    "seed_bench",
    Places(f"{_ROOT}/seed_bench/llava-seed-bench.jsonl", f"{_ROOT}/seed_bench", f"{_ROOT}/seed_bench/SEED-Bench.json"),
    score_seed,
)
VQAV2 = QuestionBenchmark(
    "vqav2",
    Places(f"{_ROOT}/vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", f"{_ROOT}/vqav2/test2015", None),
    score_vqav2,
)
GQA = QuestionBenchmark(
    "gqa",
    Places(
        f"{_ROOT}/gqa/llava_gqa_testdev_balanced.jsonl",
        f"{_ROOT}/gqa/data/images",
        f"{_ROOT}/gqa/data/testdev_balanced_questions.json",
    ),
    score_gqa,
)
