# SPDX-License-Identifier: Apache-2.0
"""LLaVA-style conversations: JSON and JSONL, sampling, several images, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import png, question, write_jsonl
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.records import Part
from unigen.data.sample import RawSample, Turn
from unigen.data.sources import open_source
from unigen.data.turns import read_turns
from unigen.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        path = tmp_path / f"datasets/images/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path


def source(root: Path, *paths: str, seed: int = 0, lanes: int = 2, **changes: Any) -> Any:
    config = SourceConfig("mmu", "conversations", list(paths), **{"images": "images", **changes})
    return open_source("talk", config, DataConfig(root=str(root), lanes=lanes), seed)


def outcomes(of: Any) -> dict[str, RawSample | str]:
    """By key: the sample, or the cause of its refusal."""
    found: dict[str, RawSample | str] = {}
    for shard in range(len(of.shards)):
        for record in of.read(shard, Part(), 0):
            try:
                found[record.key] = of.decode(record, Draws(0, record.key, 0))
            except SampleRefused as refused:
                found[record.key] = refused.cause
    return found


def test_json_and_jsonl_hold_the_same_samples(root: Path) -> None:
    records = [question(number, f"{number}.png") for number in range(12)]
    records[5]["note"] = 'ünïcode, "quotes", ] and [ and \\ in it 漢字'
    write_jsonl(root / "datasets/talk.jsonl", records)
    for name, indent in (("flat.json", None), ("wide.json", 2)):
        (root / "datasets" / name).write_text(json.dumps(records, ensure_ascii=False, indent=indent), encoding="utf-8")
    kinds = [outcomes(source(root, name)) for name in ("talk.jsonl", "flat.json", "wide.json")]
    for found in kinds:
        assert len(found) == 12
        for key, sample in found.items():
            number = key.rsplit("/", 1)[1]
            assert isinstance(sample, RawSample)
            assert sample.turns == (Turn("user", f"What is {number}?"), Turn("assistant", f"It is {number}."))
            assert [image.size for image in sample.images] == [(32, 32)]


def test_a_record_may_have_several_images_or_none_by_design(root: Path) -> None:
    forgotten = question(3, "0.png")
    del forgotten["image"]
    write_jsonl(root / "datasets/talk.jsonl", [question(1, ["0.png", "1.png"]), question(2), forgotten])
    found = outcomes(source(root, "talk.jsonl"))
    assert len(found["talk/talk.jsonl/0"].images) == 2  # type: ignore[union-attr]
    assert found["talk/talk.jsonl/1"].images == ()  # type: ignore[union-attr]
    assert found["talk/talk.jsonl/2"] == "missing_image"


def test_what_is_wrong_with_a_record_is_said_by_its_cause_and_no_image_is_made_up(root: Path) -> None:
    (root / "datasets/images/bad.png").write_bytes(b"x")
    records = [
        question(0, "0.png"),
        '{"image": "0.png", "conv',
        "[1, 2]",
        question(1, "gone.png"),
        question(2, "bad.png"),
    ]
    write_jsonl(root / "datasets/talk.jsonl", [*records, {"image": "0.png"}, {**question(1), "image": {"a": 1}}])
    causes = [outcome for _, outcome in sorted(outcomes(source(root, "talk.jsonl")).items())][1:]
    assert causes == ["not_json", "bad_conversation", "missing_image", "unreadable_image", *["bad_conversation"] * 2]


@pytest.mark.parametrize(("take", "expected"), [("50%", 50), ("7", 7), ("100%", 100), ("999", 100), ("0%", 0)])
def test_a_share_or_a_number_of_records_is_drawn_at_random_and_stays_drawn(
    root: Path, take: str, expected: int
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(root / "datasets" / name, [question(number) for number in range(100)])
    opened = source(root, "a.jsonl", "b.jsonl", take=[take, "3"])
    keys = set(outcomes(opened))
    assert opened.num_samples() == len(keys) == expected + 3
    assert sum("b.jsonl" in key for key in keys) == 3
    assert keys == set(outcomes(source(root, "a.jsonl", "b.jsonl", take=[take, "3"])))
    if 3 < expected < 100:
        other = set(outcomes(source(root, "a.jsonl", "b.jsonl", take=[take, "3"], seed=1)))
        assert len(other) == len(keys)
        assert other != keys
        assert sorted(int(key.rsplit("/", 1)[1]) for key in keys if "a.jsonl" in key) != list(range(expected))


@pytest.mark.parametrize(
    ("take", "message"), [(["50%"], "1 entries for 2 files"), (["half", "1"], "has 'half'; write '50%'")]
)
def test_a_take_that_makes_no_sense_is_refused(root: Path, take: list[str], message: str) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(root / "datasets" / name, [question(0)])
    with pytest.raises(ConfigError, match=message):
        source(root, "a.jsonl", "b.jsonl", take=take)


def test_every_lane_gets_records_and_no_record_is_lost(root: Path) -> None:
    write_jsonl(root / "datasets/talk.jsonl", [question(number) for number in range(2500)])
    opened = source(root, "talk.jsonl", lanes=4)
    sizes = [sum(1 for _ in opened.read(shard, Part(), 0)) for shard in range(len(opened.shards))]
    assert sizes == [625] * 4
    assert [record.key for record in opened.read(0, Part(1, 3), 2)] == [
        record.key for record in opened.read(0, Part(), 0)
    ][7::3]


def test_a_damaged_json_list_or_an_absent_file_is_refused_by_name(root: Path) -> None:
    (root / "datasets/cut.json").write_text('[{"conversations": []}, {"conv')
    with pytest.raises(DataError, match=r"cut\.json is not a JSON list"):
        source(root, "cut.json")
    with pytest.raises(DataError, match=r"there is no file .*gone\.jsonl"):
        source(root, "gone.jsonl")


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": text} for role, text in pairs]


def test_a_leading_answer_and_a_trailing_question_are_left_out() -> None:
    found = read_turns(turns(("gpt", "hello"), ("human", "a?"), ("gpt", "b"), ("human", "c?")))
    assert found == (Turn("user", "a?"), Turn("assistant", "b"))


@pytest.mark.parametrize("text", ["<image>\nWhat?", "What?\n<image>", "<image> What?", " <image>\n<image>\nWhat? "])
def test_image_marks_leave_no_trace(text: str) -> None:
    assert read_turns(turns(("human", text), ("gpt", "b")))[0].text == "What?"


@pytest.mark.parametrize(
    "conversation",
    [
        None,
        [],
        turns(("human", "a")),
        turns(("human", "a"), ("human", "b"), ("gpt", "c")),
        turns(("human", "a"), ("gpt", " ")),
        turns(("tool", "a"), ("gpt", "b")),
        [{"from": "human"}, {"from": "gpt", "value": "b"}],
        ["a", "b"],
    ],
)
def test_a_conversation_that_is_none_is_refused(conversation: object) -> None:
    with pytest.raises(SampleRefused) as refused:
        read_turns(conversation)
    assert refused.value.cause == "bad_conversation"
