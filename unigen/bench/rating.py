# SPDX-License-Identifier: Apache-2.0
"""Rating: questions about images, all at once behind what they share, against one at a time over whole rows with all logits.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigen.bench.figures import Figure, Setting
from unigen.bench.models import FULL_VOCABULARY, miniature_config, proportional_sizes, random_model, random_text
from unigen.bench.pairs import Expected, Pair
from unigen.data.batch import Batch, Sample, collate
from unigen.generation.autoregressive import ReadRows, TextSettings, read_behind, read_rows, text_logits, write_behind
from unigen.generation.shared_reading import ReadingRow, share_beginnings
from unigen.models.cost import LanguageModelCost
from unigen.models.unigen import UniGen
from unigen.reference.reading import write_text_slowly
from unigen.sequence.layout import Document, Visibility, text
from unigen.sequence.vocabulary import Vocabulary

FLOP_FLOOR, TIME_FLOOR = 20.0, 8.0
PROBABILITIES_FLOP_FLOOR = 3.0
LARGEST_DIFFERENCE = 1e-3
"""Of logits whose spread is about 10."""
NEVER = -1
"""A stop token that is never written."""
NUM_IMAGES = 2


@dataclass(frozen=True)
class _Sizes:
    """Tokens of an image, of a question about it and of an answer: a third of the real ones."""

    image: int = 255
    question: int = 24
    answer: int = 24


def measure(setting: Setting) -> Iterator[Figure]:
    """A miniature of 1.5B with a vocabulary in proportion and two images: answers in writing to two questions about each, and
    the logits from which yes is told from no for four."""
    sizes = _Sizes(48, 8, 24) if setting.is_quick else _Sizes()
    vocab_size, codebook_size = proportional_sizes(miniature_config(FULL_VOCABULARY, is_quick=setting.is_quick))
    config = miniature_config(vocab_size, is_quick=setting.is_quick)
    model, vocabulary = random_model(config, codebook_size, seed=setting.seed)
    cost = LanguageModelCost(config)
    generator = torch.Generator().manual_seed(setting.seed)
    writing = _Work(model, vocabulary, _rows(vocabulary, sizes, 2, generator), sizes)
    yield from Pair(
        f"rating/answers_of_{sizes.answer}",
        fast=writing.all_answers,
        twin=writing.answers_one_by_one,
        difference=_tokens_that_differ,
        expected=writing.expected_answers(cost),
    ).figures(setting, flop_floor=FLOP_FLOOR, time_floor=TIME_FLOOR, note="tokens that differ")
    reading = _Work(model, vocabulary, _rows(vocabulary, sizes, 4, generator), sizes)
    yield from Pair(
        "rating/probabilities",
        fast=reading.all_logits,
        twin=reading.logits_one_by_one,
        difference=lambda fast_BV, twin_BV: float((fast_BV - twin_BV).abs().max()),
        expected=reading.expected_logits(cost),
    ).figures(
        setting, flop_floor=PROBABILITIES_FLOP_FLOOR, time_floor=None, tolerance=LARGEST_DIFFERENCE, note="of logits"
    )


def _rows(
    vocabulary: Vocabulary, sizes: _Sizes, num_questions: int, generator: torch.Generator
) -> list[list[ReadingRow]]:
    """Questions by image; tokens that all rows see stand for an image."""
    groups = []
    for _ in range(NUM_IMAGES):
        image = text(random_text(vocabulary, sizes.image, generator), visibility=Visibility.OPEN)
        questions = [text(random_text(vocabulary, sizes.question, generator)) for _ in range(num_questions)]
        groups.append([ReadingRow(Sample("", Document(1, (image, question)))) for question in questions])
    return groups


@dataclass(frozen=True)
class _Work:
    model: UniGen
    vocabulary: Vocabulary
    groups: Sequence[Sequence[ReadingRow]]
    sizes: _Sizes

    @property
    def alone(self) -> list[Batch]:
        return [collate([[row.sample]]) for group in self.groups for row in group]

    @property
    def classes(self) -> int:
        return self.vocabulary.code_offset

    def all_answers(self) -> list[list[int]]:
        rows = self._read(self.sizes.answer)
        seeds = [0] * len(rows.ends_B)
        settings = TextSettings(max_new_tokens=self.sizes.answer)
        return write_behind(self.model, rows, NEVER, self.classes, settings, seeds)

    def answers_one_by_one(self) -> list[list[int]]:
        return [
            write_text_slowly(self.model, batch, None, NEVER, self.classes, self.sizes.answer) for batch in self.alone
        ]

    @torch.no_grad()
    def all_logits(self) -> Tensor:
        return text_logits(self.model, self._read(0).last_BD, self.classes)

    @torch.no_grad()
    def logits_one_by_one(self) -> Tensor:
        """All logits of every row, of which only the last are looked at."""
        found = []
        for batch in self.alone:
            hidden_1LD = self.model(batch.input_ids_RL, batch.positions_RL, batch.visible.dense())
            found.append((hidden_1LD[0] @ self.model.output_embedding_VD.T)[-1, : self.classes])
        return torch.stack(found)

    def _read(self, num_new: int) -> ReadRows:
        shared = share_beginnings(self.groups)
        beginnings = read_rows(self.model, collate([[sample] for sample in shared.beginnings]), None)
        return read_behind(self.model, beginnings, torch.tensor(shared.index), shared.texts, num_new)

    def expected_answers(self, cost: LanguageModelCost) -> Expected:
        """Every step sees the whole of the cache's buffers, which have room for all tokens."""
        sizes, rows = self.sizes, len(self.alone)
        whole = sizes.image + sizes.question
        steps = sizes.answer - 1
        written = cost.forward_flops(
            steps * rows * (whole + sizes.answer), steps * rows, sizes.answer * rows * self.classes
        )
        lengths = range(whole, whole + sizes.answer)
        return Expected(
            self._reading_flops(cost, sizes.answer) + written,
            rows * sum(cost.forward_flops(length**2, length, length * cost.config.vocab_size) for length in lengths),
        )

    def expected_logits(self, cost: LanguageModelCost) -> Expected:
        rows, whole = len(self.alone), self.sizes.image + self.sizes.question
        read = self._reading_flops(cost, 0) + cost.forward_flops(0, 0, rows * self.classes)
        return Expected(read, rows * cost.forward_flops(whole**2, whole, whole * cost.config.vocab_size))

    def _reading_flops(self, cost: LanguageModelCost, num_new: int) -> float:
        """Each image once, then all questions behind them."""
        sizes = self.sizes
        asked = len(self.alone) * sizes.question
        columns = sizes.image + sizes.question + num_new
        images = cost.forward_flops(NUM_IMAGES * sizes.image**2, NUM_IMAGES * sizes.image, 0)
        return images + cost.forward_flops(asked * columns, asked, 0)


def _tokens_that_differ(fast: list[list[int]], twin: list[list[int]]) -> float:
    pairs = ((a, b) for one, other in zip(fast, twin, strict=True) for a, b in zip(one, other, strict=True))
    return float(sum(a != b for a, b in pairs))
