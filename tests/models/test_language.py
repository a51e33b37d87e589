# SPDX-License-Identifier: Apache-2.0
"""Loading a Qwen2 and giving it a larger vocabulary."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.world import QWEN2
from unigen.errors import CheckpointError
from unigen.models.language import Tie, language_config, load_language_model

OLD, NEW = 400, 470


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    content = {**QWEN2, "tie_word_embeddings": request.param}
    Qwen2ForCausalLM(Qwen2Config.from_dict(content)).save_pretrained(tmp_path)
    return tmp_path


def _is_tied(model: Qwen2ForCausalLM) -> bool:
    return model.lm_head.weight is model.model.embed_tokens.weight


def test_a_larger_vocabulary_keeps_all_old_rows(folder: Path) -> None:
    before = Qwen2ForCausalLM.from_pretrained(folder)
    model = load_language_model(folder, NEW)
    assert model.config.vocab_size == NEW
    for old, new in (
        (before.model.embed_tokens.weight, model.model.embed_tokens.weight),
        (before.lm_head.weight, model.lm_head.weight),
    ):
        assert new.shape[0] == NEW
        assert torch.equal(new[:OLD], old)
        assert bool(new[OLD:].any(dim=1).all())


@pytest.mark.parametrize("tie", ["keep", True, False])
def test_the_tie_is_kept_or_chosen(folder: Path, tie: Tie) -> None:
    was_tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    model = load_language_model(folder, NEW, tie)
    wanted = was_tied if tie == "keep" else tie
    assert _is_tied(model) == wanted
    assert model.config.tie_word_embeddings == wanted
    if wanted != was_tied and not wanted:
        assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight), "two equal ones to begin with"


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN2, "model_type": "qwen3"}))
    with pytest.raises(CheckpointError, match="'qwen3'; only 'qwen2'"):
        language_config(tmp_path)


def test_a_folder_without_weights_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    with pytest.raises(CheckpointError, match="cannot load the language model"):
        load_language_model(tmp_path, NEW)
