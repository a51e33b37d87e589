# SPDX-License-Identifier: Apache-2.0
"""UniGen folders of both formats: what loads, what stays as it was, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_unigen
from unigen.errors import CheckpointError
from unigen.models.checkpoints import (
    EMBEDDING,
    HEAD,
    load_tokenizer,
    load_unigen,
    read_unigen_config,
    save_released_format,
    save_unigen,
)
from unigen.models.unigen import UniGen
from unigen.models.weights import read_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_unigen(tmp_path / "tiny", reads_features=True)


def written(model: UniGen, folder: Path, target: Path, kind: str) -> Path:
    """The model in one of the formats, with its language model's sizes beside it."""
    tokenizer = load_tokenizer(folder)
    if kind == "ours":
        save_unigen(model, tokenizer, target)
        return target
    language = target.parent / "language"
    language.mkdir(exist_ok=True)
    (language / "config.json").write_text(json.dumps({**read_config(folder)["llm_config"], "model_type": "qwen2"}))
    save_released_format(model, tokenizer, target, str(language))
    return target


def is_tied(model: UniGen) -> bool:
    return model.llm.lm_head.weight is model.llm.model.embed_tokens.weight


@pytest.mark.parametrize("kind", ["ours", "released"])
def test_tied_embeddings_stay_tied(folder: Path, tmp_path: Path, kind: str) -> None:
    model = load_unigen(folder)
    assert is_tied(model)
    again = load_unigen(written(model, folder, tmp_path / "new", kind))
    assert is_tied(again)
    assert again.llm.config.tie_word_embeddings
    assert torch.equal(again.output_embedding_VD, model.output_embedding_VD)


@pytest.mark.parametrize("kind", ["ours", "released"])
def test_two_embeddings_stay_two(folder: Path, tmp_path: Path, kind: str) -> None:
    model = load_unigen(folder, tie=False)
    with torch.no_grad():
        model.llm.lm_head.weight += 1
    again = load_unigen(written(model, folder, tmp_path / "new", kind))
    assert not is_tied(again)
    assert not again.llm.config.tie_word_embeddings
    assert torch.equal(again.llm.lm_head.weight, model.llm.lm_head.weight)
    assert torch.equal(again.llm.model.embed_tokens.weight, model.llm.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", ["ours", "released"])
@pytest.mark.parametrize("tie", [True, False])
def test_tie_can_be_chosen_on_loading(folder: Path, tmp_path: Path, kind: str, tie: bool) -> None:
    again = load_unigen(written(load_unigen(folder), folder, tmp_path / "new", kind), tie=tie)
    assert is_tied(again) == tie


def test_transformers_reads_our_folder_with_its_tie(folder: Path, tmp_path: Path) -> None:
    model = load_unigen(folder, tie=False)
    with torch.no_grad():
        model.llm.lm_head.weight += 1
    again = UniGen.from_pretrained(written(model, folder, tmp_path / "new", "ours"))
    assert torch.equal(again.llm.lm_head.weight, model.llm.lm_head.weight)
    assert is_tied(UniGen.from_pretrained(folder))


def test_a_released_checkpoint_may_be_cut_into_shards(folder: Path, tmp_path: Path) -> None:
    whole = written(load_unigen(folder, tie=False), folder, tmp_path / "new", "released")
    weights = torch.load(whole / "pytorch_model.bin", weights_only=True)
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-{number + 1:05d}-of-00002.bin"
        torch.save({name: weights[name] for name in part}, whole / file)
        index |= dict.fromkeys(part, file)
    (whole / "pytorch_model.bin").unlink()
    (whole / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    again = load_unigen(whole).state_dict()
    assert all(torch.equal(again[name], weights[name]) for name in names)
    (whole / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin"):
        load_unigen(whole)


def test_a_released_config_says_what_the_model_is(folder: Path, tmp_path: Path) -> None:
    released = written(load_unigen(folder), folder, tmp_path / "new", "released")
    config, expected = read_unigen_config(released), read_unigen_config(folder)
    for name in ("code_offset", "codebook_size", "num_image_codes", "feature_size", "image_resolution", "vision_tower"):
        assert getattr(config, name) == getattr(expected, name), name


def test_a_released_config_without_our_keys_has_the_released_budgets(folder: Path, tmp_path: Path) -> None:
    released = written(load_unigen(folder), folder, tmp_path / "new", "released")
    content: dict[str, Any] = read_config(released)
    for key in ("image_resolution", "max_text_tokens", "task_token_first", "image_tokenizer"):
        del content[key]
    (released / "config.json").write_text(json.dumps({**content, "num_vq_tokens": 256}))
    config = read_unigen_config(released)
    assert (config.image_resolution, config.image_tokenizer, config.row_length) == (256, "magvitv2", 1603)


def test_a_pickle_that_would_run_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    released = written(load_unigen(folder), folder, tmp_path / "new", "released")
    torch.save({"llm.lm_head.weight": _Trap(tmp_path / "ran")}, released / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        load_unigen(released)
    assert not (tmp_path / "ran").exists()


class _Trap:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


def test_a_vision_tower_inside_a_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    released = written(load_unigen(folder), folder, tmp_path / "new", "released")
    weights = torch.load(released / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "vision_tower.encoder.weight": torch.zeros(1)}, released / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="its own vision tower"):
        load_unigen(released)


def test_missing_weights_are_named(folder: Path, tmp_path: Path) -> None:
    released = written(load_unigen(folder, tie=False), folder, tmp_path / "new", "released")
    weights = torch.load(released / "pytorch_model.bin", weights_only=True)
    del weights["llm.model.norm.weight"]
    torch.save(weights, released / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"1 missing \(llm.model.norm.weight\)"):
        load_unigen(released)
    assert {HEAD, EMBEDDING} <= set(weights)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="'llama', not UniGen"):
        load_unigen(tmp_path)


def test_a_folder_without_a_text_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
