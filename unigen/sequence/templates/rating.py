# SPDX-License-Identifier: Apache-2.0
"""The words of rating: what a model is asked about an image, and what it writes. Tags are plain text, as in released models."""

from collections.abc import Sequence

THINK_START, THINK_END = "<think_start>", "<think_end>"
ANSWER_START, ANSWER_END = "<answer_start>", "<answer_end>"
RATING_PROMPTS = {
    "outcome": (
        "This image was generated from the prompt: {context}\n"
        "Does the image show accurately what the prompt says? Please answer yes or no."
    ),
    "think": (
        "This image was generated from the prompt: {context}\n"
        "Step by step, ask visual questions about object classes, counts, colors and spatial relations, each answered Yes or "
        f"No, between {THINK_START} and {THINK_END}. Then write Yes if all are Yes, else No, between {ANSWER_START} and "
        f"{ANSWER_END}."
    ),
    "rule": "{context} Please answer yes or no.",
}


def think_answer(questions: Sequence[str], answers: Sequence[bool]) -> str:
    """What a model should write to `think_prompt`; `parse_think` reads it back.

    Args:
        questions: each ends with its only question mark.
    """
    assert questions
    asked = "; ".join(f"{question} {yes_or_no(is_yes)}" for question, is_yes in zip(questions, answers, strict=True))
    return f"{THINK_START} {asked} {THINK_END} {ANSWER_START} {yes_or_no(all(answers))} {ANSWER_END}"


def yes_or_no(is_yes: bool) -> str:
    return "Yes" if is_yes else "No"
