# SPDX-License-Identifier: Apache-2.0
"""`unigen doctor`: what is missing is named with the command that brings it, and the exit code says so."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_world import small_world
from tests.unifork_world import write_unifork_world
from unigen import environment
from unigen.cli.main import main
from unigen.config.folders import SHIPPED_CONFIGS
from unigen.data.inventory import SHAPES_FOLDERS
from unigen.environment import Gpu, Machine, explain_unusable_gpu, extras, git_commit, package_versions

SFT = """
stage: sft
experiment: {{name: check, output_dir: {root}/run}}
model: {{pretrained: unigen_pt2/checkpoint-400000, vision_tower: siglip-so400m-patch14-384}}
data:
  root: {root}
  sources:
    drawing: {{task: t2i, format: webdataset, paths: ["journeydb/data_{{00..09}}.tar"]}}
    text: {{task: lm, format: parquet, paths: [falcon-refinedweb/data]}}
training: {{samples_per_step: {{t2i: 24, lm: 8}}}}
"""
MACHINE = Machine(
    num_cpus=8,
    memory_bytes=2**36,
    free_disk_bytes=2**40,
    gpus=[Gpu("NVIDIA H100", 80 * 2**30)],
    driver="535.1",
    driver_cuda="12.2",
    torch_cuda="13.2",
    is_cuda_usable=False,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sft.yaml"
    file.write_text(SFT.format(root=tmp_path / "data"))
    return file


def _put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")


def _fill(root: Path) -> None:
    checkpoints = root / "checkpoints"
    _put(checkpoints / "unigen_pt2" / "checkpoint-400000" / "unwrapped_model", "config.json", "model.safetensors")
    _put(checkpoints / "Qwen2.5-1.5B-Instruct", "config.json", "tokenizer.json")
    _put(checkpoints / "magvitv2", "config.json", "pytorch_model.bin")
    _put(checkpoints / "siglip-so400m-patch14-384", "config.json", "model.safetensors")
    _put(root / "datasets" / "journeydb", *(f"data_{number:02}.tar" for number in range(10)))
    _put(root / "datasets" / "falcon-refinedweb" / "data", "train-00000.parquet")


def test_what_a_config_wants_and_is_not_there_comes_with_its_command(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--config", str(config)]) == 1
    printed = capsys.readouterr().out
    assert "unigen download Qwen2.5-1.5B-Instruct --data-root" in printed
    assert "unigen download falcon-refinedweb --data-root" in printed
    assert f"unigen convert data SOURCE --kind folder --output {config.parent}/data/datasets/journeydb" in printed
    pt2 = f"configs/unigen_1_5b/unigen_pt2.yaml experiment.output_dir={config.parent}/data/checkpoints/unigen_pt2"
    assert f"unigen train {pt2}\n" in printed
    assert "(10 of 10 files)" in printed


def test_what_a_recipe_of_shapes_wants_is_written_by_two_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = SHIPPED_CONFIGS.parent / "shapes"
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--config", str(recipes / "sft.yaml"), "--json"]) == 1
    remedies = {item["what"].split()[0]: item["remedy"] for item in json.loads(capsys.readouterr().out)["missing"]}
    assert remedies["model.pretrained"] == "unigen train configs/shapes/pt2.yaml"
    assert remedies["model.vision_tower"] == "unigen train configs/shapes/vision.yaml"
    others = {remedy for key, remedy in remedies.items() if key.startswith("data.") or key == "model.text_tokenizer"}
    assert others == {"unigen data shapes --output runs/quickstart/datasets"}


def test_what_the_recipes_of_unifork_want_comes_with_its_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = SHIPPED_CONFIGS.parent / "unifork_0_5b"
    monkeypatch.chdir(tmp_path)
    remedies = {}
    for stage in ("s1_imagenet", "s3_und"):
        assert main(["doctor", "--config", str(recipes / f"{stage}.yaml"), "--json"]) == 1
        missing = json.loads(capsys.readouterr().out)["missing"]
        remedies[stage] = {item["what"].split()[0]: item["remedy"] for item in missing}
    assert remedies["s1_imagenet"]["model.language_model"] == "unigen download Qwen2.5-0.5B --data-root unigen_data"
    assert remedies["s1_imagenet"]["model.image_tokenizer"] == "unigen download vila-u-7b-256 --data-root unigen_data"
    assert "unigen_data/datasets/imagenet/train" in remedies["s1_imagenet"]["data.sources.draw.paths"]
    assert remedies["s3_und"]["model.pretrained"] == "unigen train configs/unifork_0_5b/s2_sft.yaml"


def test_nothing_is_missing_for_the_recipes_of_unifork_where_their_data_and_models_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_unifork_world(tmp_path / "unigen_data")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--config", str(SHIPPED_CONFIGS.parent / "unifork_0_5b" / "s1_imagenet.yaml")]) == 0
    assert "Nothing that is needed is missing." in capsys.readouterr().out


def test_what_the_shapes_command_is_said_to_write_it_writes(tmp_path: Path) -> None:
    world = small_world(tmp_path / "world")
    assert [name for name in SHAPES_FOLDERS if not (world / name).is_dir()] == []


def test_nothing_is_missing_once_everything_is_in_place(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(tmp_path / "data")
    code = main(["doctor", "--config", str(config), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == []
    assert code == 0
    assert {wanted["wanted"]["key"] for wanted in report["wanted"]} >= {"model.pretrained", "data.sources.text.paths"}


def test_one_missing_shard_and_one_folder_without_weights_are_found(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(tmp_path / "data")
    (tmp_path / "data" / "datasets" / "journeydb" / "data_07.tar").unlink()
    (tmp_path / "data" / "checkpoints" / "magvitv2" / "pytorch_model.bin").unlink()
    assert main(["doctor", "--config", str(config), "--json"]) == 1
    missing = [item["what"] for item in json.loads(capsys.readouterr().out)["missing"]]
    assert len(missing) == 2
    assert any("magvitv2" in what for what in missing)
    assert any("(1 of 10 files)" in what for what in missing)


def test_an_uninstalled_extra_is_shown_but_not_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unigen.cli.doctor.extras", lambda: {"eval": False})
    assert main(["doctor"]) == 0
    assert "bash scripts/setup.sh eval" in capsys.readouterr().out


def test_a_torch_build_that_is_too_new_for_the_driver_is_explained() -> None:
    explanation = explain_unusable_gpu(MACHINE)
    assert explanation is not None
    assert "13.2" in explanation
    assert "12.2" in explanation
    assert "--torch-backend=auto" in explanation


def test_a_machine_without_a_gpu_or_with_a_usable_one_needs_no_explanation() -> None:
    assert explain_unusable_gpu(replace(MACHINE, gpus=[], driver=None)) is None
    assert explain_unusable_gpu(replace(MACHINE, is_cuda_usable=True)) is None


def test_gpus_are_read_from_nvidia_smi_even_when_a_name_has_a_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "NVIDIA RTX 4000, SFF Ada, 20475, 550.54\nNVIDIA H200, 143771, 550.54\n"
    monkeypatch.setattr(environment, "_output", lambda command: lines)
    assert environment._gpus() == (
        [Gpu("NVIDIA RTX 4000, SFF Ada", 20475 * 2**20), Gpu("NVIDIA H200", 143771 * 2**20)],
        "550.54",
    )


def test_versions_and_commit_say_what_runs_here() -> None:
    versions = package_versions()
    assert versions["torch"]
    assert versions["python"].startswith("3.")
    assert set(extras()) == {"eval", "annotate", "demo", "dev", "flash-attn", "liger", "uae"}
    root = Path(environment.__file__).parents[1]
    expected = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert git_commit() == (expected.stdout.strip() if expected.returncode == 0 else None)


def test_what_will_be_staged_is_measured_where_the_data_is(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a login node, where the variable that names a node's disk is not set."""
    _fill(tmp_path / "data")
    config.write_text(config.read_text().replace("data:\n", "data:\n  stage_to: $NO_SUCH_DISK\n"))
    main(["doctor", "--config", str(config), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["staged"] == {"stage_to": "$NO_SUCH_DISK", "num_files": 11, "num_bytes": 22}
    main(["doctor", "--config", str(config)])
    assert "11 shards, 0.00 GB to $NO_SUCH_DISK of every node" in capsys.readouterr().out
