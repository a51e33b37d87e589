# SPDX-License-Identifier: Apache-2.0
"""`unigen convert`: checkpoints there and back bit by bit, data into shards that training reads."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import tiny_unigen
from tests.world import TinyWorld, train
from unigen.cli.main import main
from unigen.errors import CheckpointError
from unigen.generation.pipeline import load_pipeline
from unigen.models.checkpoints import load_unigen
from unigen.models.weights import read_config, read_weights


@pytest.fixture(params=[False, True], ids=["reads codes", "reads features"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tiny_unigen(tmp_path / "tiny", reads_features=request.param)
    language = tmp_path / "checkpoints" / "tiny-qwen2"
    language.mkdir(parents=True)
    (language / "config.json").write_text(json.dumps({**read_config(folder)["llm_config"], "model_type": "qwen2"}))
    return folder


def convert(source: Path, output: Path, to: str, *more: str) -> int:
    root = output.parent
    return main(["convert", "model", str(source), "--output", str(output), "--to", to, "--data-root", str(root), *more])


def test_a_checkpoint_comes_back_bit_by_bit(ours: Path, tmp_path: Path) -> None:
    assert convert(ours, tmp_path / "released", "released", "--language-model", "tiny-qwen2") == 0
    assert {"config.json", "pytorch_model.bin", "tokenizer.json"} <= {p.name for p in (tmp_path / "released").iterdir()}
    assert read_config(tmp_path / "released")["_class_name"] == "UniGen"
    assert convert(tmp_path / "released", tmp_path / "again", "ours") == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (ours / "tokenizer.json").read_bytes()
    drawn = [
        load_pipeline(folder, data_root=tmp_path, device="cpu").draw("a red circle", steps=3)[0].tobytes()
        for folder in (ours, tmp_path / "released", tmp_path / "again")
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_released_checkpoint_without_a_tokenizer_takes_that_of_the_language_model_it_names(
    ours: Path, tmp_path: Path
) -> None:
    released, language = tmp_path / "released", tmp_path / "checkpoints" / "tiny-qwen2"
    assert convert(ours, released, "released", "--language-model", "tiny-qwen2") == 0
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (released / file).rename(language / file)
    drawn = [
        load_pipeline(folder, data_root=tmp_path, device="cpu").draw("a red circle", steps=3)[0].tobytes()
        for folder in (ours, released)
    ]
    assert drawn[0] == drawn[1]
    (language / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json.*tiny-qwen2"):
        load_pipeline(released, data_root=tmp_path, device="cpu")


def test_a_released_checkpoint_in_bfloat16_stays_so(ours: Path, tmp_path: Path) -> None:
    model = load_unigen(ours).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "narrow")
    (tmp_path / "narrow" / "tokenizer.json").write_bytes((ours / "tokenizer.json").read_bytes())
    (tmp_path / "narrow" / "tokenizer_config.json").write_bytes((ours / "tokenizer_config.json").read_bytes())
    assert convert(tmp_path / "narrow", tmp_path / "released", "released", "--language-model", "tiny-qwen2") == 0
    found, expected = read_weights(tmp_path / "released"), read_weights(tmp_path / "narrow")
    for name, tensor in expected.items():
        assert found[name].dtype == torch.bfloat16
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("tie", ["true", "false"])
def test_embeddings_are_tied_or_parted_on_request(ours: Path, tmp_path: Path, tie: str) -> None:
    assert convert(ours, tmp_path / "new", "ours", "--tie", tie) == 0
    model = load_unigen(tmp_path / "new")
    assert (model.llm.lm_head.weight is model.llm.model.embed_tokens.weight) == (tie == "true")


def test_a_language_model_of_unknown_size_has_to_be_named(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(ours, tmp_path / "released", "released") == 2
    assert "--language-model" in capsys.readouterr().err


def test_an_output_that_holds_a_model_is_left_alone(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(ours, ours, "ours") == 2
    assert "holds a model already" in capsys.readouterr().err


def test_an_adapter_becomes_a_whole_model(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path / "base")) == 0
    model = {"initialization": "pretrained", "pretrained": str(tmp_path / "base" / "run")}
    assert train(tiny_world.config(tmp_path / "lora", model=model, training={"lora": {"rank": 2}})) == 0
    arguments = [str(tmp_path / "lora" / "run"), "--output", str(tmp_path / "whole"), "--to", "ours"]
    assert main(["convert", "model", *arguments, "--data-root", str(tiny_world.root)]) == 0
    adapter = tmp_path / "lora" / "run" / "checkpoint-3" / "unwrapped_model"
    found, expected = load_unigen(tmp_path / "whole").state_dict(), load_unigen(adapter, tiny_world.root).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "base_model.json" not in {path.name for path in (tmp_path / "whole").iterdir()}


def test_shards_made_of_a_folder_can_be_trained_on(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"shade {number}")
    (pictures / "5.txt").write_text(" ")
    arguments = ["convert", "data", str(pictures), "--output", str(tmp_path / "shards"), "--kind", "folder"]
    assert main([*arguments, "--samples-per-shard", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["num_samples"] == 5
    assert len(printed["shards"]) == 3
    assert printed["left_out"] == {"empty_caption": 1}
    source = {"format": "webdataset", "task": "t2i", "paths": [str(tmp_path / "shards")]}
    config = tiny_world.config(
        tmp_path,
        data={"lanes": 1, "sources": {"mine": source}},
        training={"samples_per_step": {"t2i": 4}, "steps": 2},
    )
    assert train(config) == 0


def test_a_kind_that_is_not_known_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "data", str(tmp_path), "--output", str(tmp_path / "out"), "--kind", "zip"]) == 2
    assert "imagefolder" in capsys.readouterr().err
