# SPDX-License-Identifier: Apache-2.0
"""The report of a study of forks: scores, differences, budgets and words, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.evaluation.unifork_study.folders import LAYERS, STEPS, write_arm
from unigen.cli.main import main
from unigen.cli.study import command
from unigen.evaluation.unifork_study.report import read_arms

SHARES = {
    "und_expert": 0.5,
    "gen_expert": 0.6,
    "fully_shared": 0.4,
    "fork_quarter": 0.4,
    "fork_half": 0.7,
    "fork_three_quarters": 0.2,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half the layers shared draw best; at step 20 nothing was different yet; reading is the same everywhere."""
    path = tmp_path_factory.mktemp("study")
    for name in LAYERS:
        write_arm(path, name, drawn=SHARES[name], read=0.5, budgets={20: 0.3})
    (path / "started").write_text("0")
    return path


@pytest.fixture(scope="module")
def report(study: Path) -> dict:  # type: ignore[type-arg]
    found = CliRunner().invoke(command, ["unifork", str(study), "--json"])
    assert found.exit_code == 0, found.output
    content = json.loads((study / "report.json").read_text())
    assert content == json.loads(found.stdout)
    return content


def test_every_model_has_the_scores_that_it_can_have(report: dict) -> None:  # type: ignore[type-arg]
    models = report["models"]
    assert list(models) == list(LAYERS)
    drawn = {name: model["geneval_shapes"]["mean"] for name, model in models.items() if "geneval_shapes" in model}
    assert drawn == {name: pytest.approx(share) for name, share in SHARES.items() if name != "und_expert"}
    read = {name: model["vqa_shapes"]["mean"] for name, model in models.items() if "vqa_shapes" in model}
    assert read == dict.fromkeys((name for name in LAYERS if name != "gen_expert"), 0.5)
    for model in models.values():
        for benchmark in ("geneval_shapes", "vqa_shapes"):
            if benchmark in model:
                assert model[benchmark]["low"] <= model[benchmark]["mean"] <= model[benchmark]["high"]


def test_differences_are_from_the_fully_shared_model(report: dict) -> None:  # type: ignore[type-arg]
    paired = report["paired"]
    assert set(paired) == {f"{name}_minus_fully_shared" for name in LAYERS if name != "fully_shared"}
    assert set(paired["und_expert_minus_fully_shared"]) == {"vqa_shapes"}
    assert set(paired["gen_expert_minus_fully_shared"]) == {"geneval_shapes"}
    assert paired["fork_half_minus_fully_shared"]["geneval_shapes"]["mean"] == pytest.approx(0.3)
    assert paired["fork_half_minus_fully_shared"]["geneval_shapes"]["low"] > 0
    assert paired["fork_half_minus_fully_shared"]["vqa_shapes"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_sizes_costs_losses_and_curves_stand_beside(report: dict) -> None:  # type: ignore[type-arg]
    half, shared, expert = (report["models"][name] for name in ("fork_half", "fully_shared", "gen_expert"))
    assert half["parameters"]["total"] > shared["parameters"]["total"]
    assert half["flops_per_token"] == shared["flops_per_token"]
    assert list(expert["flops_per_token"]) == ["generation"]
    assert half["loss"] == {"t2i": 1.5, "mmu": 1.5}
    assert half["layers"] == {"shared": 2, "understanding": 2, "generation": 2}
    curve = report["alignment"]["fork_half"]["ways"]["generation"]["alignment"]
    assert curve == pytest.approx([0.1, 0.3, 0.4, 0.35, 0.2])
    assert list(report["alignment"]["und_expert"]["ways"]) == ["understanding"]
    assert report["references"] == {"geneval_shapes": {"ceiling": 0.9}, "vqa_shapes": {"majority": 0.4}}
    assert report["budget"] == {"steps": STEPS, "samples_per_step": {"t2i": 16, "mmu": 8}, "same_samples": True}
    assert report["num_seeds"] == 2
    assert report["seconds"]["training"] == 12 * 20
    assert "git_commit" in report


def test_the_words_say_where_and_from_when_on_the_fork_pays(report: dict) -> None:  # type: ignore[type-arg]
    assert list(report["budgets"]) == ["20", str(STEPS)]
    words = {one["title"]: one["text"] for one in report["findings"]}
    assert "So the fork pays with 2 of 4 layers shared and costs with 3 of 4 layers shared." in words["Drawing"]
    assert "the other task takes something from it" in words["Drawing"]
    assert "So no fork is shown to pay or to cost here" in words["Reading"]
    assert "with 2 of 4 layers shared from step 40 on" in words["Budget"]
    assert "Reading: at the last of the budgets of 20, 40 steps no fork is shown to pay." in words["Budget"]
    assert (
        "Generation branch: at most 0.420 (fully shared, after layer 2); 0.150 to 0.300 after the last layer, 0.120 to 0.240 "
        "below each model's own highest."
    ) in words["Alignment"]
    assert "at the same FLOPs per token" in words["Cost"]


def test_the_page_shows_all_of_it_by_itself(study: Path, report: dict) -> None:  # type: ignore[type-arg]
    page = (study / "report.html").read_text()
    assert page.count("data:image/svg+xml") == 5
    assert page.count("data:image/png") == 8 * 5
    for name in LAYERS:
        assert name.replace("_", " ") in page
    assert report["findings"][0]["text"] in page
    aligned = page.split("<h2>Alignment")[1].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in aligned.split("<tr>")[2:]]
    assert rows[0] == ["und expert", "0.400", "2", "0.200", "–", "–", "–"]
    assert rows[2] == ["fully shared", *["0.420", "2", "0.300"] * 2]
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_command_prints_the_words_and_the_place(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "unifork", str(study)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Drawing. The fully shared model scores 0.400")
    assert str((study / "report.html").resolve()) in printed


def test_a_part_of_the_arms_and_one_budget_are_a_study_too(tmp_path: Path) -> None:
    for name in ("fully_shared", "fork_half"):
        write_arm(tmp_path, name, seeds=1)
    found = CliRunner().invoke(command, ["unifork", str(tmp_path), "--json"])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["budgets"] == {}
    assert [one["title"] for one in report["findings"]] == ["Drawing", "Reading", "Alignment", "Cost"]
    assert "By budget" not in (tmp_path / "report.html").read_text()


def change(file: Path, *keys: str, value: object) -> None:
    content = yaml.safe_load(file.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (
            ("optimizer", "learning_rate"),
            0.1,
            "fork_half/seed-0 was trained with another optimizer than fully_shared/seed-0",
        ),
        (("training", "samples_per_step", "mmu"), 4, "another training.samples_per_step.mmu than"),
        (("training", "steps"), 90, "was not trained to its last step, 90"),
        (("experiment", "seed"), 7, "another experiment.seed than"),
    ],
)
def test_arms_of_another_budget_are_refused(
    keys: tuple[str, ...], value: object, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fully_shared", "fork_half"):
        write_arm(tmp_path, name, seeds=1)
    change(tmp_path / "fork_half" / "seed-0" / "train" / "config.yaml", *keys, value=value)
    assert main(["study", "unifork", str(tmp_path)]) == 2
    assert complaint in capsys.readouterr().err


def test_missing_parts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arm(tmp_path, "fork_half", seeds=1)
    assert main(["study", "unifork", str(tmp_path)]) == 2
    assert "no fully_shared/seed-*/train to compare with" in capsys.readouterr().err
    write_arm(tmp_path, "fully_shared", seeds=2)
    assert main(["study", "unifork", str(tmp_path)]) == 2
    assert "fork_half has seed-0, but fully_shared has seed-0, seed-1" in capsys.readouterr().err
    (tmp_path / "fully_shared" / "seed-1" / "evaluation" / "results.json").unlink()
    assert main(["study", "unifork", str(tmp_path)]) == 2
    assert "fully_shared/seed-1/evaluation is missing" in capsys.readouterr().err


def test_arms_come_in_the_order_of_depth_and_others_after_them(tmp_path: Path) -> None:
    for name in ("fork_three_quarters", "fully_shared"):
        write_arm(tmp_path, name, seeds=1)
    (tmp_path / "fork_three_quarters").rename(tmp_path / "another")
    write_arm(tmp_path, "fork_quarter", seeds=1)
    assert [arm.name for arm in read_arms(tmp_path)] == ["fully_shared", "fork_quarter", "another"]
