# SPDX-License-Identifier: Apache-2.0
"""A released UAE in six folders: the same model as its parts make, whichever names they have, and its conversion."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.tiny_uae import ReleasedUae, released_uae
from unigen.errors import CheckpointError, ConfigError
from unigen.models.text_states import TextStates
from unigen.models.uae import Uae
from unigen.models.uae_checkpoints import load_uae
from unigen.models.uae_conversion import convert_uae
from unigen.models.uae_release import load_released

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module", params=["4.50", "today"])
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReleasedUae:
    return released_uae(tmp_path_factory.mktemp("uae") / request.param, names=request.param)


@torch.no_grad()
def check_outputs(model: Uae, released: ReleasedUae) -> None:
    """That a loaded model computes what the parts compute with their adapters in place."""
    mask = torch.ones_like(IDS)
    hidden = released.language_model.model(input_ids=IDS, attention_mask=mask).last_hidden_state
    states = released.projector(hidden)
    torch.testing.assert_close(model.projector(model.hidden_states(IDS, mask)), states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.pooled_embedding, released.pooled_embedding, rtol=1e-5, atol=1e-6)
    latents, sigma = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    (expected,) = released.decoder(
        hidden_states=latents,
        encoder_hidden_states=states,
        pooled_projections=released.pooled_embedding[None],
        timestep=1000 * sigma,
        return_dict=False,
    )
    torch.testing.assert_close(model.velocity(latents, sigma, TextStates(states, None)), expected, rtol=1e-4, atol=1e-5)
    for name, tensor in released.vae.state_dict().items():
        assert torch.equal(model.vae.state_dict()[name], tensor)


def test_a_release_is_loaded_with_both_adapters_worked_in(released: ReleasedUae) -> None:
    check_outputs(load_uae(released.file.parent), released)


def test_its_conversion_is_a_base_with_adapters_over_it_and_the_same_model(
    released: ReleasedUae, tmp_path: Path
) -> None:
    last = convert_uae(released.file.parent, tmp_path, merge=False)
    assert last == tmp_path / "dit_lora"
    check_outputs(load_uae(last), released)
    assert json.loads((last / "base_model.json").read_text())["path"] == "../llm_lora"
    assert json.loads((tmp_path / "llm_lora" / "base_model.json").read_text())["path"] == "../base"
    base = load_file(tmp_path / "base" / "model.safetensors")
    dit = load_file(released.file.parent / "dit" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(base[f"decoder.{name}"], tensor) for name, tensor in dit.items())


def test_a_merged_conversion_is_one_whole_model_and_so_is_that_of_an_adapter(
    released: ReleasedUae, tmp_path: Path
) -> None:
    assert convert_uae(released.file.parent, tmp_path / "whole", merge=True) == tmp_path / "whole"
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    check_outputs(load_uae(tmp_path / "whole"), released)
    last = convert_uae(released.file.parent, tmp_path / "parts", merge=False)
    with pytest.raises(CheckpointError, match="give --merge"):
        convert_uae(last, tmp_path / "again", merge=False)
    check_outputs(load_uae(convert_uae(last, tmp_path / "again", merge=True)), released)
    with pytest.raises(CheckpointError, match="holds a model already"):
        convert_uae(last, tmp_path / "parts", merge=True)


def test_weights_of_a_narrow_type_keep_it_where_all_have_it(tmp_path: Path) -> None:
    released = released_uae(tmp_path / "release", dtype=torch.bfloat16)
    convert_uae(released.file.parent, tmp_path / "mixed", merge=True)
    mixed = load_file(tmp_path / "mixed" / "model.safetensors")
    assert {tensor.dtype for tensor in mixed.values()} == {torch.float32}, "the decoder's are wider"
    check_outputs(load_uae(tmp_path / "mixed"), released)


def test_without_adapters_and_a_transformer_of_its_own_the_plain_parts_are_taken(tmp_path: Path) -> None:
    released = released_uae(tmp_path)
    (tmp_path / "dit").rename(tmp_path / "SD3" / "transformer")
    content = yaml.safe_load(released.file.read_text())
    kept = {key: value for key, value in content.items() if key not in ("dit", "dit_lora", "llm_lora")}
    released.file.write_text(yaml.safe_dump(kept))
    plain = load_released(released.file)
    transformer = load_file(tmp_path / "SD3" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(plain.decoder.proj_out.weight, transformer["proj_out.weight"])
    llm = load_file(tmp_path / "llm" / "model.safetensors")
    assert torch.equal(plain.projector[0].bias, llm["projector.0.bias"])


def test_keys_of_the_file_say_how_the_model_is_used(tmp_path: Path) -> None:
    said = {"negative_prompt": "worse", "cfg_null": "zeros", "decoder_text_mask": True, "llm_lora_alpha": 0}
    released = released_uae(tmp_path, **said)
    config = load_uae(tmp_path).config
    assert (config.negative_prompt, config.cfg_null, config.decoder_text_mask) == ("worse", "zeros", True)
    assert config.shift == 3.0
    with torch.no_grad():
        unadapted = released.language_model.model.language_model.base_model.disable_adapter_layers
        unadapted()
        mask = torch.ones_like(IDS)
        expected = released.language_model.model(input_ids=IDS, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(load_uae(tmp_path).hidden_states(IDS, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("dit_lora/adapter_config.json", "dit_lora: no adapter_config.json of 'dit_lora'"),
        ("SD3/scheduler/scheduler_config.json", "SD3: no scheduler"),
        ("llm_lora/model-00002-of-00003.safetensors", "incomplete.*model-00002-of-00003"),
        ("SD3/text_encoder_2/config.json", "cannot load the text encoder"),
        (
            "dit_lora/adapter_model.safetensors",
            "no adapter_model.safetensors; an adapter is read from safetensors alone",
        ),
    ],
)
def test_a_file_that_is_missing_is_named(missing: str, complaint: str, tmp_path: Path) -> None:
    released_uae(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CheckpointError, match=complaint):
        load_uae(tmp_path)


def test_an_unknown_key_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    released = released_uae(tmp_path)
    content = yaml.safe_load(released.file.read_text())
    released.file.write_text(yaml.safe_dump({**content, "ditt": "x"}))
    with pytest.raises(ConfigError, match=r"ditt.*not in 'UaeParts'"):
        load_uae(tmp_path)
    released.file.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "llm"}))
    with pytest.raises(ConfigError, match="llm"):
        load_uae(tmp_path)
