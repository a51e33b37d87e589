# SPDX-License-Identifier: Apache-2.0
"""Conversations for CoT-V are balanced, and their answers are what the verdicts say."""

import json
from pathlib import Path

from PIL import Image

from unigen.annotation.cotv import Conversations, choose_balanced, is_good
from unigen.annotation.step import run_step
from unigen.annotation.verdicts import RatedImage, RatedPrompt, read_rated
from unigen.rewards.rating_text import parse_think, think_prompt


def prompt(name: str, *patterns: str) -> RatedPrompt:
    """A prompt whose images have these verdicts, such as `yn`."""
    images = tuple(
        RatedImage(f"{name}_{index}.png", ("one?", "two?"), tuple(letter == "y" for letter in pattern), 0.0)
        for index, pattern in enumerate(patterns)
    )
    return RatedPrompt(name, f"prompt {name}", images)


def counts(prompts: list[RatedPrompt], most: int) -> dict[str, tuple[int, int]]:
    """Good and bad images taken of each prompt."""
    chosen = choose_balanced(prompts, most)
    return {
        one.id: tuple(sum(is_good(image) is kind for of, image in chosen if of is one) for kind in (True, False))  # type: ignore[misc]
        for one in prompts
    }


def test_a_prompt_with_both_kinds_gives_equally_many() -> None:
    mixed = prompt("a", "yy", "yy", "yy", "nn", "yn")
    assert counts([mixed], 4) == {"a": (2, 2)}
    assert counts([mixed], 1) == {"a": (1, 1)}


def test_prompts_of_one_kind_are_balanced_against_each_other_in_turn() -> None:
    good, other, bad = prompt("g", "yy", "yy", "yy"), prompt("h", "yy"), prompt("b", "nn", "yn")
    assert counts([good, other, bad], 4) == {"g": (1, 0), "h": (1, 0), "b": (0, 2)}
    assert counts([good], 4) == {"g": (0, 0)}


def test_bad_images_are_bad_in_different_ways() -> None:
    many = prompt("a", "yy", "yy", "nn", "nn", "yn", "ny")
    chosen = [image.verdicts for _, image in choose_balanced([many], 2) if not is_good(image)]
    assert chosen == [(False, False), (True, False)]


def test_a_record_is_llavas_and_reads_back_as_the_verdicts(tmp_path: Path) -> None:
    rated = [prompt("a", "yy", "yn")]
    for image in rated[0].images:
        Image.new("RGB", (8, 8)).save(tmp_path / image.filename)
    output = tmp_path / "cotv" / "cotv.jsonl"
    lines = run_step(Conversations(rated, "hash", tmp_path, output, 4), output).lines
    assert [line["id"] for line in lines] == ["a_0", "a_1"]
    human, gpt = lines[1]["conversations"]
    assert (output.parent / lines[1]["image"]).is_file()
    assert human == {"from": "human", "value": f"<image>\n{think_prompt('prompt a')}"}
    verdicts = parse_think(gpt["value"])
    assert [(one.question, one.is_yes) for one in verdicts.verdicts] == [("one?", True), ("two?", False)]
    assert verdicts.result is False
    assert parse_think(lines[0]["conversations"][1]["value"]).result is True


def test_images_of_other_prompts_make_up_for_a_prompt_that_has_good_ones_alone(tmp_path: Path) -> None:
    own, other = tmp_path / "answers.jsonl", tmp_path / "others.jsonl"
    line = {"id": "a", "prompt": "prompt a", "question": ["one?"], "answer": ["yes"], "score": 1.0}
    own.write_text("".join(json.dumps({**line, "filename": f"a_{index}.png"}) + "\n" for index in range(2)))
    wrong = {**line, "answer": ["no"], "score": 0.0}
    other.write_text("".join(json.dumps({**wrong, "filename": f"b_{index}.png"}) + "\n" for index in range(3)))
    for name in ("a_0", "a_1", "b_0", "b_1", "b_2"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    output = tmp_path / "cotv.jsonl"
    lines = run_step(Conversations(read_rated(own, other), "hash", tmp_path, output, 4), output).lines
    assert [line["id"] for line in lines] == ["a_0", "a_1", "b_0.a", "b_1.a"]
    results = [parse_think(line["conversations"][1]["value"]).result for line in lines]
    assert results == [True, True, False, False]
