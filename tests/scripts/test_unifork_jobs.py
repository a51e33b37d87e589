# SPDX-License-Identifier: Apache-2.0
"""The job scripts of UniFork as they answer without a SLURM; tests/slurm runs them on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unifork_world import ORIGINS

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = REPOSITORY / "scripts" / "train"
CHAIN = "scripts/slurm/unifork_all.sh"


def run(*words: str, path: str = os.environ["PATH"], cwd: Path = REPOSITORY) -> "subprocess.CompletedProcess[str]":
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    environment = {**outer, "PATH": path, "VIRTUAL_ENV": sys.prefix}
    return subprocess.run(["bash", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH whose sbatch writes what it is given to `submitted`."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/submitted"\necho 7\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_there_is_a_job_for_every_stage_and_all_ask_for_the_same() -> None:
    assert {file.stem for file in TRAIN.glob("*.sh")} == set(ORIGINS)
    texts = {stage: (TRAIN / f"{stage}.sh").read_text() for stage in ORIGINS}
    asked = {stage: [line for line in text.splitlines() if line.startswith("#SBATCH")] for stage, text in texts.items()}
    for stage, lines in asked.items():
        assert lines[0] == f"#SBATCH --job-name=unifork_{stage}"
        assert lines[1:] == asked["s2_sft"][1:]
        assert f"configs/unifork_0_5b/{stage}.yaml" in texts[stage]
    assert {"#SBATCH --nodes=2", "#SBATCH --gpus-per-node=8", "#SBATCH --requeue"} <= set(asked["s2_sft"])


def test_help_is_one_line_from_anywhere(tmp_path: Path) -> None:
    finished = run(str(TRAIN / "s2_sft.sh"), "--help", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.count("\n") == 1
    assert "sbatch" in finished.stdout
    assert "scripts/train/s2_sft.sh [key=value ...]" in finished.stdout


def test_a_job_script_that_is_not_submitted_says_how_to(tmp_path: Path) -> None:
    finished = run(str(TRAIN / "s3_gen.sh"), "training.steps=3", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("usage, in the repository: sbatch ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["word"], "'word' is neither a flag nor key=value"),
        (["--output_dir"], "--output_dir needs a value"),
        (["experiment.output_dir=x"], "give --output_dir"),
        (["s1_imagenet.training.stepz=3"], "training.stepz"),
    ],
)
def test_a_mistake_in_the_chain_is_one_line_and_nothing_is_submitted(
    words: list[str], named: str, path: str, tmp_path: Path
) -> None:
    finished = run(CHAIN, *words, path=path)
    assert finished.returncode == 2
    assert named in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "submitted").exists()


def test_the_chain_needs_sbatch(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "basename"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    finished = run(CHAIN, path=str(tmp_path / "bin"))
    assert finished.returncode == 1
    assert "there is no sbatch here" in finished.stderr


def test_the_help_of_the_chain_names_what_it_takes() -> None:
    finished = run(CHAIN, "--help")
    assert finished.returncode == 0
    assert all(word in finished.stdout for word in ("--output_dir", "key=value", "sbatch"))
