# SPDX-License-Identifier: Apache-2.0
"""Files of benchmarks from a mirror: whole, checked, kept, gone on with, replaced; and nothing taken of another content."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.evaluation.dpg.conftest import ROWS, write_csv
from unigen.cli.main import main
from unigen.data import hub
from unigen.errors import DataError
from unigen.evaluation import sources
from unigen.evaluation.dpg.prompts import prompts_hash, read_prompts
from unigen.evaluation.fetching import LOCK_NAME, bring, digest_of
from unigen.evaluation.sources import Content, Roots, Wanted

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BYTES = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BYTES).hexdigest()
URL = "https://example.org/detector.pth"
DETECTOR = Wanted("detector.pth", "checkpoints", Content("sha256", SHA256[:8]), (URL,))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(tmp_path / "third_party", tmp_path / "data" / "checkpoints")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "example.org").mkdir(parents=True)
    (folder / "example.org" / "detector.pth").write_bytes(BYTES)
    return folder


def fetch(wanted: Wanted, roots: Roots, mirror: str | Path) -> list[str]:
    said: list[str] = []
    bring(wanted, roots, mirror if isinstance(mirror, str) else mirror.as_uri(), said.append)
    return said


def test_a_file_is_fetched_once_and_then_only_checked(roots: Roots, mirror: Path) -> None:
    assert any("fetching" in line for line in fetch(DETECTOR, roots, mirror))
    place = roots.checkpoints / "detector.pth"
    assert place.read_bytes() == BYTES
    assert json.loads((roots.third_party / LOCK_NAME).read_text()) == {"detector.pth": SHA256}
    (mirror / "example.org" / "detector.pth").unlink()
    assert fetch(DETECTOR, roots, mirror) == [f"there already: {place}"]
    assert sorted(file.name for file in roots.checkpoints.iterdir()) == ["detector.pth"]


def test_a_damaged_file_is_fetched_again(roots: Roots, mirror: Path) -> None:
    fetch(DETECTOR, roots, mirror)
    (roots.checkpoints / "detector.pth").write_bytes(BYTES[:100])
    fetch(DETECTOR, roots, mirror)
    assert (roots.checkpoints / "detector.pth").read_bytes() == BYTES


def test_other_content_is_not_taken_and_the_next_address_is_tried(roots: Roots, mirror: Path) -> None:
    (mirror / "example.org" / "moved.pth").write_bytes(b"other")
    both = Wanted("d.pth", "checkpoints", DETECTOR.content, ("https://example.org/moved.pth", URL))
    fetch(both, roots, mirror)
    assert (roots.checkpoints / "d.pth").read_bytes() == BYTES
    wrong = Wanted("w.pth", "checkpoints", DETECTOR.content, both.urls[:1])
    with pytest.raises(DataError, match=f"has other content: .*, not {SHA256[:8]}"):
        fetch(wrong, roots, mirror)
    assert not (roots.checkpoints / "w.pth").exists()


def test_what_is_known_by_its_beginning_is_held_to_its_first_fetch(roots: Roots, mirror: Path) -> None:
    loose = Wanted("l.pth", "checkpoints", Content("sha256", ""), (URL,))
    fetch(loose, roots, mirror)
    (roots.checkpoints / "l.pth").write_bytes(b"another version")
    with pytest.raises(DataError, match="is not what it was at the first fetch"):
        fetch(loose, roots, mirror)


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            content.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_a_folder_comes_out_of_an_archive_and_nothing_else_does(roots: Roots, mirror: Path, tmp_path: Path) -> None:
    prompts = {"ELLA-1/set/prompts/a.txt": "a dog\n", "ELLA-1/set/prompts/b.txt": "a cat\n"}
    others = {"ELLA-1/set/prompts/sub/c.txt": "no", "ELLA-1/../../evil.txt": "no", "ELLA-1/README": "no"}
    (mirror / "example.org" / "archive").write_bytes(archive({**prompts, **others}))
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "a.txt").write_text("a dog")
    (tmp_path / "expected" / "b.txt").write_text("a cat")
    digest = prompts_hash(read_prompts(tmp_path / "expected"))
    urls = ("https://example.org/archive",)
    wanted = Wanted("set/prompts", "third_party", Content("prompts", digest), urls, "set/prompts")
    fetch(wanted, roots, mirror)
    found = roots.third_party / "set" / "prompts"
    assert sorted(file.name for file in found.rglob("*")) == ["a.txt", "b.txt"]
    (found / "b.txt").unlink()
    fetch(wanted, roots, mirror)
    assert sorted(file.name for file in found.rglob("*")) == ["a.txt", "b.txt"]
    assert sorted(file.name for file in (roots.third_party / "set").iterdir()) == ["prompts"]
    assert not list(tmp_path.rglob("evil.txt"))


def test_content_is_known_by_the_hash_that_git_gives_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("what is up, doc?")  # the example of the Pro Git book
    assert digest_of(tmp_path / "file", Content("git blob", "")) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


class Faltering(BaseHTTPRequestHandler):
    """Ends the first connection half way; understands ranges."""

    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(BYTES) - begin))
        self.end_headers()
        self.wfile.write(BYTES[begin : len(BYTES) if len(self.ranges) > 1 else 5000])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def faltering() -> Iterator[str]:
    Faltering.ranges.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faltering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_download_that_broke_off_goes_on_where_it_stopped(faltering: str, roots: Roots) -> None:
    with pytest.raises(DataError, match="5000"):
        fetch(DETECTOR, roots, faltering)
    assert not (roots.checkpoints / "detector.pth").exists()
    fetch(DETECTOR, roots, faltering)
    assert Faltering.ranges == [None, "bytes=5000-"]
    assert (roots.checkpoints / "detector.pth").read_bytes() == BYTES
    assert sorted(file.name for file in roots.checkpoints.iterdir()) == ["detector.pth"]


def test_the_command_brings_all_or_says_what_is_missing(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Wanted("none.pth", "checkpoints", Content("sha256", "0"), ("https://example.org/none.pth",))
    monkeypatch.setattr(sources, "SOURCES", {"detector": (DETECTOR,), "inception": (absent,)})
    monkeypatch.chdir(tmp_path)
    arguments = ["setup-eval", "--mirror", mirror.as_uri()]
    assert main([*arguments, "detector"]) == 0
    assert (tmp_path / "unigen_data" / "checkpoints" / "detector.pth").is_file()
    assert main([*arguments, "detector", "inception"]) == 1
    assert "not set up: inception" in capsys.readouterr().err
    fetched: list[str] = []
    monkeypatch.setattr(hub, "fetch", lambda asset, root: fetched.append(asset.repository))
    assert main([*arguments, "clip"]) == 0
    assert fetched == ["openai/clip-vit-large-patch14"]
    assert main([*arguments, "geneva"]) == 2


def test_questions_are_also_written_one_line_a_prompt(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = write_csv(mirror / "example.org" / "q.csv", ROWS)
    content = Content("sha256", hashlib.sha256(csv.read_bytes()).hexdigest())
    wanted = Wanted(sources.QUESTIONS, "third_party", content, ("https://example.org/q.csv",))
    monkeypatch.setattr(sources, "SOURCES", {"dpg": (wanted,)})
    monkeypatch.chdir(tmp_path)
    assert main(["setup-eval", "--mirror", mirror.as_uri(), "dpg"]) == 0
    lines = (tmp_path / "third_party" / "dpg_bench" / "dpg_bench_questions.jsonl").read_text().splitlines()
    assert [json.loads(line)["item_id"] for line in lines] == ["parti7", "0", "coco1"]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the public files are not in {DATA}")
def test_the_public_files_have_the_hashes_that_are_asked_for(tmp_path: Path, roots: Roots) -> None:
    """Files of the pinned commits, laid out as a mirror: what is known of GenEval's files and DPG-Bench's prompts is right."""
    geneval = {wanted.place: wanted for wanted in sources.SOURCES["geneval"]}
    for place, name in {
        "geneval/prompts/evaluation_metadata.jsonl": "geneval_evaluation_metadata.jsonl",
        "geneval/prompts/generation_prompts.txt": "geneval_generation_prompts.txt",
        "geneval/evaluation/object_names.txt": "geneval_object_names.txt",
    }.items():
        target = tmp_path / "mirror" / geneval[place].urls[0].removeprefix("https://")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((DATA / name).read_bytes())
        fetch(geneval[place], roots, tmp_path / "mirror")
    prompts = sources.SOURCES["dpg"][0]
    target = tmp_path / "mirror" / prompts.urls[1].removeprefix("https://")
    target.parent.mkdir(parents=True)
    entries = [json.loads(line) for line in (DATA / "dpg_bench_prompts.jsonl").read_text().splitlines()]
    target.write_bytes(archive({f"ELLA-x/dpg_bench/prompts/{one['item_id']}.txt": one["text"] for one in entries}))
    fetch(prompts, roots, tmp_path / "mirror")
    assert len(list((roots.third_party / "dpg_bench" / "prompts").glob("*.txt"))) == 1065
