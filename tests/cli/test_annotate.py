# SPDX-License-Identifier: Apache-2.0
"""`unigen annotate` from prompts to sets for DPO and CoT-V and from shards to captions, killed, shared and asked wrongly."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.annotation.endpoint import endpoint, words_of
from tests.annotation.killed import run_and_kill
from tests.annotation.painter import Painter
from tests.data.archives import captioned, write_tar
from tests.tiny import tiny_unigen
from tests.world import command, quiet_environment
from unigen.cli import model_options
from unigen.cli.main import main
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.conversations import ConversationSource
from unigen.data.draws import Draws
from unigen.data.preferences import PreferenceSource
from unigen.data.records import Part, Record
from unigen.data.sample import RawSample
from unigen.data.shapes.prompts import training_prompts
from unigen.rewards.rating_text import parse_think

ENTRIES = training_prompts(np.random.default_rng(0))[:12]
KEY = "sk-never-to-be-seen-42"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def annotate(*words: str | Path) -> int:
    return main(["annotate", *map(str, words)])


def test_shapes_go_from_prompts_to_a_dpo_and_a_cotv_set_without_a_missing_link(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_options, "load", lambda *_: Painter(ENTRIES))
    questions, images, answers = tmp_path / "questions.jsonl", tmp_path / "images", tmp_path / "answers.jsonl"
    rated = ("--answers", answers, "--images", images)
    assert annotate("questions", "--prompts", prompts, "--judge", "rule", "--output", questions) == 0
    assert annotate("candidates", "--prompts", prompts, "--model", "m", "--num-images", 6, "--output", images) == 0
    asked = ("--questions", questions, "--images", images)
    assert annotate("answers", *asked, "--judge", "detector", "--output", answers) == 0
    assert annotate("pairs", *rated, "--pairs-per-prompt", 2, "--output", tmp_path / "dpo" / "pairs.jsonl") == 0
    assert annotate("cotv", *rated, "--output", tmp_path / "cotv" / "cotv.jsonl", "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["num_lines"] == facts["num_items"] > 6
    scores = {line["filename"]: line["score"] for line in lines(answers)}
    assert len(scores) == 72
    pairs = lines(tmp_path / "dpo" / "pairs.jsonl")
    assert len(pairs) >= 6
    for pair in pairs:
        chosen, rejected = (tmp_path / "dpo" / pair[kind] for kind in ("chosen", "rejected"))
        assert chosen.is_file()
        assert scores[chosen.name] == pair["chosen_score"] > pair["rejected_score"] == scores[rejected.name]
    source = PreferenceSource("dpo", _source(tmp_path / "dpo" / "pairs.jsonl", "preferences"), DataConfig(), 0)
    assert sorted(sample.text or "" for sample in _samples(source)) == sorted(pair["prompt"] for pair in pairs)
    verdicts = [parse_think(line["conversations"][1]["value"]) for line in lines(tmp_path / "cotv" / "cotv.jsonl")]
    assert Counter(verdict.result for verdict in verdicts)[True] * 2 == len(verdicts)
    assert all(verdict.is_parsed and verdict.result == (verdict.score == 1) for verdict in verdicts)


def test_the_conversations_are_read_by_the_reader_of_conversations(tmp_path: Path) -> None:
    images, answers = tmp_path / "images", tmp_path / "answers.jsonl"
    images.mkdir()
    line = {"id": "a", "prompt": "a dog", "question": ["is there a dog?"]}
    for index, verdict in enumerate(("yes", "no")):
        (images / f"a_{index}.png").write_bytes(captioned(index, 1)[0][1]["png"])
        with answers.open("a") as file:
            fields = {"filename": f"a_{index}.png", "answer": [verdict], "score": float(verdict == "yes")}
            file.write(json.dumps({**line, **fields}) + "\n")
    output = tmp_path / "cotv" / "cotv.jsonl"
    assert annotate("cotv", "--answers", answers, "--images", images, "--output", output) == 0
    samples = _samples(ConversationSource("cotv", _source(output, "conversations"), DataConfig(), 0))
    assert sorted(sample.turns[1].text for sample in samples) == [
        "<think_start> is there a dog? No <think_end> <answer_start> No <answer_end>",
        "<think_start> is there a dog? Yes <think_end> <answer_start> Yes <answer_end>",
    ]


def test_a_real_model_draws_candidates_and_answers_about_them(prompts: Path, tmp_path: Path) -> None:
    model = tiny_unigen(tmp_path / "model")
    common = ("--model", model, "--device", "cpu")
    images, questions = tmp_path / "images", tmp_path / "questions.jsonl"
    few = ("--prompts", prompts, "--num-prompts", 2)
    assert annotate("questions", *few, "--judge", "rule", "--output", questions) == 0
    assert annotate("candidates", *few, *common, "--num-images", 2, "--steps", 2, "--output", images) == 0
    answers = tmp_path / "answers.jsonl"
    asked = ("--questions", questions, "--images", images, "--judge", "unigen")
    assert annotate("answers", *asked, *common, "--max-tokens", 2, "--output", answers) == 0
    assert len(lines(answers)) == 4


def test_a_command_killed_in_mid_run_goes_on_and_loses_and_doubles_nothing(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "questions.jsonl"
    with endpoint(lambda request: f"Is it {words_of(request)[-40:-11]}?; is it big?", seconds=0.1) as server:
        words = command(
            *("annotate", "questions", "--prompts", prompts, "--output", output, "--model", "m"),
            *("--base-url", server.base_url, "--num-in-flight", "2"),
        )
        running = subprocess.Popen(words, env=quiet_environment(), stderr=subprocess.DEVNULL)
        records = tmp_path / "questions.jsonl.run" / "records-0.jsonl"
        _wait(lambda: records.exists() and records.read_text().count("\n") >= 3)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        num_kept = records.read_text().count("\n")
        assert not output.exists()
        assert num_kept < len(ENTRIES)
        before = len(server.asked)
        finished = subprocess.run(
            [*words, "--json"], env=quiet_environment(), capture_output=True, text=True, check=True
        )
    assert json.loads(finished.stdout)["num_kept"] == num_kept
    assert len(server.asked) - before == len(ENTRIES) - num_kept
    assert [line["id"] for line in lines(output)] == [entry["id"] for entry in ENTRIES for _ in range(2)]


@pytest.mark.parametrize("step", ["questions", "candidates", "answers", "pairs", "cotv", "recaption"])
def test_every_step_goes_on_after_a_kill_with_what_a_run_makes_that_was_not_killed(
    step: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_options, "load", lambda *_: Painter(ENTRIES))
    questions, images, answers = tmp_path / "questions.jsonl", tmp_path / "images", tmp_path / "answers.jsonl"
    rated = ("--answers", answers, "--images", images)
    write_tar(tmp_path / "in" / "data.tar", captioned(0, 8))
    with endpoint(lambda request: f"A caption for {words_of(request)[:8]}.") as server:
        by_server = ("--model", "m", "--base-url", server.base_url)
        words: dict[str, tuple[str | Path | int, ...]] = {
            "questions": ("--prompts", prompts, "--judge", "rule"),
            "candidates": ("--prompts", prompts, "--model", "m", "--num-images", 6),
            "answers": ("--questions", questions, "--images", images, "--judge", "detector"),
            "pairs": rated,
            "cotv": rated,
            "recaption": (tmp_path / "in" / "data.tar", *by_server),
        }
        outputs = {"questions": questions, "candidates": images, "answers": answers}
        needed = {"answers": 2, "pairs": 3, "cotv": 3}.get(step, 0)
        for earlier, output in list(outputs.items())[:needed]:
            assert annotate(earlier, *words[earlier], "--output", output) == 0
        name = "" if step in ("candidates", "recaption") else "made.jsonl"
        whole, killed = tmp_path / "whole" / name, tmp_path / "killed" / name
        assert annotate(step, *words[step], "--output", whole) == 0
        again = ["annotate", step, *map(str, words[step]), "--output", str(killed)]
        run_and_kill(again, after=3)
        assert main(again) == 0
    made = {path.relative_to(tmp_path / "whole"): path for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    for relative, path in made.items():
        if path.name != "run.json":
            other = tmp_path / "killed" / relative
            assert without_times(other) == without_times(path), relative
    records = sorted((tmp_path / "killed").rglob("records-0.jsonl"))
    for one in records:
        names = [line["item_id"] for line in lines(one)]
        assert len(names) == len(set(names)) > 0


def without_times(path: Path) -> list[bytes]:
    """The lines of a file in order, but for when a record was written."""
    return sorted(re.sub(rb', "ended": "[^"]*"', b"", line) for line in path.read_bytes().splitlines())


def test_two_ranks_do_together_what_one_does_alone(prompts: Path, tmp_path: Path) -> None:
    with endpoint(lambda request: f"Is it {len(words_of(request))}?; is it big?") as server:
        words = ("annotate", "questions", "--prompts", str(prompts), "--model", "m", "--base-url", server.base_url)
        assert main([*words, "--output", str(tmp_path / "one.jsonl")]) == 0
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "unigen"]
        shared = [*torchrun, *words, "--output", str(tmp_path / "two.jsonl")]
        subprocess.run(shared, env=quiet_environment(), capture_output=True, check=True, timeout=120)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    own = [(tmp_path / "two.jsonl.run" / f"records-{rank}.jsonl").read_text().count("\n") for rank in range(2)]
    assert own == [6, 6]


def test_a_failed_item_is_named_and_the_exit_code_is_1_until_it_is_mended(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "questions.jsonl"
    is_broken = True

    def answer(request: dict[str, Any]) -> str:
        return "" if is_broken and ENTRIES[3]["prompt"] in words_of(request) else "Is it there?"

    with endpoint(answer) as server:
        words = ("questions", "--prompts", prompts, "--output", output, "--model", "m", "--base-url", server.base_url)
        assert annotate(*words) == 1
        assert f"questions, {ENTRIES[3]['id']}: the judge named no question" in capsys.readouterr().err
        is_broken = False
        assert annotate(*words) == 0
    assert len(server.asked) == len(ENTRIES) + 1
    assert [line["id"] for line in lines(output)] == [entry["id"] for entry in ENTRIES]


def test_no_key_reaches_a_file_or_the_terminal(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG", "org-hidden")

    def answer(request: dict[str, Any]) -> str | tuple[int, str]:
        is_first = ENTRIES[0]["prompt"] in words_of(request)
        return (400, json.dumps({"error": {"message": f"no: {KEY} org-hidden"}})) if is_first else "Is it there?"

    with endpoint(answer) as server:
        words = ("--prompts", prompts, "--model", "m", "--base-url", server.base_url, "--output", tmp_path / "q.jsonl")
        assert annotate("questions", *words) == 1
    assert any(KEY in value for value in server.headers[0].values())
    printed = "".join(capsys.readouterr())
    written = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert "run.json" in {file.name for file in tmp_path.rglob("*")}
    for secret in (KEY, "org-hidden"):
        assert secret not in printed + written
    assert server.base_url in written


def test_shards_are_recaptioned_with_a_histogram_and_a_bad_image_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        write_tar(tmp_path / "in" / f"data-{index}.tar", captioned(index * 10, 3))
    with endpoint(lambda request: "word " * 260) as server:
        words = ("--style", "long", "--model", "m", "--base-url", server.base_url)
        shards = str(tmp_path / "in" / "data-{0..1}.tar")
        assert annotate("recaption", shards, "--output", tmp_path / "out", *words) == 0
        bad = write_tar(tmp_path / "in" / "bad.tar", [("x", {"png": b"no image"}), *captioned(0, 1)])
        assert annotate("recaption", bad, "--output", tmp_path / "out2", *words) == 1
    assert "left out" in capsys.readouterr().err
    histogram = json.loads((tmp_path / "out" / "lengths.json").read_text())
    assert (histogram["num_captions"], histogram["share_at_goal"], histogram["goal"]) == (6, 1.0, 250)
    assert (tmp_path / "out" / "lengths.png").is_file()
    assert sorted(file.name for file in (tmp_path / "out").glob("*.tar")) == ["data-0.tar", "data-1.tar"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["questions", "--prompts", "PROMPTS", "--output", "o.jsonl"], "--judge endpoint needs a --model"),
        (["questions", "--prompts", "PROMPTS", "--output", "o.jsonl", "--judge", "detector"], "--judge"),
        (["questions", "--prompts", "absent.jsonl", "--output", "o.jsonl", "--judge", "rule"], "absent.jsonl"),
        (["questions", "--prompts", "PROMPTS", "--output", "o.jsonl", "--model", "m"], "OPENAI_API_KEY"),
        (["answers", "--questions", "absent.jsonl", "--images", ".", "--output", "o.jsonl"], "absent.jsonl"),
        (["pairs", "--answers", "absent.jsonl", "--images", ".", "--output", "o.jsonl"], "absent.jsonl"),
        (["recaption", "absent.tar", "--output", "out", "--model", "m", "--base-url", "http://127.0.0.1:9"], "absent"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str],
    complaint: str,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert annotate(*[word.replace("PROMPTS", str(prompts)) for word in words]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_other_settings_are_refused(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("questions", "--prompts", prompts, "--judge", "rule", "--output", tmp_path / "q.jsonl")
    assert annotate(*words) == 0
    assert annotate(*words, "--num-prompts", 3) == 2
    assert "num_prompts was 12 and is now 3" in capsys.readouterr().err


def _source(file: Path, form: Any) -> SourceConfig:
    return SourceConfig(paths=[str(file)], format=form)


def _samples(source: ConversationSource | PreferenceSource) -> list[RawSample]:
    """All that a reader of training reads."""
    read = (entry for shard in range(len(source.shards)) for entry in source.read(shard, Part(), 0))
    return [source.decode(entry, Draws(0, entry.key, 0)) for entry in read if isinstance(entry, Record)]


def _wait(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
