# SPDX-License-Identifier: Apache-2.0
"""Every stage through the command line, from the files of a data set to a folder that loads, draws and answers."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Qwen2Config, Qwen2ForCausalLM, Siglip2VisionConfig, Siglip2VisionModel

from tests.world import QWEN2, TinyWorld, metrics, run, train
from unigen.generation.pipeline import AskRequest, load_pipeline
from unigen.models.checkpoints import load_unigen

PICTURE = Image.new("RGB", (32, 32), (200, 0, 0))


@pytest.mark.parametrize("stage", ["tokenizer", "vision", "pretrain", "sft", "dpo"])
def test_a_stage_trains_from_files_to_weights(tiny_world: TinyWorld, tmp_path: Path, stage: str) -> None:
    assert train(tiny_world.config(tmp_path, stage)) == 0
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert (checkpoint / "unwrapped_model" / "config.json").is_file()
    assert list((checkpoint / "unwrapped_model").glob("*.safetensors"))
    assert (checkpoint / "state").is_dir()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]


def test_all_stages_follow_one_another(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Tokenizer and tower, pre-training twice, fine-tuning; each takes the run before it, and the last draws and answers."""
    runs = {name: tmp_path / name / "run" for name in ("tokenizer", "vision", "pt1", "pt2", "sft")}
    trained = {"image_tokenizer": str(runs["tokenizer"])}
    going_on = {**trained, "initialization": "pretrained"}
    assert train(tiny_world.config(tmp_path / "tokenizer", "tokenizer")) == 0
    assert train(tiny_world.config(tmp_path / "vision", "vision")) == 0
    assert train(tiny_world.config(tmp_path / "pt1", "pretrain", model=trained)) == 0
    pt2 = {**going_on, "pretrained": str(runs["pt1"])}
    assert train(tiny_world.config(tmp_path / "pt2", "pretrain", model=pt2)) == 0
    sft = {**going_on, "pretrained": str(runs["pt2"]), "vision_tower": str(runs["vision"])}
    assert train(tiny_world.config(tmp_path / "sft", "sft", model=sft)) == 0

    first = metrics(runs["pt2"])[0]["loss/total"]
    assert first < metrics(runs["pt1"])[0]["loss/total"], "the second begins where the first ended"
    pipeline = load_pipeline(runs["sft"], data_root=tiny_world.root, device="cpu")
    assert pipeline.draw("a red circle", steps=3)[0].size == (32, 32)
    assert isinstance(pipeline.ask(PICTURE, "what color is it?", max_new_tokens=4), str)
    assert isinstance(pipeline.ask([PICTURE, PICTURE], "are they equal?", max_new_tokens=4), str)


def test_a_tower_that_keeps_aspect_ratios_is_a_choice_of_the_configuration(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """SigLIP2 NaFlex: images of one batch have different numbers of features."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=8, num_patches=16)).save_pretrained(tmp_path / "tower")
    config = tiny_world.config(tmp_path, "sft", model={"vision_tower": str(tmp_path / "tower")})
    assert train(config) == 0
    pipeline = load_pipeline(tmp_path / "run", data_root=tiny_world.root, device="cpu")
    wide, tall = PICTURE.resize((90, 30)), PICTURE.resize((30, 60))
    requests = [AskRequest("what?", images) for images in ((wide, tall), (tall,), (wide,))]
    together = list(pipeline.ask_requests(requests, max_new_tokens=4))
    assert together == [next(iter(pipeline.ask_requests([one], max_new_tokens=4))) for one in requests]


def test_pre_training_starts_from_the_weights_of_a_language_model(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """The rows of its vocabulary are kept, so one step at rate 0 leaves them as they were."""
    torch.manual_seed(0)
    language = Qwen2ForCausalLM(Qwen2Config.from_dict(QWEN2))
    language.save_pretrained(tmp_path / "language")
    model = {"initialization": "pretrained", "language_model": str(tmp_path / "language")}
    schedule = {"name": "constant", "warmup_steps": 10}
    assert train(tiny_world.config(tmp_path, model=model, schedule=schedule), "training.steps=1") == 0
    trained = load_unigen(tmp_path / "run" / "checkpoint-1" / "unwrapped_model")
    assert torch.equal(trained.llm.model.embed_tokens.weight[:400], language.model.embed_tokens.weight)
    before = language.model.layers[1].mlp.up_proj.weight
    assert torch.equal(trained.llm.model.layers[1].mlp.up_proj.weight, before)
    assert trained.output_embedding_VD is trained.llm.model.embed_tokens.weight
    assert trained.output_embedding_VD.shape[0] == trained.config.mask_token_id + 1


@pytest.mark.parametrize("tie", ["true", "false"])
def test_whether_embeddings_are_tied_is_a_key(tiny_world: TinyWorld, tmp_path: Path, tie: str) -> None:
    assert train(tiny_world.config(tmp_path), f"model.tie_word_embeddings={tie}") == 0
    folder = tmp_path / "run" / "checkpoint-3" / "unwrapped_model"
    llm = load_unigen(folder).llm
    assert (llm.lm_head.weight is llm.model.embed_tokens.weight) == (tie == "true")
    assert json.loads((folder / "config.json").read_text())["llm_config"]["tie_word_embeddings"] == (tie == "true")


def test_the_command_is_a_process_that_ends_with_0_and_says_what_is_wrong_with_2(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = tiny_world.config(tmp_path)
    done = run("train", config, "training.steps=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoint-1" / "unwrapped_model" / "model.safetensors").is_file()
    wrong = run("train", config, "training.stepz=1")
    assert wrong.returncode == 2
    assert "training.stepz" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_model_folder_that_is_missing_is_a_clear_error(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path), "model.image_tokenizer=nowhere") == 2
    error = capsys.readouterr().err
    assert "no model 'nowhere'; tried" in error
    assert str(tiny_world.root / "checkpoints" / "nowhere") in error
