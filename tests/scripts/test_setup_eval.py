# SPDX-License-Identifier: Apache-2.0
"""`scripts/setup_eval.sh` against a mirror on disk: what it brings, a second run, and what it cannot get."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.world import quiet_environment
from unigen.evaluation.sources import SOURCES

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
PUBLIC = {
    "geneval/prompts/evaluation_metadata.jsonl": "geneval_evaluation_metadata.jsonl",
    "geneval/prompts/generation_prompts.txt": "geneval_generation_prompts.txt",
    "geneval/evaluation/object_names.txt": "geneval_object_names.txt",
}


def setup_eval(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **quiet_environment(), "UNIGEN_EVAL_MIRROR": (folder / "mirror").as_uri()}
    command = ["bash", str(REPOSITORY / "scripts" / "setup_eval.sh"), "--skip_libraries", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the public files are not in {DATA}")
def test_the_script_brings_what_it_can_and_keeps_it(tmp_path: Path) -> None:
    for wanted in SOURCES["geneval"]:
        target = tmp_path / "mirror" / wanted.urls[-1].removeprefix("https://")  # the first commit is not served
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((DATA / PUBLIC[wanted.place]).read_bytes())
    detector = tmp_path / "mirror" / SOURCES["detector"][0].urls[0].removeprefix("https://")
    detector.parent.mkdir(parents=True)
    detector.write_bytes(b"not the weights")
    first = setup_eval(tmp_path, "geneval", "detector")
    assert first.returncode == 1, first.stderr
    assert "not 743b7d99" in first.stderr
    assert "not set up: detector" in first.stderr
    assert all((tmp_path / "third_party" / place).is_file() for place in PUBLIC)
    assert not list(tmp_path.rglob("unigen_data/checkpoints/*.pth"))
    second = setup_eval(tmp_path, "geneval")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("there already") == 3


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="the tests do not run in a checkout of git")
def test_what_it_brings_is_ignored_by_git() -> None:
    places = ["third_party/geneval/x", "third_party/dpg_bench/x", "third_party/setup_eval.lock.json", "unigen_data/x"]
    finished = subprocess.run(
        ["git", "-C", str(REPOSITORY), "check-ignore", *places], capture_output=True, text=True, check=False
    )
    assert finished.stdout.split() == places
