# SPDX-License-Identifier: Apache-2.0
"""The study of UAE: which commands its script starts, seen through a `unigen` that notes them, and which parts it keeps."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unigen.cli.main import main
from unigen.config.load import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "reproduce_uae_shapes.sh"
PARTS = {
    "uae_captioner": "uae_captioner",
    "uae_vae": "uae_vae",
    "reward_encoder": "uae_reward_encoder",
    "score_encoder": "uae_score_encoder",
    "uae_longcap": "uae_longcap",
    "uae_coldstart": "uae_coldstart",
}
"""Each part with its configuration, in the order of making."""
POLICIES = ("understanding", "generation", "control_understanding", "control_generation")
NOTING = """#!/bin/sh
echo "$*" >>"{place}/commands"
case "$*" in $FAILS) exit 3;; esac
for word in "$@"; do case "$word" in experiment.output_dir=*) mkdir -p "${{word#*=}}";; esac; done
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout with the script alone and configurations by name, whose environment notes every command of `unigen`."""
    scripts, programs, configs = tmp_path / "scripts", tmp_path / "environment" / "bin", tmp_path / "configs" / "shapes"
    for folder in (scripts, programs, configs, tmp_path / "configs" / "models" / "shapes-qwen2-vl"):
        folder.mkdir(parents=True)
    for name in (NAME, "environment.sh"):
        shutil.copy(REPOSITORY / "scripts" / name, scripts / name)
    (scripts / "setup.sh").write_text("")
    (tmp_path / "configs" / "models" / "shapes-qwen2-vl" / "config.json").write_text("{}")
    (configs / "base.yaml").write_text("model: {image_resolution: 32}\n")
    (configs / "vision.yaml").write_text("base: base.yaml\nstage: vision\n")
    for name in PARTS.values():
        base = "vision" if name.endswith("encoder") else "base"
        (configs / f"{name}.yaml").write_text(f"base: {base}.yaml\nexperiment: {{name: {name}}}\n")
    for name in ("python", "unigen"):
        (programs / name).write_text(NOTING.format(place=tmp_path))
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


def made_parts(place: Path) -> list[str]:
    """The parts whose training was started since the last call, in order; what was noted until now is forgotten."""
    names = [Path(settings(command)["experiment.output_dir"]).name for command in commands(place, "train")]
    (place / "commands").unlink()
    return [name.rpartition("-")[0] for name in names if name.rpartition("-")[0] in PARTS]


def test_the_full_profile_makes_the_parts_and_then_trains_and_scores_from_every_seed(place: Path) -> None:
    done = run(place)
    assert done.returncode == 0, done.stderr
    study = place / "runs" / "uae"
    found = commands(place)
    assert [command[:2] for command in found[:2]] == [["data", "shapes"], ["data", "shapes-processor"]]
    assert found[-1] == ["study", "uae", str(study)]
    assert [command[1] for command in found[2:8]] == [f"configs/shapes/{config}.yaml" for config in PARTS.values()]
    assert all(settings(command)["data.root"] == str(study) for command in found if command[0] == "train")
    told = [
        Path(settings(command).get("experiment.output_dir") or command[command.index("--output") + 1])
        for command in found[8:-1]
    ]
    of_a_seed = (
        "understanding",
        "evaluation/after_understanding",
        "generation",
        "evaluation/after_generation",
        "control_understanding",
        "control_generation",
        "evaluation/control",
    )
    expected = [f"seed-{seed}/{name}" for seed in (0, 1) for name in of_a_seed]
    assert [str(path.relative_to(study)) for path in told] == ["evaluation/before", *expected]
    assert (study / "started").read_text().strip().isdigit()


def test_every_training_is_one_that_can_be_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, SEEDS="4").returncode == 0
    monkeypatch.chdir(tmp_path)
    for verb, config, *overrides in commands(place, "train"):
        assert main([verb, str(REPOSITORY / config), *overrides, "--dry-run", "--json"]) == 0, capsys.readouterr().err
        capsys.readouterr()


def test_the_configurations_read_what_the_parts_before_them_wrote() -> None:
    made: list[str] = []
    for part, name in [*PARTS.items(), ("", "uae_grpo_understanding"), ("", "uae_grpo_generation")]:
        config = load_config(REPOSITORY / "configs" / "shapes" / f"{name}.yaml", ["data.root=ROOT"])
        rewards = [reward.model for reward in config.grpo.rewards.values()]
        read = [config.model.pretrained, config.model.uae.vae, config.coldstart.encoder.model, *rewards]
        assert {Path(one).name for one in read if one} <= set(made)
        if part:
            assert config.experiment.output_dir == f"ROOT/{part}"
        made.append(part)


def test_a_control_is_its_stage_but_for_the_advantages(place: Path) -> None:
    assert run(place, "grpo.group_size=4", SEEDS="7").returncode == 0
    own = place / "runs" / "uae" / "seed-7"
    trained = {
        Path(given["experiment.output_dir"]).name: given
        for given in map(settings, commands(place, "train"))
        if "experiment.seed" in given
    }
    assert tuple(trained) == POLICIES
    assert all(given["experiment.seed"] == "7" and given["grpo.group_size"] == "4" for given in trained.values())
    assert trained["generation"].pop("model.pretrained") == str(own / "understanding")
    assert trained["control_generation"].pop("model.pretrained") == str(own / "control_understanding")
    for name in ("understanding", "generation"):
        control = trained[f"control_{name}"]
        assert control.pop("grpo.shuffle_advantages") == "true"
        assert {**control, "experiment.output_dir": ""} == {**trained[name], "experiment.output_dir": ""}


def test_every_model_is_scored_by_the_encoder_that_gives_no_reward_on_the_same_held_out_images(place: Path) -> None:
    assert run(place, SEEDS="0", NUM_IMAGES="12").returncode == 0
    study = place / "runs" / "uae"
    scored = commands(place, "evaluate")
    models = [command[command.index("--model") + 1] for command in scored]
    after = ("understanding", "generation", "control_generation")
    assert models == [str(study / "uae_coldstart"), *(str(study / "seed-0" / name) for name in after)]
    (given,) = {tuple(sorted(settings(command).items())) for command in scored}
    assert dict(given)["unified_bench.images"] == str(study / "datasets/evaluation/captioned")
    assert dict(given)["unified_bench.num_images"] == "12"
    assert dict(given)["unified_bench.encoders.own.model"] == str(study / "score_encoder")


def test_parts_that_another_run_made_are_taken(place: Path) -> None:
    cache = str(place / "cache")
    assert run(place, PARTS_DIR=cache, RUN_DIR=str(place / "first")).returncode == 0
    assert made_parts(place) == list(PARTS)
    assert run(place, PARTS_DIR=cache, RUN_DIR=str(place / "second"), SEEDS="3").returncode == 0
    assert made_parts(place) == []
    for name in PARTS:
        links = [(place / study / name).readlink() for study in ("first", "second")]
        assert links[0] == links[1]
        assert links[0].parent == Path(cache)


@pytest.mark.parametrize(
    ("changed", "remade"),
    [
        ("shapes/uae_vae.yaml", ["uae_vae", "uae_longcap", "uae_coldstart"]),
        ("shapes/uae_score_encoder.yaml", ["score_encoder"]),
        ("shapes/vision.yaml", ["reward_encoder", "score_encoder", "uae_coldstart"]),
        ("shapes/base.yaml", list(PARTS)),
        ("models/shapes-qwen2-vl/config.json", list(PARTS)),
    ],
)
def test_a_part_is_made_anew_where_anything_that_it_is_made_from_changed(
    changed: str, remade: list[str], place: Path
) -> None:
    assert run(place).returncode == 0
    made_parts(place)
    with (place / "configs" / changed).open("a") as file:
        file.write("# another\n")
    assert run(place).returncode == 0
    assert made_parts(place) == remade


def test_the_profiles_share_no_parts(place: Path) -> None:
    assert run(place, PROFILE="short").returncode == 0
    steps = [settings(command)["training.steps"] for command in commands(place, "train")]
    assert max(map(int, steps)) <= 100
    assert made_parts(place) == list(PARTS)
    assert run(place, PROFILE="full").returncode == 0
    assert made_parts(place) == list(PARTS)


def test_a_part_that_failed_is_gone_on_with(place: Path) -> None:
    done = run(place, FAILS="train*uae_vae.yaml*")
    assert done.returncode == 3
    assert commands(place, "study") == []
    made_parts(place)
    assert run(place).returncode == 0
    assert made_parts(place) == [name for name in PARTS if name != "uae_captioner"]


def test_a_failed_evaluation_ends_the_script_without_a_report(place: Path) -> None:
    assert run(place, FAILS="evaluate*seed-0/generation*").returncode == 3
    assert commands(place, "study") == []


def test_mistakes_are_named_before_anything_is_run(place: Path) -> None:
    done = run(place, PROFILE="long")
    assert done.returncode == 2
    assert "PROFILE is long" in done.stderr
    assert not (place / "commands").exists()
