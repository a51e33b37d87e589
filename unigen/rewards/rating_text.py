# SPDX-License-Identifier: Apache-2.0
"""What a model is asked when it rates an image, and how its answers are read: the styles `outcome`, `think` and `rule`.

`outcome` asks once whether the image shows the prompt; `think` has the model ask and answer its own questions (CoT-V, arXiv
2505.14682, section 3.4); `rule` asks questions that were made beforehand. The tags are plain text, as in the released models.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unigen.rewards.verdict_words import leading_verdict
from unigen.sequence.templates.rating import ANSWER_END, ANSWER_START, RATING_PROMPTS, THINK_END, THINK_START, yes_or_no

_PAIR = re.compile(r"([^?]*\?)\s*(yes|no)\b", re.IGNORECASE)
_BEFORE_QUESTION = " \t\r\n;,.:*-"


@dataclass(frozen=True)
class Verdict:
    """One question and its answer."""

    question: str
    is_yes: bool


@dataclass(frozen=True)
class Verdicts:
    """What was read from a written rating: at least one verdict."""

    verdicts: tuple[Verdict, ...]
    is_parsed: bool = True
    """False where the text held no answer, which counts as one `no`."""
    result: bool | None = None
    """What `think` says between its answer tags; kept, and not scored."""

    @property
    def num_yes(self) -> int:
        return sum(verdict.is_yes for verdict in self.verdicts)

    @property
    def score(self) -> float:
        """Share of the questions that were answered with yes."""
        return self.num_yes / len(self.verdicts)


def outcome_prompt(context: str) -> str:
    """Asks whether an image shows the prompt `context`."""
    return RATING_PROMPTS["outcome"].format(context=context)


def think_prompt(context: str) -> str:
    """Asks for questions about the prompt `context`, their answers, and a result."""
    return RATING_PROMPTS["think"].format(context=context)


def rule_prompt(question: str) -> str:
    """Asks one question for a yes or a no."""
    return RATING_PROMPTS["rule"].format(context=question)


def think_so_far(verdicts: Sequence[Verdict], question: str) -> str:
    """The beginning of such an answer, up to a question that is to be answered next."""
    before = "".join(f"{verdict.question} {yes_or_no(verdict.is_yes)}; " for verdict in verdicts)
    return f"{THINK_START} {before}{question}"


def parse_think(text: str) -> Verdicts:
    """Every `...? yes` and `...? no` between the think tags; a missing tag stands at its end of the text.

    `yes` and `no` count as whole words only, in any case.
    """
    thought = _between(text, THINK_START, THINK_END)
    verdicts = tuple(
        Verdict(question.strip(_BEFORE_QUESTION), answer.lower() == "yes")
        for question, answer in _PAIR.findall(thought)
    )
    result = leading_verdict(_between(text, ANSWER_START, ANSWER_END)) if ANSWER_START in text else None
    return Verdicts(verdicts or (Verdict("", False),), bool(verdicts), result)


def parse_leading(question: str, text: str) -> Verdicts:
    """The yes or no that the text begins with, after blanks and punctuation; anything else is a no."""
    found = leading_verdict(text)
    return Verdicts((Verdict(question, found is True),), found is not None)


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2 if start in text else 0].partition(end)[0]
