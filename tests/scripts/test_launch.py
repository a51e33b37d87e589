# SPDX-License-Identifier: Apache-2.0
"""The scripts that train: which command they start, mostly seen through a `python` that prints its arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world import quiet_environment

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ACCELERATE = SCRIPTS.parent / "configs" / "accelerate"
PT1 = "configs/unigen_1_5b/unigen_pt1.yaml"
PT2 = "configs/unigen_1_5b/unigen_pt2.yaml"
SFT = "configs/unigen_1_5b/unigen_sft.yaml"
DPO = "configs/unigen_1_5b/unigen_dpo.yaml"
COTV = "configs/unigen_1_5b/unigen_cotv_post_sft.yaml"
GRPO = "configs/uae/grpo_understanding.yaml"

# The training commands of the UniGen README, and one of UAE: script, flags, the `unigen` arguments they become.
README_COMMANDS = {
    "stage 1": (
        "run_pretraining.sh",
        {"experiment_config": PT1, "output_dir": "out", "train_module": "train.py"},
        [PT1, "experiment.output_dir=out"],
    ),
    "stage 2": (
        "run_pretraining.sh",
        {
            "experiment_config": PT2,
            "pretrained_model": "unigen_pt1/checkpoint-150000",
            "output_dir": "out",
            "train_module": "train.py",
        },
        [PT2, "experiment.output_dir=out", "model.pretrained=unigen_pt1/checkpoint-150000"],
    ),
    "sft": (
        "run_sft.sh",
        {
            "experiment_config": SFT,
            "pretrained_model": "unigen_pt2/checkpoint-400000",
            "train_module": "train_w_clip_vit.py",
            "output_dir": "out",
        },
        [SFT, "experiment.output_dir=out", "model.pretrained=unigen_pt2/checkpoint-400000"],
    ),
    "dpo": (
        "run_sft.sh",
        {
            "experiment_config": DPO,
            "pretrained_model": "unigen_sft/checkpoint-145824",
            "train_module": "train_dpo.py",
            "output_dir": "out",
        },
        [DPO, "experiment.output_dir=out", "model.pretrained=unigen_sft/checkpoint-145824"],
    ),
    "cotv": (
        "run_cotv.sh",
        {
            "experiment_config": COTV,
            "pretrained_model": "unigen_dpo/unwrapped_model",
            "train_module": "train_w_clip_vit.py",
            "output_dir": "out",
        },
        [COTV, "experiment.output_dir=out", "model.pretrained=unigen_dpo/unwrapped_model"],
    ),
    "grpo": (
        "run_grpo.sh",
        {"experiment_config": GRPO, "pretrained_model": "uae_coldstart", "output_dir": "out"},
        [GRPO, "experiment.output_dir=out", "model.pretrained=uae_coldstart"],
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the configurations and an environment whose python prints its arguments, one per line."""
    for config in (PT1, PT2, SFT, DPO, COTV, GRPO):
        (tmp_path / config).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / config).touch()
    _program(tmp_path / "environment" / "bin" / "python", 'printf "%s\\n" "$@"\necho "CPU=${ACCELERATE_USE_CPU:-}"')
    return tmp_path


def _program(file: Path, body: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def _run(place: Path, script: str, *arguments: str, gpus: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(place / "environment"), "CUDA_VISIBLE_DEVICES": gpus}
    command = ["bash", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def _started(finished: subprocess.CompletedProcess[str]) -> list[str]:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def _flags(flags: dict[str, str], spelling: str) -> list[str]:
    return [word for name, value in flags.items() for word in ("--" + name.replace("_", spelling), value)]


@pytest.mark.parametrize("spelling", ["_", "-"])
@pytest.mark.parametrize("name", README_COMMANDS)
def test_readme_commands_train_in_both_spellings(name: str, spelling: str, place: Path) -> None:
    script, flags, arguments = README_COMMANDS[name]
    started = _started(_run(place, script, *_flags(flags, spelling)))
    assert started == ["-m", "unigen", "train", *arguments, "CPU="]


@pytest.mark.parametrize(("name", "spelling"), [("stage 2", "_"), ("sft", "-")])
def test_readme_commands_dry_run_for_real(name: str, spelling: str, tmp_path: Path) -> None:
    script, flags, _ = README_COMMANDS[name]
    given = _flags({**flags, "experiment_config": str(SCRIPTS.parent / flags["experiment_config"])}, spelling)
    environment = {**quiet_environment(), "VIRTUAL_ENV": sys.prefix, "HF_HUB_OFFLINE": "1"}
    command = ["bash", str(SCRIPTS / script), *given, f"--dry{spelling}run"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "language model 1,555,896,320" in finished.stdout
    assert not (tmp_path / "out").exists()


def test_a_flag_may_carry_its_value_after_an_equals_sign(place: Path) -> None:
    started = _started(_run(place, "run_pretraining.sh", f"--experiment-config={PT1}", "--output-dir=a=b"))
    assert started[:5] == ["-m", "unigen", "train", PT1, "experiment.output_dir=a=b"]


def test_two_gpus_are_used_without_being_asked(place: Path) -> None:
    script, flags, arguments = README_COMMANDS["stage 1"]
    started = _started(_run(place, script, *_flags(flags, "_"), gpus="0,1"))
    assert started[:6] == [
        *("-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / "multi_gpu.yaml")),
        *("--num_processes", "2"),
    ]
    assert started[started.index("--main_process_port") + 1] == "0"
    assert started[-len(arguments) - 4 : -1] == ["-m", "unigen", "train", *arguments]


def test_several_processes_on_a_cpu_go_through_torchrun(place: Path) -> None:
    script, flags, _ = README_COMMANDS["stage 1"]
    started = _started(_run(place, script, *_flags(flags, "_"), "--num-processes", "2"))
    assert started[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert started[-1] == "CPU=true"


def test_several_machines_meet_at_the_first_one(place: Path) -> None:
    script, flags, _ = README_COMMANDS["stage 1"]
    machines = ["--num_machines", "4", "--machine_rank", "1", "--main_process_ip", "10.0.0.1"]
    started = _started(_run(place, script, *_flags(flags, "_"), *machines, gpus="0,1,2,3,4,5,6,7"))
    assert started[3:6] == [str(ACCELERATE / "multi_node.yaml"), "--num_processes", "32"]
    assert " ".join(started).count("--machine_rank 1 --main_process_ip 10.0.0.1 --main_process_port 29500") == 1


def test_several_machines_without_gpus_meet_through_torchrun(place: Path) -> None:
    script, flags, _ = README_COMMANDS["stage 1"]
    machines = ["--num_machines", "2", "--machine_rank", "1", "--main_process_ip", "10.0.0.1", "--num_processes", "4"]
    started = _started(_run(place, script, *_flags(flags, "_"), *machines))
    rendezvous = ["--nnodes", "2", "--node_rank", "1", "--master_addr", "10.0.0.1", "--master_port", "29500"]
    assert started[:12] == ["-m", "torch.distributed.run", *rendezvous, "--nproc_per_node", "2"]


def test_an_accelerate_file_of_ones_own_is_used(place: Path) -> None:
    script, flags, _ = README_COMMANDS["stage 1"]
    (place / "my zero.yaml").touch()
    started = _started(_run(place, script, *_flags(flags, "_"), "--accelerate_config", "my zero.yaml", gpus="0"))
    assert started[1:6] == ["accelerate.commands.launch", "--config_file", "my zero.yaml", "--num_processes", "1"]


def test_paths_with_spaces_and_metacharacters_arrive_as_they_are_and_run_nothing(place: Path) -> None:
    output = "out $(touch hacked) `touch hacked`; touch hacked & | * ' \" ${HOME}"
    arguments = ["--experiment_config", PT1, "--output_dir", output, "experiment.name=a b; touch hacked"]
    started = _started(_run(place, "run_pretraining.sh", *arguments, "--num_processes", "2"))
    assert f"experiment.output_dir={output}" in started
    assert "experiment.name=a b; touch hacked" in started
    assert not (place / "hacked").exists()


def test_a_dry_run_is_one_process_however_many_gpus_there_are(place: Path) -> None:
    script, flags, arguments = README_COMMANDS["sft"]
    started = _started(_run(place, script, *_flags(flags, "_"), "training.steps=3", "--dry-run", gpus="0,1"))
    assert started == ["-m", "unigen", "train", *arguments, "training.steps=3", "--dry-run", "CPU="]


def test_the_user_id_of_the_old_script_is_accepted_and_not_passed_on(place: Path) -> None:
    script, flags, arguments = README_COMMANDS["sft"]
    started = _started(_run(place, script, *_flags(flags, "-"), "--user_id", "someone"))
    assert started == ["-m", "unigen", "train", *arguments, "CPU="]


MISTAKES = {
    "no output": ("run_pretraining.sh", ["--experiment_config", PT1], "--output_dir is required"),
    "no start": ("run_sft.sh", ["--experiment_config", SFT, "--output_dir", "x"], "--pretrained_model is required"),
    "no value": ("run_sft.sh", ["--experiment_config"], "--experiment_config needs a value"),
    "unknown": ("run_sft.sh", ["--experiment_confg", SFT], "there is no flag --experiment_confg"),
    "stray": ("run_sft.sh", ["out"], "'out' is neither a flag nor key=value"),
    "absent": ("run_pretraining.sh", ["--experiment_config", "none.yaml", "--output_dir", "x"], "none.yaml"),
    "module": (
        "run_sft.sh",
        ["--experiment_config", SFT, "--pretrained_model", "m", "--output_dir", "x", "--train_module", "train_ppo.py"],
        "--train_module is 'train_ppo.py'",
    ),
    "count": (
        "run_pretraining.sh",
        ["--experiment_config", PT1, "--output_dir", "x", "--num_processes", "two"],
        "--num_processes is 'two'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_code_2(name: str, place: Path) -> None:
    script, arguments, message = MISTAKES[name]
    finished = _run(place, script, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert finished.stderr.startswith(f"{script}: error: ")
    assert finished.stderr.count("\n") == 1
    assert finished.stdout == ""


@pytest.mark.parametrize("script", ["run_pretraining.sh", "run_sft.sh"])
def test_help_names_every_flag(script: str, place: Path) -> None:
    finished = _run(place, script, "-h")
    assert finished.returncode == 0
    for flag in ("--experiment_config", "--output_dir", "--pretrained_model", "--train_module", "--num_processes"):
        assert flag in finished.stdout


def test_an_environment_without_python_says_how_to_set_up(place: Path) -> None:
    (place / "environment" / "bin" / "python").unlink()
    finished = _run(place, "run_pretraining.sh", "--experiment_config", PT1, "--output_dir", "x")
    assert finished.returncode == 1
    assert "scripts/setup.sh" in finished.stderr
