# SPDX-License-Identifier: Apache-2.0
"""Shards are written anew with other captions and the same images, whole or not at all."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.annotation.test_questions import Saying
from tests.data.archives import captioned, png, write_tar
from unigen.annotation.judges.judge import Judge, Reply, Request
from unigen.annotation.recaption import LIST_NAME, Recaption
from unigen.annotation.step import Outcome, run_folder, run_step
from unigen.errors import ConfigError, EvaluationError

K = TypeVar("K")


class Failing(Saying):
    """Numbers its replies; breaks off after some, or fails from then on."""

    def __init__(self, after: int, breaks_off: bool = False) -> None:
        super().__init__("a caption of five words")
        self.num_asked, self._after, self._breaks_off = 0, after, breaks_off

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        for key, request in requests:
            if self.num_asked >= self._after and self._breaks_off:
                raise KeyboardInterrupt
            self.num_asked += 1
            yield (
                key,
                Reply(error="busy")
                if self.num_asked > self._after
                else Reply(f"caption {self.num_asked} {request.text}"),
            )


def recaption(shards: list[Path], output: Path, judge: Judge, style: str = "chat") -> tuple[Recaption, Outcome]:
    ledgers = run_folder(output / LIST_NAME)
    step = Recaption([str(shard) for shard in shards], judge, style, output=output, ledgers=ledgers, rank=0)
    return step, run_step(step, output / LIST_NAME)


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]


def test_images_and_all_but_the_text_stay_as_they_were(tmp_path: Path) -> None:
    sample = {"jpg": png(1), "txt": b"old", "caption": b"older", "json": b'{"a": 1}'}
    shard = write_tar(tmp_path / "in" / "data-0.tar", [("a", sample), *captioned(0, 1)])
    step, outcome = recaption([shard], tmp_path / "out", Saying(" new  words "))
    assert members(tmp_path / "out" / "data-0.tar") == {
        "a.jpg": png(1),
        "a.json": b'{"a": 1}',
        "a.txt": b"new  words",
        "000000.png": png(0),
        "000000.txt": b"new  words",
    }
    assert outcome.lines == [{"shard": str(shard), "num_captions": 2, "refused": []}]
    assert [record["num_words"] for record in step.captions()] == [2, 2]


def test_captions_that_came_before_a_break_are_not_asked_for_again(tmp_path: Path) -> None:
    shards = [write_tar(tmp_path / "in" / f"data-{n}.tar", captioned(10 * n, 3)) for n in range(2)]
    with pytest.raises(KeyboardInterrupt):
        recaption(shards, tmp_path / "out", Failing(after=4, breaks_off=True))
    assert [file.name for file in (tmp_path / "out").glob("*.tar")] == ["data-0.tar"]
    whole = members(tmp_path / "out" / "data-0.tar")
    rest = Failing(after=99)
    _, outcome = recaption(shards, tmp_path / "out", rest)
    assert rest.num_asked == 2
    assert members(tmp_path / "out" / "data-0.tar") == whole
    assert [line["num_captions"] for line in outcome.lines] == [3, 3]
    second = members(tmp_path / "out" / "data-1.tar")
    assert sorted(name for name in second if name.endswith(".txt")) == ["000010.txt", "000011.txt", "000012.txt"]
    assert second["000010.txt"].startswith(b"caption 4 ")


def test_a_shard_whose_judge_failed_is_not_written_until_it_is_whole(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "data.tar", captioned(0, 3))
    _, outcome = recaption([shard], tmp_path / "out", Failing(after=2))
    assert "1 of 3 captions are missing, first 000002: busy" in outcome.failures[0]
    assert not (tmp_path / "out" / "data.tar").exists()
    rest = Failing(after=99)
    assert recaption([shard], tmp_path / "out", rest)[1].failures == []
    assert rest.num_asked == 1


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    samples = [("bad", {"jpg": b"no image"}), *captioned(0, 1), ("none", {"txt": b"text alone"})]
    shard = write_tar(tmp_path / "in" / "data.tar", samples)
    judge = Saying("fine")
    _, outcome = recaption([shard], tmp_path / "out", judge)
    assert set(members(tmp_path / "out" / "data.tar")) == {"000000.png", "000000.txt"}
    (line,) = outcome.lines
    assert [one.split(":")[0] for one in line["refused"]] == ["bad", "none"]
    assert len(judge.heard) == 1


def test_a_cut_shard_gives_what_is_whole_and_says_so_and_an_absent_one_fails(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "cut.tar", captioned(0, 4))
    shard.write_bytes(shard.read_bytes()[:4700])
    _, outcome = recaption([shard, tmp_path / "absent.tar"], tmp_path / "out", Saying("fine"))
    assert "truncated_shard" in outcome.lines[0]["refused"][-1]
    assert 1 <= outcome.lines[0]["num_captions"] < 4
    assert "missing_shard" in outcome.failures[0]


def test_the_long_style_asks_for_more_and_does_not_go_on_with_the_other(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "data.tar", captioned(0, 1))
    judge = Saying("fine")
    recaption([shard], tmp_path / "long", judge, "long")
    assert "at least 250 words" in judge.heard[0]
    with pytest.raises(EvaluationError, match="style was 'long' and is now 'chat'"):
        recaption([shard], tmp_path / "long", judge)


def test_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one file name"):
        recaption([tmp_path / "a" / "0.tar", tmp_path / "b" / "0.tar.gz"], tmp_path / "out", Saying("x"))


def test_an_empty_caption_is_a_failure(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "data.tar", captioned(0, 1))
    assert "said nothing" in recaption([shard], tmp_path / "out", Saying(" "))[1].failures[0]
