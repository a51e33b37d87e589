# SPDX-License-Identifier: Apache-2.0
"""The study of forks: which commands its script starts, seen through a `unigen` that notes its arguments; each of them works."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unigen.cli.main import main
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.unifork_study.report import ORDER

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "reproduce_unifork_shapes.sh"
LAYERS = {"fork_quarter": 1, "fork_half": 2, "fork_three_quarters": 3, "fully_shared": 4}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout with the script alone, whose environment notes every command of `unigen`, one line each."""
    scripts, programs = tmp_path / "scripts", tmp_path / "environment" / "bin"
    scripts.mkdir()
    programs.mkdir(parents=True)
    for name in (NAME, "environment.sh"):
        shutil.copy(REPOSITORY / "scripts" / name, scripts / name)
    (scripts / "setup.sh").write_text("")
    for name in ("python", "unigen"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "$*" >>"{tmp_path}/commands"\ncase "$*" in $FAILS) exit 3;; esac\n'
        )
        (programs / name).chmod(0o755)
    return tmp_path


def run(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(place / "environment"), "FAILS": "", **variables}
    command = ["bash", str(place / "scripts" / NAME), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def commands(place: Path, verb: str = "") -> list[list[str]]:
    lines = (place / "commands").read_text().splitlines()
    return [line.split() for line in lines if line.startswith(verb)]


def settings(command: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in command if "=" in word)


def test_the_full_profile_trains_and_scores_every_arm_from_every_seed(place: Path) -> None:
    done = run(place, "training.precision=float32")
    assert done.returncode == 0, done.stderr
    found = commands(place)
    assert [command[0] for command in found[:2]] == ["data", "train"]
    assert found[1][1] == "configs/shapes/unifork_tokenizer.yaml"
    assert found[-1] == ["study", "unifork", str(place / "runs/unifork")]
    trained = [settings(command) for command in commands(place, "train configs/shapes/unifork.yaml")]
    outputs = [one["experiment.output_dir"].removeprefix(f"{place}/runs/unifork/") for one in trained]
    assert outputs == [f"{arm}/seed-{seed}/train" for seed in range(3) for arm in ORDER]
    assert [one["experiment.seed"] for one in trained] == [str(seed) for seed in range(3) for _ in ORDER]
    assert len({one["training.steps"] for one in trained}) == 1
    assert all(one["training.precision"] == "float32" for one in trained)
    for one in trained:
        arm = Path(one["experiment.output_dir"]).parts[-3]
        if arm in LAYERS:
            assert one["model.fork.num_shared_layers"] == str(LAYERS[arm])
    assert len(commands(place, "evaluate")) == 2 * len(trained), "at the end and at an earlier step"


def test_every_training_is_one_that_can_be_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, SEEDS="4").returncode == 0
    tokenizer = place / "runs" / "unifork" / "unifork_tokenizer"
    shutil.copytree(
        REPOSITORY / "configs" / "models" / "shapes-rqvae", tokenizer
    )  # its sizes, as training would leave them
    monkeypatch.chdir(tmp_path)
    for verb, config, *overrides in commands(place, "train"):
        assert main([verb, str(REPOSITORY / config), *overrides, "--dry-run", "--json"]) == 0, capsys.readouterr().err
        plan = json.loads(capsys.readouterr().out)
        given = settings(overrides)
        if "experiment.seed" in given:
            assert plan["steps"] == int(given["training.steps"])
            samples = {task for task, count in plan["samples_per_step"].items() if count}
            arm = Path(given["experiment.output_dir"]).parts[-3]
            assert ("t2i" in samples, "mmu" in samples) == (arm != "und_expert", arm != "gen_expert")


def test_an_arm_is_asked_for_what_it_can_do(place: Path) -> None:
    assert run(place, SEEDS="0", BUDGETS="").returncode == 0
    for command in commands(place, "evaluate"):
        arm = Path(command[command.index("--output") + 1]).parts[-3]
        names = command[command.index("--benchmarks") + 1].split(",")
        assert [benchmark.name for benchmark in find_benchmarks(names)] == names
        assert ("geneval_shapes" in names) == (arm != "und_expert")
        assert ("vqa_shapes" in names) == (arm != "gen_expert")
        assert "alignment" in names
        assert command[command.index("--model") + 1].endswith(f"{arm}/seed-0/train/checkpoint-1000")


def test_arms_seeds_steps_and_budgets_can_be_chosen(place: Path) -> None:
    chosen = {"ARMS": "fully_shared fork_half", "SEEDS": "5", "STEPS": "30", "BUDGETS": "10 20", "JOBS": "2"}
    assert run(place, PROFILE="short", RUN_DIR=str(place / "elsewhere"), **chosen).returncode == 0
    trained = [settings(command) for command in commands(place, "train configs/shapes/unifork.yaml")]
    assert {one["experiment.output_dir"] for one in trained} == {
        f"{place}/elsewhere/{arm}/seed-5/train" for arm in ("fully_shared", "fork_half")
    }
    assert {(one["training.steps"], one["experiment.keep_every"]) for one in trained} == {("30", "10")}
    scored = {Path(command[command.index("--output") + 1]).name for command in commands(place, "evaluate")}
    assert scored == {"evaluation-10", "evaluation-20", "evaluation"}


def test_a_failed_arm_ends_the_script_without_a_report(place: Path) -> None:
    done = run(place, PROFILE="short", FAILS="evaluate*fully_shared*", JOBS="2")
    assert done.returncode == 3
    assert commands(place, "study") == []


@pytest.mark.parametrize(
    ("variables", "complaint"), [({"PROFILE": "long"}, "PROFILE is long"), ({"ARMS": "fork_all"}, "no arm fork_all")]
)
def test_mistakes_are_named_before_anything_is_run(variables: dict[str, str], complaint: str, place: Path) -> None:
    done = run(place, **variables)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (place / "commands").exists()
