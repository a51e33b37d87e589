# SPDX-License-Identifier: Apache-2.0
"""Shards of codes: what is kept of a tar, which codes are refused, and how a lane reads them."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.broken_server import broken_server
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.codes import SUFFIX, CodeShard, CodeSource, CodeSpec, ShardHeader, Strings, read_shard
from unigen.data.draws import Draws
from unigen.data.faults import Fault, FaultLog, SampleRefused
from unigen.data.records import Part, Record
from unigen.errors import DataError

SPEC = CodeSpec("0123456789abcdef", 256, "centre crop")


def write(path: Path, count: int = 5, spec: CodeSpec = SPEC, **options: object) -> Path:
    """A shard whose sample n has the codes n * 100, n * 100 + 1, ... and the caption `caption n`."""
    codes = np.arange(count)[:, None, None] * 100 + np.arange(4)
    CodeShard(
        spec=spec,
        source="set/0000.tar",
        codes_NKI=codes.astype(np.uint16),
        keys=Strings.of([f"{number:04d}".encode() for number in range(count)]),
        columns={
            "text": Strings.of([f"caption {number}".encode() for number in range(count)]),
            "json": Strings.of(
                [b"" if number == 1 else b'{"long": "Ein \xc3\xa4lterer Satz."}' for number in range(count)]
            ),
        },
        **options,  # type: ignore[arg-type]
    ).save(path)
    return path


def source(path: Path, spec: CodeSpec | None = SPEC, **options: object) -> CodeSource:
    config = SourceConfig(task="t2i", format="codes", paths=[str(path)], **options)  # type: ignore[arg-type]
    return CodeSource("draw", config, DataConfig(), spec)


def entries(path: Path, part: Part, skip: int = 0) -> list[Record]:
    return [entry for entry in source(path).read(0, part, skip) if isinstance(entry, Record)]


def test_codes_keys_and_texts_come_back_as_they_were(tmp_path: Path) -> None:
    shard = source(write(tmp_path / f"a{SUFFIX}"))
    records = [entry for entry in shard.read(0, Part(), 0) if isinstance(entry, Record)]
    assert [record.key for record in records] == [f"draw/set/0000.tar/{number:04d}" for number in range(5)]
    raw = shard.decode(records[3], Draws(0, "", 0))
    assert raw.text == "caption 3"
    assert raw.codes[0].tolist() == [[300, 301, 302, 303]]
    assert raw.codes[0].dtype == np.uint16
    assert shard.num_samples() == 5


def test_the_caption_may_come_from_the_json(tmp_path: Path) -> None:
    shard = source(write(tmp_path / f"a{SUFFIX}"), caption_key="long")
    first, second = list(shard.read(0, Part(), 0))[:2]
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert shard.decode(first, Draws(0, "", 0)).text == "Ein älterer Satz."
    with pytest.raises(SampleRefused) as refused:
        shard.decode(second, Draws(0, "", 0))
    assert refused.value.cause == "missing_key"


def test_parts_and_skips_take_the_entries_that_they_take_of_a_tar(tmp_path: Path) -> None:
    path = write(tmp_path / f"a{SUFFIX}", count=11)
    everything = entries(path, Part())
    for of in (1, 2, 3, 12):
        for index in range(of):
            whole = everything[index::of]
            assert [one.key for one in entries(path, Part(index, of))] == [one.key for one in whole]
            assert len(entries(path, Part(index, of), skip=2)) == max(0, len(whole) - 2)


def test_samples_that_could_not_be_encoded_keep_their_place_and_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / f"a{SUFFIX}", refused={2: ("unreadable_image", "no JPEG")}, broken_off="3 of 9 bytes")
    shard = source(path)
    found = list(shard.read(0, Part(), 0))
    assert len(found) == 6
    assert found[-1] == Fault("truncated_shard", str(path), "3 of 9 bytes")
    assert isinstance(found[2], Record)
    with pytest.raises(SampleRefused, match="no JPEG"):
        shard.decode(found[2], Draws(0, "", 0))


def test_samples_may_have_no_image_or_several(tmp_path: Path) -> None:
    talk = b'{"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]}'
    shard = CodeShard(
        spec=SPEC,
        source="",
        codes_NKI=np.arange(6, dtype=np.uint16).reshape(3, 1, 2),
        keys=Strings.of([b"a.jsonl/0", b"a.jsonl/1", b"b.jsonl/0"]),
        columns={"text": Strings.of([b""] * 3), "json": Strings.of([talk] * 3)},
        image_ends=[2, 2, 3],
    )
    shard.save(tmp_path / f"a{SUFFIX}")
    config = SourceConfig("mmu", "codes", [str(tmp_path)], conversations_key="conversations")
    opened = CodeSource("talk", config, DataConfig(), SPEC)
    records = [entry for entry in opened.read(0, Part(), 0) if isinstance(entry, Record)]
    assert [record.key for record in records] == ["talk/a.jsonl/0", "talk/a.jsonl/1", "talk/b.jsonl/0"]
    found = [[codes.tolist() for codes in opened.decode(record, Draws(0, "", 0)).codes] for record in records]
    assert found == [[[[0, 1]], [[2, 3]]], [], [[[4, 5]]]]
    assert opened.num_samples() == 3


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (CodeSpec("fedcba9876543210", 256, "centre crop"), ("image tokenizer", "0123456789ab", "fedcba987654")),
        (CodeSpec(SPEC.tokenizer, 512, "centre crop"), ("model.image_resolution 256", "has 512")),
        (CodeSpec(SPEC.tokenizer, 256, "3 even crops"), ("transform centre crop", "has 3 even crops")),
    ],
)
def test_codes_of_another_tokenizer_resolution_or_transform_are_refused(
    tmp_path: Path, other: CodeSpec, named: tuple[str, ...]
) -> None:
    path = write(tmp_path / f"a{SUFFIX}")
    with pytest.raises(DataError) as error:
        source(path, other)
    assert [words for words in (*named, str(path), "unigen encode") if words not in str(error.value)] == []


def test_a_later_shard_of_another_tokenizer_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / f"a{SUFFIX}")
    write(tmp_path / f"b{SUFFIX}", spec=CodeSpec("other", 256, "centre crop"))
    shards = source(tmp_path)
    assert len(list(shards.read(0, Part(), 0))) == 5
    with pytest.raises(DataError, match="image tokenizer"):
        list(shards.read(1, Part(), 0))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_shard_that_breaks_off_is_never_read(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / f"a{SUFFIX}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="encode it again"):
        ShardHeader.read(path)
    with pytest.raises(DataError, match="encode it again"):
        read_shard(str(path))


@pytest.mark.parametrize(("share", "cause"), [(0.0, "unreadable_shard"), (0.9, "truncated_shard")])
def test_a_broken_shard_is_one_fault_that_names_it_and_the_others_are_read(
    tmp_path: Path, share: float, cause: str
) -> None:
    broken, whole = (write(tmp_path / f"{name}{SUFFIX}") for name in "ab")
    content = broken.read_bytes()
    broken.write_bytes(content[: int(len(content) * share)])
    shards = source(tmp_path)
    assert shards.num_samples() == 5
    (fault,) = shards.read(0, Part(0, 2), 0)
    assert isinstance(fault, Fault)
    assert (fault.cause, fault.place) == (cause, str(broken))
    assert "encode it again" in fault.detail
    assert list(shards.read(0, Part(1, 2), 0)) == list(shards.read(0, Part(0, 2), 1)) == []
    assert len(list(shards.read(1, Part(), 0))) == 5, f"{whole} is read"


def test_a_run_goes_on_past_a_broken_shard_and_stops_past_the_share(tmp_path: Path) -> None:
    broken = write(tmp_path / f"a{SUFFIX}")
    write(tmp_path / f"b{SUFFIX}", count=200)
    broken.write_bytes(broken.read_bytes()[:-4])
    for limit, is_stopped in ((0.01, False), (0.001, True)):
        shards = source(tmp_path)
        log = FaultLog(limit)
        entries = [entry for shard in (0, 1) for entry in shards.read(shard, Part(), 0)]
        log.add([entry for entry in entries if isinstance(entry, Fault)], len(entries))
        if is_stopped:
            with pytest.raises(DataError, match=f"1 truncated_shard .such as {broken}"):
                log.check()
        else:
            log.check()


def test_a_shard_that_is_gone_is_a_fault_of_its_first_part_alone(tmp_path: Path) -> None:
    path = write(tmp_path / f"a{SUFFIX}")
    shard = source(path)
    path.unlink()
    first, second = (list(shard.read(0, Part(index, 2), 0)) for index in (0, 1))
    assert [fault.cause for fault in first if isinstance(fault, Fault)] == ["missing_shard"]
    assert second == []


@pytest.mark.parametrize("way", ["whole", "chunked"])
def test_a_connection_that_breaks_off_is_a_fault(tmp_path: Path, way: str) -> None:
    content = write(tmp_path / f"a{SUFFIX}").read_bytes()
    with broken_server(content, len(content) - 20) as address:
        config = SourceConfig(task="t2i", format="codes", paths=[f"{address}/{way}/a{SUFFIX}"])
        (fault,) = CodeSource("draw", config, DataConfig(), SPEC).read(0, Part(), 0)
    assert isinstance(fault, Fault)
    assert (fault.cause, fault.place) == ("unreadable_shard", config.paths[0])


def test_the_file_is_readable_by_others_and_nothing_half_written_stays(tmp_path: Path) -> None:
    path = write(tmp_path / f"a{SUFFIX}")
    assert path.stat().st_mode & 0o044 == 0o044
    assert list(tmp_path.iterdir()) == [path]
