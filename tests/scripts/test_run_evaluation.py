# SPDX-License-Identifier: Apache-2.0
"""`scripts/run_evaluation.sh`: the flags of the UniGen README, seen through a `python` that prints its arguments."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.world import quiet_environment

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "run_evaluation.sh"
SFT = "configs/unigen_1_5b/unigen_sft.yaml"
NEEDED = ["--eval_checkpoint", "unigen_sft/checkpoint-145824", "--output_dir", "out"]


class Run:
    """Runs the script in an environment whose python prints its arguments."""

    def __init__(self, environment: Path) -> None:
        self._environment = {**quiet_environment(), "VIRTUAL_ENV": str(environment), "CUDA_VISIBLE_DEVICES": ""}

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> list[str]:
        """The arguments that python got; or, for another exit code, the lines on stderr."""
        finished = subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, **self._environment, **environment},
        )
        assert finished.returncode == code, finished.stderr
        return (finished.stdout if code == 0 else finished.stderr).splitlines()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    return Run(tmp_path / "venv")


@pytest.mark.parametrize("dash", ["-", "_"])
def test_the_flags_of_the_readme_become_one_evaluation(dash: str, run: Run) -> None:
    flags = {
        "config": SFT,
        "eval_checkpoint": "unigen_sft/checkpoint-145824",
        "output_dir": "my out",
        "eval_modules": "lmms+geneval+dpgbench+cot-gen+cot-dpg",
        "local_shared_fs": "my data",
        "lmms_tasks": "pope,gqa",
        "mmu_rating_style": "outcome",
    }
    arguments = [word for name, value in flags.items() for word in ("--" + name.replace("_", dash), value)]
    assert run(*arguments) == [
        *["-m", "unigen", "evaluate", "--model", "unigen_sft/checkpoint-145824", "--data-root", "my data"],
        *["--benchmarks", "lmms,geneval,dpgbench,cot-gen,cot-dpg"],
        *["--output", "my out/unigen_1_5b/unigen_sft_eval_results", "--released-layout"],
        *["best_of_n.verifiers=[outcome]", "--config", SFT, "lmms.tasks=[pope,gqa]"],
    ]


def test_the_defaults_are_lmms_and_geneval_and_think(run: Run) -> None:
    found = run(*NEEDED, "num_images=2")
    assert found[found.index("--benchmarks") + 1] == "lmms,geneval"
    assert found[found.index("--data-root") + 1] == "unigen_data"
    assert found[found.index("--output") + 1] == "out/unigen_sft/checkpoint-145824_eval_results"
    assert found[-2:] == ["best_of_n.verifiers=[think]", "num_images=2"]


def test_one_process_per_gpu(run: Run) -> None:
    found = run(*NEEDED, CUDA_VISIBLE_DEVICES="0,1,2")
    assert found[:7] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3", "-m", "unigen"]
    assert run(*NEEDED, "--num_processes", "2")[4] == "2"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--output_dir", "out"], "--eval_checkpoint is required"),
        (NEEDED[:2], "--output_dir is required"),
        ([*NEEDED, "--config", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        ([*NEEDED, "--eval_module", "lmms"], "there is no flag --eval_module"),
        ([*NEEDED, "--dry_run"], "there is no flag --dry_run"),
        ([*NEEDED, "--num_processes", "0"], "give a number above 0"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], complaint: str, run: Run) -> None:
    (line,) = run(*arguments, code=2)
    assert complaint in line


def test_help_names_every_flag(run: Run) -> None:
    text = "\n".join(run("-h"))
    names = [
        "config",
        "eval_checkpoint",
        "output_dir",
        "eval_modules",
        "local_shared_fs",
        "lmms_tasks",
        "mmu_rating_style",
    ]
    assert [name for name in names if f"--{name} " not in text] == []
