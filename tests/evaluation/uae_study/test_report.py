# SPDX-License-Identifier: Apache-2.0
"""The report of a study of UAE: scores, differences, curves, captions and words, and what is refused."""

import html
import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from click.testing import CliRunner

from tests.evaluation.uae_study.folders import NUM_IMAGES, SCORES, SCORING_WEIGHTS, SECONDS, STEPS, write_study
from unigen.cli.main import main
from unigen.cli.study import command
from unigen.config.folders import weights_hash
from unigen.evaluation.study import verdict


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    write_study(path)
    return path


@pytest.fixture(scope="module")
def report(study: Path) -> dict:
    found = CliRunner().invoke(command, ["uae", str(study), "--json"])
    assert found.exit_code == 0, found.output
    content = json.loads((study / "report.json").read_text())
    assert content == json.loads(found.stdout)
    return content


@pytest.fixture
def own_study(study: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study"


def test_every_arm_has_its_score_with_an_interval(report: dict) -> None:
    assert list(report["unified_bench"]) == list(SCORES)
    for name, found in report["unified_bench"].items():
        assert found["mean"] == pytest.approx(SCORES[name], abs=0.005)
        assert found["low"] < found["mean"] < found["high"]
        assert fmean(found["seeds"]) == pytest.approx(found["mean"])
    assert report["num_images"] == NUM_IMAGES
    assert report["num_seeds"] == 2


def test_differences_are_paired_by_image_and_seed(report: dict) -> None:
    paired = report["paired"]
    assert paired["understanding"]["mean"] == pytest.approx(0.08, abs=0.002)
    assert paired["generation"]["mean"] == pytest.approx(0.06, abs=0.002)
    assert paired["policy_minus_control"]["mean"] == pytest.approx(0.14, abs=0.002)
    assert {name: verdict(found) for name, found in paired.items()} == {
        "understanding": 1,
        "generation": 1,
        "control": 0,
        "policy_minus_control": 1,
    }
    for found in paired.values():
        # What an image has in common before and after falls out: the interval is far narrower than that of a score.
        assert found["high"] - found["low"] < 0.1 * (
            report["unified_bench"]["before"]["high"] - report["unified_bench"]["before"]["low"]
        )
        assert len(found["seeds"]) == 2
        assert fmean(found["seeds"]) == pytest.approx(found["mean"])


def test_rewards_and_caption_lengths_are_there_for_every_logged_step(report: dict) -> None:
    steps = [10, 20, 30, 40]
    assert report["reward"]["understanding"]["seed-0"] == {"steps": steps, "values": [0.6, 0.7, 0.75, 0.8]}
    assert report["reward"]["control_generation"]["seed-1"] == {"steps": steps, "values": [0.6] * 4}
    assert report["caption_length"]["control_understanding"]["seed-1"] == {"steps": steps, "values": [20, 21, 22, 23]}
    assert list(report["caption_length"]) == ["understanding", "control_understanding"]


def test_captions_are_held_against_the_true_objects(report: dict) -> None:
    found = report["caption_accuracy"]
    assert found["before"]["mean"] < 0.7 < found["after"]["mean"] < 1
    assert found["control"]["mean"] == found["before"]["mean"]
    assert found["before"]["low"] < found["before"]["mean"] < found["before"]["high"]
    assert found["paired"]["after"]["low"] > 0
    assert found["paired"]["control"]["mean"] == 0
    assert found["after"]["words"] > found["before"]["words"] > 6
    assert found["after"]["recall"] > found["before"]["recall"]


def test_a_missing_reconstruction_is_named(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = own_study / "evaluation" / "before" / "unified_bench" / "images.jsonl"
    lines.write_text(lines.read_text().replace("images/00003.png", "images/gone.png"))
    assert main(["study", "uae", str(own_study)]) == 2
    assert "unified_bench/images/gone.png is missing" in capsys.readouterr().err


def test_the_encoders_are_named_by_their_weights(study: Path, report: dict) -> None:
    rewarding = weights_hash(study / "reward_encoder")
    assert report["encoders"] == {"score": {"siglip": SCORING_WEIGHTS}, "reward": {"likeness": rewarding}}


def test_time_is_told_by_stage(report: dict) -> None:
    seconds = report["seconds"]
    assert seconds["pretrained"] == {"reward_encoder": SECONDS, "uae_coldstart": SECONDS, "total": 2 * SECONDS}
    each = dict.fromkeys(("understanding", "control_understanding", "generation", "control_generation"), 2 * SECONDS)
    assert seconds["rl"] == {**each, "total": 8 * SECONDS}
    assert seconds["evaluation"] == 7 * 3.0
    assert "git_commit" in report


def test_the_words_say_which_stage_raises_the_score_and_that_the_control_does_not(report: dict) -> None:
    words = {one["title"]: one["text"] for one in report["findings"]}
    assert "the language model is the policy, the score of held-out images rises: +0.08" in words["Understanding"]
    assert "It is above 0 in 2 of 2 training seeds." in words["Understanding"]
    assert "the decoder is the policy, the score of held-out images rises: +0.06" in words["Generation"]
    assert "The reward of training goes from 0.600 to 0.800, the control's from 0.600 to 0.600." in words["Generation"]
    assert "it is not shown to change, as it must be" in words["Control"]
    assert "is ahead of it: +0.14" in words["Control"]
    assert "Captions become truer" in words["Captions"]
    assert "The policy stages took 12.0 minutes, controls and 2 training seeds together" in words["Time"]


def test_the_words_hide_neither_a_fall_nor_a_control_that_rises(tmp_path: Path) -> None:
    write_study(tmp_path, {**SCORES, "after_understanding": 0.6, "control": 0.9}, seeds=1)
    found = CliRunner().invoke(command, ["uae", str(tmp_path), "--json"])
    assert found.exit_code == 0, found.output
    words = {one["title"]: one["text"] for one in json.loads(found.stdout)["findings"]}
    assert "the score of held-out images falls: -0.1" in words["Understanding"]
    assert "It is above 0 in 0 of 1 training seeds." in words["Understanding"]
    assert "it rises too, so a rise of the policy cannot be put down to the rewards alone" in words["Control"]
    assert "is behind it: -0.06" in words["Control"]


def test_the_page_shows_all_of_it_by_itself(study: Path, report: dict) -> None:
    page = html.unescape((study / "report.html").read_text())
    assert page.count("data:image/svg+xml") == 3
    assert page.count("data:image/png") == 12 * 3
    assert report["findings"][0]["text"] in page
    assert (study / "datasets/evaluation/captioned/00000.txt").read_text() in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_command_prints_the_words_and_the_place(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "uae", str(study)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Understanding. Where the language model is the policy")
    assert str((study / "report.html").resolve()) in printed


def change(file: Path, *keys: str, value: object) -> None:
    content = yaml.safe_load(file.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("run", "keys", "value", "complaint"),
    [
        ("control_generation", ("optimizer",), {"learning_rate": 1.0}, "was trained with another optimizer than"),
        ("control_understanding", ("grpo", "group_size"), 4, "another grpo than seed-1/understanding"),
        (
            "control_understanding",
            ("grpo", "shuffle_advantages"),
            False,
            "seed-1/control_understanding has to be trained",
        ),
        ("generation", ("grpo", "shuffle_advantages"), True, "and seed-1/generation without it"),
        ("generation", ("training", "steps"), STEPS + 1, f"was not trained to its last step, {STEPS + 1}"),
    ],
)
def test_a_control_differs_in_its_advantages_alone(
    run: str, keys: tuple[str, ...], value: object, complaint: str, own_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(own_study / "seed-1" / run / "config.yaml", *keys, value=value)
    assert main(["study", "uae", str(own_study)]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("seed-1/generation", "seed-1/generation/metrics.jsonl is missing"),
        ("evaluation/before", "evaluation/before is missing"),
        ("seed-0/evaluation/control", "control has seed-1, but after_understanding has seed-0, seed-1"),
        (
            "seed-0/evaluation/control/unified_bench",
            "unified_bench/images.jsonl (No such file or directory); run `unigen evaluate",
        ),
    ],
)
def test_missing_parts_are_named(
    missing: str, complaint: str, own_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own_study / missing)
    assert main(["study", "uae", str(own_study)]) == 2
    assert complaint in capsys.readouterr().err


def test_evaluations_over_different_images_are_refused(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = own_study / "evaluation" / "before" / "unified_bench" / "images.jsonl"
    lines.write_text("".join(line + "\n" for line in lines.read_text().splitlines()[1:]))
    assert main(["study", "uae", str(own_study)]) == 2
    assert "was scored on other images than before" in capsys.readouterr().err


def test_images_without_a_true_caption_are_refused(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = own_study / "evaluation" / "before" / "unified_bench" / "images.jsonl"
    lines.write_text(lines.read_text().replace("captioned/00003.png", "captioned/99999.png"))
    assert main(["study", "uae", str(own_study)]) == 2
    assert "captioned/99999.txt, the true caption, cannot be read" in capsys.readouterr().err


def name_scorer(study: Path, evaluation: str, digest: str) -> None:
    results = study / evaluation / "results.json"
    results.write_text(results.read_text().replace(SCORING_WEIGHTS, digest))


def test_all_are_scored_by_the_same_encoder(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_scorer(own_study, "seed-1/evaluation/control", "5c1")
    assert main(["study", "uae", str(own_study)]) == 2
    assert "control was scored by other encoders than before" in capsys.readouterr().err


def test_the_encoder_of_the_reward_may_not_score(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for results in own_study.rglob("results.json"):
        name_scorer(results.parent, "", weights_hash(own_study / "reward_encoder"))
    assert main(["study", "uae", str(own_study)]) == 2
    assert "the encoder siglip scores, and it also gave the reward likeness" in capsys.readouterr().err
