# SPDX-License-Identifier: Apache-2.0
"""UAE's own checkpoints: whole models, adapters that name their base, and what does not belong together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.tiny_uae import processor, small_uae, tiny_uae
from unigen.config.folders import weights_hash
from unigen.errors import CheckpointError
from unigen.models.adapters import AdapterBase
from unigen.models.uae import Uae
from unigen.models.uae_adapters import TARGETS, Side, add_adapter
from unigen.models.uae_checkpoints import load_processor, load_uae, save_uae, save_uae_adapter

LAYERS: dict[Side, str] = {
    "decoder": "decoder.transformer_blocks.0.attn.to_q",
    "language_model": "llm.model.language_model.layers.0.mlp.up_proj",
}


def adapter_over(base: Path, folder: Path, side: Side) -> Path:
    """Write an adapter of one side that changes something, always the same for the same sizes."""
    model = load_uae(base)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)  # after loading, which draws too where the base is an adapter itself
        adapted = add_adapter(model, side, rank=2, alpha=4)
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.3)
    save_uae_adapter(adapted, load_processor(base), folder, AdapterBase(base, weights_hash(base)))
    return folder


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_model_is_saved_and_loaded_bit_by_bit_with_all_that_it_says_of_itself(is_tied: bool, tmp_path: Path) -> None:
    model = small_uae(negative_prompt="worse", decoder_text_mask=True)
    if not is_tied:
        model.llm.lm_head.weight = torch.nn.Parameter(model.llm.lm_head.weight.detach() + 1)
        model.config.llm_config.tie_word_embeddings = False
    save_uae(model, processor(), tmp_path)
    again = load_uae(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert (again.llm.lm_head.weight is again.llm.get_input_embeddings().weight) == is_tied
    assert (again.config.negative_prompt, again.config.decoder_text_mask) == ("worse", True)
    assert ("llm.lm_head.weight" in load_file(tmp_path / "model.safetensors")) != is_tied
    assert load_processor(tmp_path).tokenizer.get_vocab() == processor().tokenizer.get_vocab()


def test_a_checkpoint_loads_with_transformers_too(tmp_path: Path) -> None:
    found = AutoModel.from_pretrained(tiny_uae(tmp_path))
    assert isinstance(found, Uae)
    for name, tensor in load_uae(tmp_path).state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_narrower_type_is_for_the_large_parts_alone(tmp_path: Path) -> None:
    narrow = load_uae(tiny_uae(tmp_path), dtype=torch.bfloat16)
    types = {
        part: {p.dtype for p in getattr(narrow, part).parameters()} for part in ("llm", "projector", "decoder", "vae")
    }
    assert types.pop("vae") == {torch.float32}
    assert set().union(*types.values()) == {torch.bfloat16}
    assert narrow.pooled_embedding.dtype is torch.float32


@pytest.mark.parametrize("side", TARGETS)
def test_an_adapter_is_saved_alone_and_loads_with_its_base(side: Side, tmp_path: Path) -> None:
    base = tiny_uae(tmp_path / "base")
    folder = adapter_over(base, tmp_path / "adapter", side)
    assert not (folder / "model.safetensors").exists()
    saved = load_file(folder / "adapter_model.safetensors")
    assert all(".lora_" in name for name in saved)
    merged, before = load_uae(folder).state_dict(), load_uae(base).state_dict()
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    assert moved == {name.removeprefix("base_model.model.").partition(".lora_")[0] + ".weight" for name in saved}
    layer = LAYERS[side]
    low, high = (saved[f"base_model.model.{layer}.lora_{kind}.weight"] for kind in "AB")
    expected = before[f"{layer}.weight"] + 4 / 2 * high @ low
    torch.testing.assert_close(merged[f"{layer}.weight"], expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_over_an_adapter_has_the_changes_of_both(tmp_path: Path) -> None:
    base = tiny_uae(tmp_path / "base")
    first = adapter_over(base, tmp_path / "first", "language_model")
    both = load_uae(adapter_over(first, tmp_path / "second", "decoder")).state_dict()
    alone = load_uae(adapter_over(base, tmp_path / "other", "decoder")).state_dict()
    below = load_uae(first).state_dict()
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, (alone if name.startswith("decoder.") else below)[name], rtol=0, atol=0)


def test_another_base_than_the_one_that_was_adapted_is_refused(tmp_path: Path) -> None:
    base = tiny_uae(tmp_path / "base")
    folder = adapter_over(base, tmp_path / "adapter", "decoder")
    weights = load_file(base / "model.safetensors")
    weights["projector.0.bias"] += 1
    save_file(weights, base / "model.safetensors")
    with pytest.raises(CheckpointError, match="was trained on weights with hash"):
        load_uae(folder)


def test_weights_that_are_missing_or_of_another_model_are_named(tmp_path: Path) -> None:
    folder = tiny_uae(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.proj_out.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(decoder.proj_out.bias\)"):
        load_uae(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "unigen"}))
    with pytest.raises(CheckpointError, match="kind 'unigen', not UAE"):
        load_uae(folder)


def test_a_folder_without_an_image_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no image processor"):
        load_processor(tmp_path)


def test_a_folder_without_weights_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights in"):
        weights_hash(tmp_path)
