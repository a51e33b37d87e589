# SPDX-License-Identifier: Apache-2.0
"""Captions judged pairwise by a server that stands in for a judge: both orders, parsing, resuming, failures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.annotation.endpoint import endpoint, words_of
from unigen.annotation.caption_duels import ORDERS, TIE, parse_verdict, read_duels
from unigen.cli.main import main
from unigen.errors import DataError

CAPTIONS = {
    "a": ["a long and true caption", "a true caption", "the same"],
    "b": ["wrong", "a better and longer true caption", "the same"],
}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The images, and captions of them by two models in different orders of lines."""
    paths = []
    for number in range(3):
        Image.new("RGB", (4, 4), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    for side, captions in CAPTIONS.items():
        lines = [{"image": str(tmp_path / f"{n}.png"), "caption": text} for n, text in enumerate(captions)]
        path = tmp_path / f"{side}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in (lines if side == "a" else lines[::-1])))
        paths.append(path)
    return paths


def shown(request: Mapping[str, Any]) -> tuple[str, str]:
    """The two captions that a judge was shown, in their order."""
    words = words_of(dict(request))
    first, _, rest = words.partition("Description 1:\n")[2].partition("\n\nDescription 2:\n")
    return first, rest.partition("\n\nWhich of them")[0]


def prefers_longer(request: dict[str, Any]) -> str:
    first, second = shown(request)
    if len(first) == len(second):
        return "They say the same.\nVerdict: tie"
    return f"Description 2 is fine, but I weigh them.\n**Verdict: {1 if len(first) > len(second) else 2}**"


Study = Callable[..., int]


@pytest.fixture
def study(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("OPENAI_API_KEY", "test")

    def run(base_url: str, *words: str) -> int:
        judge = ["--judge", "endpoint", "--model", "m", "--base-url", base_url, "--num-attempts", "1"]
        return main(["study", "captions", *map(str, files), "--output", str(tmp_path / "out"), *judge, *words])

    return run


def test_a_judge_sees_each_image_in_both_orders_and_its_preferences_make_the_rate(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoint(prefers_longer) as server:
        assert study(server.base_url, "--json") == 0
        summary = json.loads(capsys.readouterr().out)
        pairs = sorted(shown(request) for request in server.asked)
        wanted = list(zip(CAPTIONS["a"], CAPTIONS["b"], strict=True))
        assert pairs == sorted([*wanted, *[pair[::-1] for pair in wanted]])
        assert all("image_url" in json.dumps(request) for request in server.asked)
        assert study(server.base_url) == 0
        assert len(server.asked) == 6, "what is judged is not asked again"
    assert summary == json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["win_rate"]["mean"] == pytest.approx(0.5)
    assert (summary["wins"], summary["losses"], summary["ties"]) == (1, 1, 1)
    assert summary["judge"]["model"] == "m"
    lines = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert [line["verdicts"] for line in lines] == [["a", "a"], ["b", "b"], ["tie", "tie"]]
    assert "wins 1, losses 1, ties 1" in capsys.readouterr().out


def test_a_judge_that_says_nothing_clear_is_counted(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unclear(request: dict[str, Any]) -> str:
        return "Both are nice." if "wrong" in shown(request) else prefers_longer(request)

    with endpoint(unclear) as server:
        assert study(server.base_url) == 0
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (summary["num_judged"], summary["num_unparseable_replies"]) == (2, 2)
    assert "1 of 3 images have no verdict in both orders" in capsys.readouterr().out


def test_an_image_that_cannot_be_judged_is_named_and_tried_again_by_the_next_run(
    study: Study, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = (tmp_path / "1.png").rename(tmp_path / "elsewhere.png")
    with endpoint(prefers_longer) as server:
        assert study(server.base_url) == 1
        assert "caption duels, 1.png: cannot read" in capsys.readouterr().err
        hidden.rename(tmp_path / "1.png")
        assert study(server.base_url) == 0
        assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: 1", "a"),
        ("verdict: 2.", "b"),
        ("**Verdict:** 2", "b"),
        ("Verdict: Tie", TIE),
        ("Verdict: 1, at first. On reflection:\nVerdict: 2", "b"),
        ("1", "a"),
        (" 2. ", "b"),
        ("tie", TIE),
        ("Description 1 is better.", None),
        ("Verdict: 3", None),
        ("Verdict: 12", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_where_it_is_stated_and_turned_with_the_order(reply: str, verdict: str | None) -> None:
    assert parse_verdict(reply, ORDERS[0]) == verdict
    turned = {"a": "b", "b": "a"}.get(str(verdict), verdict)
    assert parse_verdict(reply, ORDERS[1]) == turned


def test_captions_of_different_images_are_refused(files: list[Path]) -> None:
    first, second = files
    second.write_text("".join(second.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"b.jsonl has no caption of 2.png"):
        read_duels(first, second)
    with pytest.raises(DataError, match=r"b.jsonl has no caption of 2.png"):
        read_duels(second, first)
    first.write_text(first.read_text() * 2)
    with pytest.raises(DataError, match=r"two captions of 0.png"):
        read_duels(first, second)
