# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint folder holds, which one a run goes on from, and that going on changes nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.world import TinyWorld, metrics, train, weights
from unigen.config.load import load_config
from unigen.generation.pipeline import load_pipeline
from unigen.models.unigen import UniGen
from unigen.training.checkpoint_folder import newest_checkpoint


def assert_equal_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_checkpoint_is_a_model_folder_and_a_state(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config) == 0
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert {path.name for path in checkpoint.iterdir()} == {
        "unwrapped_model",
        "state",
        "config.yaml",
        "environment.json",
    }
    assert load_config(checkpoint / "config.yaml") == load_config(config)
    environment = json.loads((checkpoint / "environment.json").read_text())
    assert {"git_commit", "packages"} <= environment.keys()
    UniGen.from_pretrained(checkpoint / "unwrapped_model")
    pipeline = load_pipeline(tmp_path / "run", data_root=tiny_world.root, device="cpu")
    assert pipeline.draw("a red circle", steps=2)[0].size == (32, 32)


@pytest.mark.parametrize(
    ("stage", "optimizer"),
    [("tokenizer", "adamw"), ("vision", "adamw"), ("pretrain", "adamw"), ("sft", "adamw"), ("pretrain", "muon")],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_going_on_after_a_stop_gives_bitwise_the_same_weights(
    tiny_world: TinyWorld, tmp_path: Path, stage: str, optimizer: str, num_workers: int
) -> None:
    sections = {"data": {"num_workers": num_workers}, "optimizer": {"name": optimizer}}
    whole, stopped = (tiny_world.config(tmp_path / name, stage, **sections) for name in ("whole", "stopped"))
    assert train(whole, "training.steps=5") == 0
    assert train(stopped, "training.steps=2") == 0
    assert train(stopped, "training.steps=5") == 0
    assert_equal_weights(weights(tmp_path / "stopped" / "run"), weights(tmp_path / "whole" / "run"))
    seen, expected = (metrics(tmp_path / name / "run") for name in ("stopped", "whole"))
    assert [(line["step"], line["loss/total"]) for line in seen] == [
        (line["step"], line["loss/total"]) for line in expected
    ]


def test_going_on_keeps_the_average_the_discriminator_and_the_counters(tiny_world: TinyWorld, tmp_path: Path) -> None:
    sections = {"tokenizer_stage": {"adversarial_weight": 0.1}, "training": {"ema_decay": 0.5}}
    whole, stopped = (tiny_world.config(tmp_path / name, "tokenizer", **sections) for name in ("whole", "stopped"))
    assert train(whole, "training.steps=4") == 0
    assert train(stopped, "training.steps=2") == 0
    assert train(stopped, "training.steps=4") == 0
    for part in ("unwrapped_model", "ema_model"):
        pair = [weights(tmp_path / name / "run" / "checkpoint-4" / part) for name in ("stopped", "whole")]
        assert_equal_weights(*pair)
    states = [tmp_path / name / "run" / "checkpoint-4" / "state" for name in ("stopped", "whole")]
    assert (states[0] / "stage.safetensors").read_bytes() == (states[1] / "stage.safetensors").read_bytes()
    counters = [json.loads((state / "trainer.json").read_text()) for state in states]
    files = [content.pop("files") for content in counters]
    assert files[0].keys() == files[1].keys()
    assert counters[0].pop("seconds") > 0
    assert counters[1].pop("seconds") > 0
    assert counters[0] == counters[1]
    assert counters[0]["num_samples"] == 4 * 8


def test_a_finished_run_does_nothing_more(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config) == 0
    before = (tmp_path / "run" / "checkpoint-3" / "unwrapped_model" / "model.safetensors").stat().st_mtime_ns
    assert train(config) == 0
    assert (tmp_path / "run" / "checkpoint-3" / "unwrapped_model" / "model.safetensors").stat().st_mtime_ns == before


def test_only_the_newest_checkpoints_are_kept(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, experiment={"checkpoint_every": 1, "keep_last": 2})
    assert train(config, "training.steps=4") == 0
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_a_half_written_checkpoint_is_never_taken(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    run = tmp_path / "run"
    assert train(config, "training.steps=1") == 0
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-9.tmp")
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-8")
    (run / "checkpoint-8" / "state" / "trainer.json").unlink()
    assert newest_checkpoint(run) == run / "checkpoint-1"
    assert train(config) == 0
    assert (run / "checkpoint-3").is_dir()


def test_resume_can_be_switched_off(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=1") == 0
    assert train(config, "training.steps=2", "experiment.resume=false") == 0
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]
    assert json.loads((tmp_path / "run/checkpoint-2/state/trainer.json").read_text())["num_samples"] == 16


def test_a_checkpoint_of_another_backend_is_refused_with_the_way_out(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=1") == 0
    state = tmp_path / "run" / "checkpoint-1" / "state"
    content = json.loads((state / "trainer.json").read_text())
    (state / "trainer.json").write_text(json.dumps({**content, "backend": "zero-2"}))
    assert train(config) == 2
    error = capsys.readouterr().err
    assert "zero-2" in error
    assert "model.pretrained=" in error


def test_other_trained_parameters_are_refused(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=1") == 0
    assert train(config, "training.freeze=[layers.0]") == 2
    assert "other trained parameters" in capsys.readouterr().err


def test_a_moved_project_still_draws_from_any_directory(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that are named by path are found again after their common folder was moved; those named by name stay names."""
    project = tmp_path / "project"
    shutil.copytree(tiny_world.root / "checkpoints" / "tiny-magvitv2", project / "tokenizer")
    monkeypatch.chdir(tmp_path)
    config = tiny_world.config(project / "sft", "sft", model={"image_tokenizer": "project/tokenizer"})
    assert train(config) == 0
    before = load_pipeline(project / "sft" / "run", data_root=tiny_world.root, device="cpu").draw(
        "a red circle", steps=2
    )
    project.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = tmp_path / "moved" / "sft" / "run"
    after = load_pipeline(model, data_root=tiny_world.root, device="cpu").draw("a red circle", steps=2)
    assert after[0].tobytes() == before[0].tobytes()
    content = json.loads((model / "checkpoint-3" / "unwrapped_model" / "config.json").read_text())
    assert content["image_tokenizer"] == "../../../../tokenizer"
    assert content["vision_tower"] == "tiny-siglip-vision"
