# SPDX-License-Identifier: Apache-2.0
"""Lists of shards, opening them, and what a damaged tar still gives."""

import json
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import captioned, png, write_shards, write_tar
from tests.data.broken_server import broken_server
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.records import Part, Record
from unigen.data.sample import Turn
from unigen.data.shards import expand_shards
from unigen.data.sources import open_source
from unigen.data.tars import TarSample, read_tar
from unigen.errors import ConfigError, DataError


def keys_and_causes(shard: Path | str) -> list[str]:
    return [entry.cause if isinstance(entry, Fault) else entry.key for entry in read_tar(str(shard))]


def webdataset(root: Path, task: Any = "t2i", paths: tuple[str, ...] = ("set",), **changes: Any) -> Any:
    config = SourceConfig(task, "webdataset", list(paths), **changes)
    return open_source("set", config, DataConfig(root=str(root), max_image_pixels=10_000), seed=0)


def decode(source: Any, entry: Record | Fault, visit: int = 0) -> Any:
    """The sample of an entry, or why there is none."""
    assert isinstance(entry, Record)
    try:
        return source.decode(entry, Draws(0, entry.key, visit))
    except SampleRefused as refused:
        return refused.cause


def test_several_brace_ranges_expand_in_order_below_the_datasets_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shards(tmp_path / "datasets" / folder, [1, 1])
    base = tmp_path / "datasets"
    found = expand_shards(["{a,b}/{0000..0001}.tar", str(base / "b/0000.tar")], tmp_path)
    assert found == [
        str(base / name) for name in ("a/0000.tar", "a/0001.tar", "b/0000.tar", "b/0001.tar", "b/0000.tar")
    ]


def test_a_list_of_shards_and_a_folder_name_the_same_shards(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "datasets/set", [1, 2])
    (folder / "notes.txt").write_text("no shard")
    (tmp_path / "datasets/list.json").write_text(json.dumps(["set/{0000..0001}.tar"]))
    assert expand_shards(["list.json"], tmp_path) == expand_shards(["set"], tmp_path)


def test_a_shell_command_is_refused_wherever_it_is_written_unless_the_config_allows_it(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "datasets/0.tar", captioned(0, 3))
    command = f"pipe:cat {shard}"
    (tmp_path / "datasets/list.json").write_text(json.dumps([command]))
    for paths in ([command], ["list.json"], ["PIPE:rm -rf x"]):
        with pytest.raises(ConfigError, match=r"would run a shell command; set data\.allow_pipe=true"):
            expand_shards(paths, tmp_path)
    with pytest.raises(ConfigError, match="would run a shell command"):
        next(read_tar(command))
    (allowed,) = expand_shards(["list.json"], tmp_path, allow_pipe=True)
    assert [entry.key for entry in read_tar(allowed, allow_pipe=True) if isinstance(entry, TarSample)] == [
        "000000",
        "000001",
        "000002",
    ]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("set/{0000..0003.tar", ConfigError, "a brace that does not close"),
        ("sftp://host/a.tar", ConfigError, "unknown kind of address; choose from http://"),
        ("nowhere", DataError, "there is no file or folder"),
        ("set/{7777..9999}.tar", DataError, r"there is no shard .*7777\.tar"),
        ("empty", DataError, r"holds no \.tar"),
        ("wrong.json", DataError, "is not a list of shards"),
        ("absent.json", DataError, "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused_in_one_line(
    tmp_path: Path, path: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "datasets/empty").mkdir(parents=True)
    (tmp_path / "datasets/wrong.json").write_text('{"a": 1}')
    with pytest.raises(error, match=message) as caught:
        expand_shards([path], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_tar_gives_its_good_samples_and_one_fault_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", captioned(0, 6)).read_bytes()
    end = (len(whole.rstrip(b"\0")) // 512 + 1) * 512  # of the last member, before the end marker
    good_before = 0
    for size in range(512, end + 1, 256):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[:size])
        *keys, cause = keys_and_causes(cut)
        assert cause in ("truncated_shard", "unreadable_shard")
        assert keys == [f"{number:06d}" for number in range(len(keys))]
        assert all(set(entry.members) == {"png", "txt"} for entry in read_tar(str(cut)) if isinstance(entry, TarSample))
        assert good_before <= len(keys) <= 6
        good_before = len(keys)
    assert good_before == 6
    assert keys_and_causes(tmp_path / "whole.tar") == [f"{number:06d}" for number in range(6)]


def test_garbage_in_the_middle_of_a_tar_is_a_fault_and_not_its_end(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", captioned(0, 6))
    content = bytearray(shard.read_bytes())
    header = content.index(b"000003.png")
    content[header : header + 512] = b"x" * 512
    shard.write_bytes(content)
    assert keys_and_causes(shard) == ["000000", "000001", "000002", "truncated_shard"]


def test_what_is_no_tar_or_not_there_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_bytes(b"<html>" * 1000)
    (tmp_path / "empty.tar").write_bytes(b"")
    assert keys_and_causes(tmp_path / "page.tar") == ["unreadable_shard"]
    assert keys_and_causes(tmp_path / "empty.tar") == ["unreadable_shard"]
    assert keys_and_causes(tmp_path / "gone.tar") == ["missing_shard"]
    assert keys_and_causes(tmp_path) == ["unreadable_shard"]


def test_a_compressed_tar_is_read_and_a_truncated_one_noticed(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar.gz", captioned(0, 40))
    assert len(keys_and_causes(shard)) == 40
    shard.write_bytes(shard.read_bytes()[:-2000])
    *keys, cause = keys_and_causes(shard)
    assert cause == "truncated_shard"
    assert 0 < len(keys) < 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_a_remote_shard_gives_the_same_samples_as_a_local_one(tmp_path: Path, server: str) -> None:
    write_tar(tmp_path / "datasets/set/0000.tar", captioned(0, 9))
    remote = webdataset(tmp_path, paths=(f"{server}/datasets/set/{{0000..0001}}.tar",))
    local = webdataset(tmp_path)
    assert remote.num_samples() is None
    for part, skip in ((Part(), 0), (Part(), 4), (Part(1, 3), 1)):
        far, near = list(remote.read(0, part, skip)), list(local.read(0, part, skip))
        assert [decode(remote, entry).text for entry in far] == [decode(local, entry).text for entry in near] != []
    assert [entry.cause for entry in remote.read(1, Part(), 0)] == ["missing_shard"]


@pytest.mark.parametrize("way", ["whole", "chunked"])
def test_a_connection_that_breaks_off_gives_the_good_samples_and_one_fault(tmp_path: Path, way: str) -> None:
    content = write_tar(tmp_path / "0.tar", captioned(0, 9)).read_bytes()
    with broken_server(content, content.index(b"000006.png") + 600) as address:
        *keys, cause = keys_and_causes(f"{address}/{way}/0.tar")
    assert cause == "truncated_shard"
    assert keys == [f"{number:06d}" for number in range(len(keys))]
    assert 4 <= len(keys) <= 6, "what was still underway in a piece may be lost"


def test_a_sample_to_draw_holds_its_image_and_caption_and_one_to_read_a_prompt_and_the_answer(tmp_path: Path) -> None:
    write_tar(tmp_path / "datasets/set/0.tar", [("a", {"png": png(1), "txt": b"The image shows a dot. It is red."})])
    for task, short, text in (
        ("t2i", 0.0, "A dot. It is red."),
        ("t2i", 1.0, "A dot."),
        ("mmu", 1.0, "A dot. It is red."),
    ):
        source = webdataset(tmp_path, task, short_caption_prob=short)
        (entry,) = source.read(0, Part(), 0)
        sample = decode(source, entry)
        assert (sample.key, sample.task, sample.images[0].size) == ("set/set/0.tar/a", task, (32, 32))
        if task == "t2i":
            assert (sample.text, sample.turns) == (text, ())
        else:
            assert sample.turns[1] == Turn("assistant", text)
            assert sample.turns[0].role == "user"
    prompts = {decode(source, entry, visit).turns[0].text for visit in range(200)}
    assert len(prompts) == 11


def test_a_caption_may_come_from_a_field_of_the_json(tmp_path: Path) -> None:
    samples = [
        ("a", {"jpg": png(1), "json": b'{"prompt": "a dot", "caption": "other"}', "txt": b"other"}),
        ("b", {"jpg": png(1), "json": b'{"prompt": "a dot"'}),
        ("c", {"jpg": png(1), "json": b'{"caption": "a dot"}'}),
        ("d", {"jpg": png(1), "txt": b"other"}),
    ]
    write_tar(tmp_path / "datasets/set/0.tar", samples)
    source = webdataset(tmp_path, caption_key="prompt")
    found = [decode(source, entry) for entry in source.read(0, Part(), 0)]
    assert found[0].text == "a dot"
    assert found[1:] == ["not_json", "missing_key", "missing_key"]


def test_a_conversation_may_come_from_the_json_with_all_its_turns(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dot."}]
    talk += [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]
    samples = [
        ("a", {"jpg": png(1), "json": json.dumps({"conversations": talk}).encode()}),
        ("b", {"jpg": png(1), "json": json.dumps({"conversations": talk[:1]}).encode()}),
        ("c", {"jpg": png(1), "json": b'{"caption": "a dot"}'}),
    ]
    write_tar(tmp_path / "datasets/set/0.tar", samples)
    source = webdataset(tmp_path, "mmu", conversations_key="conversations")
    found = [decode(source, entry) for entry in source.read(0, Part(), 0)]
    assert [turn.text for turn in found[0].turns] == ["What?", "A dot.", "Where?", "Here."]
    assert len(found[0].images) == 1
    assert found[1:] == ["bad_conversation", "missing_key"]


def test_the_text_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    (tmp_path / "templates.json").write_text('["it is a {}."]')
    write_tar(
        tmp_path / "datasets/set/0.tar", [("a", {"jpg": png(1), "txt": b"owl\n"}), ("b", {"jpg": png(1), "txt": b" "})]
    )
    source = webdataset(tmp_path, class_templates=str(tmp_path / "templates.json"))
    found = [decode(source, entry) for entry in source.read(0, Part(), 0)]
    assert found[0].text == "it is an owl."
    assert found[1] == "empty_caption"


def test_every_kind_of_bad_sample_has_its_own_cause(tmp_path: Path) -> None:
    samples = [
        ("a", {"png": png(1, side=128), "txt": b"enormous, for this config"}),
        ("b", {"png": png(1)[:-30], "txt": b"cut"}),
        ("c", {"txt": b"no image"}),
        ("d", {"png": png(1)}),
        ("e", {"png": png(1), "txt": b" \n"}),
    ]
    write_tar(tmp_path / "datasets/set/0.tar", samples)
    source = webdataset(tmp_path)
    causes = [decode(source, entry) for entry in source.read(0, Part(), 0)]
    assert causes == ["enormous_image", "unreadable_image", "missing_image", "missing_key", "empty_caption"]


def test_samples_are_counted_where_that_is_cheap(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "datasets/set", [4, 5])
    assert webdataset(tmp_path).num_samples() == 9
    assert webdataset(tmp_path, num_samples=13).num_samples() == 13
    (folder / "sizes.json").write_text('{"0000.tar": 40, "0001.tar": 50}')
    assert webdataset(tmp_path).num_samples() == 90


def test_a_source_can_travel_to_a_worker_that_shares_no_memory(tmp_path: Path) -> None:
    write_shards(tmp_path / "datasets/set", [3])
    source = webdataset(tmp_path)
    source.num_samples()
    copy = pickle.loads(pickle.dumps(source))
    assert [entry.key for entry in copy.read(0, Part(), 0)] == [entry.key for entry in source.read(0, Part(), 0)]


def test_a_source_of_another_task_than_its_format_serves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.sources\.set: format webdataset serves t2i and mmu, not task lm"):
        webdataset(tmp_path, "lm")
