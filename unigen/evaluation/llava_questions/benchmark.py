# SPDX-License-Identifier: Apache-2.0
"""Understanding by the LLaVA 1.5 protocol: every question of a file about its image, greedily, then a benchmark's own rules.

The questions are asked as they stand. The answers are also written as the protocol's answer file, `answers.jsonl`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.config.evaluation import QuestionFileConfig
from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.json_files import write_lines
from unigen.data.manifest import file_hash, open_run
from unigen.evaluation.families import UAE, UNIFORK, UNIGEN
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import Job
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores
from unigen.evaluation.llava_questions.gqa import score_gqa
from unigen.evaluation.llava_questions.mme import score_mme
from unigen.evaluation.llava_questions.pope import score_pope
from unigen.evaluation.llava_questions.seed import score_seed
from unigen.evaluation.llava_questions.vqav2 import require_processor, score_vqav2
from unigen.evaluation.places import find_playground_file
from unigen.evaluation.records import RecordWriter, read_records
from unigen.generation.pipeline import AskRequest

MAX_NEW_TOKENS = 128
ANSWERS_NAME = "answers.jsonl"


@dataclass(frozen=True)
class Places:
    """Where the files of a benchmark lie below the protocol's folder, unless its settings say otherwise."""

    questions: str
    images: str
    truth: str | None
    """None where the right answers are known to a server alone."""


@dataclass
class QuestionBenchmark:
    """One benchmark of question files."""

    name: str
    places: Places
    rules: Callable[[Sequence[Answered], Files], Scores]
    require: Callable[[], object] = lambda: None
    """Complains of what the rules need and is not installed, before anything is asked."""
    families = frozenset({UNIGEN, UNIFORK, UAE})

    def check(self, job: Job) -> None:
        self.require()
        self._work(job)
        open_run(job.folder, self._identity(job), writes=False)

    def run(self, job: Job) -> list[str]:
        files, questions, items = self._work(job)
        open_run(job.folder, self._identity(job), writes=job.ranks.is_first)
        records = read_records(job.folder)
        pending = [(item, questions[item.index]) for item in job.share(items) if item.item_id not in records]
        asked: deque[tuple[Item, Mapping[str, Any]]] = deque()
        failures: list[str] = []
        answers = job.pipeline.ask_requests(
            _requests(pending, files.images, asked, failures),
            batch_size=job.options.batch_size,
            temperature=0.0,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        writer = RecordWriter(job.folder, job.ranks.rank)
        for text in job.progress(answers, len(pending), self.name):
            item, question = asked.popleft()
            writer.append(item, {"question_id": question["question_id"], "text": text, "rank": job.ranks.rank})
        return [f"{self.name}, {line}" for line in failures]

    def score(self, job: Job) -> dict[str, Any]:
        files, questions, items = self._work(job)
        finished = job.finished(self.name, items)
        answered = [Answered(questions[item.index], record["text"]) for item, record in finished.pairs]
        write_lines([one.line(job.pipeline.name) for one in answered], job.folder / ANSWERS_NAME)
        scores = self.rules(answered, files)
        return {self.name: {**scores.content(), "num_questions": len(answered), **finished.mark}}

    def _identity(self, job: Job) -> dict[str, Any]:
        return job.identity(file_hash(self._files(job).questions), max_new_tokens=MAX_NEW_TOKENS)

    def _files(self, job: Job) -> Files:
        """Raises EvaluationError, naming the setting, where one is not there."""
        settings: QuestionFileConfig = getattr(job.options, self.name)

        def find(given: str | None, field: str, usual: str) -> Path:
            return find_playground_file(given, f"{self.name}.{field}", usual, job.options.data_root)

        truth = settings.truth or self.places.truth
        return Files(
            find(settings.questions, "questions", self.places.questions),
            find(settings.images, "images", self.places.images),
            None if truth is None else find(settings.truth, "truth", truth),
            job.folder,
        )

    def _work(self, job: Job) -> tuple[Files, list[dict[str, Any]], list[Item]]:
        files = self._files(job)
        remedy = f"name the question file by {self.name}.questions=FILE"
        questions = read_entries(files.questions, ("question_id", "image", "text"), remedy)
        return files, questions, expand(self.name, len(questions), 1, job.options.seed)


def _requests(
    pending: Sequence[tuple[Item, Mapping[str, Any]]],
    images: Path,
    asked: deque[tuple[Item, Mapping[str, Any]]],
    failures: list[str],
) -> Iterator[AskRequest]:
    """The questions one by one, each image read when its turn comes: a benchmark's images together are larger than memory.

    Neighbouring questions about one image get the same object, so that what they begin with is read once.

    Args:
        asked: gets what is asked, in the order in which answers will come.
        failures: gets a line for each question whose image cannot be read; it is not asked.
    """

    @lru_cache(maxsize=1)
    def read(name: str) -> Image.Image:
        return decode_image((images / name).read_bytes())

    for item, question in pending:
        try:
            image = read(question["image"])
        except (OSError, SampleRefused) as error:
            failures.append(f"question {question['question_id']}: {question['image']}: {error}")
            continue
        asked.append((item, question))
        yield AskRequest(str(question["text"]), (image,))


_MME_RELEASE = "MME/MME_Benchmark_release_version"
_BENCHMARKS = (
    QuestionBenchmark("mme", Places("MME/llava_mme.jsonl", _MME_RELEASE, _MME_RELEASE), score_mme),
    QuestionBenchmark("pope", Places("pope/llava_pope_test.jsonl", "pope/val2014", "pope/coco"), score_pope),
    QuestionBenchmark(
        "seed_bench",
        Places("seed_bench/llava-seed-bench.jsonl", "seed_bench", "seed_bench/SEED-Bench.json"),
        score_seed,
    ),
    QuestionBenchmark(
        "vqav2",
        Places("vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", "vqav2/test2015", None),
        score_vqav2,
        require_processor,
    ),
    QuestionBenchmark(
        "gqa",
        Places("gqa/llava_gqa_testdev_balanced.jsonl", "gqa/data/images", "gqa/data/testdev_balanced_questions.json"),
        score_gqa,
    ),
)
QUESTION_BENCHMARKS: dict[str, Callable[[], QuestionBenchmark]] = {
    one.name: partial(replace, one) for one in _BENCHMARKS
}
"""What makes each, by name."""
