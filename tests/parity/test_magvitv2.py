# SPDX-License-Identifier: Apache-2.0
"""MAGViT-v2 gives the golden latents, codes and pixels through the public load path, also after a save and a load."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.golden import golden_parameters, weight_by_name
from unigen.models.image_tokenizers.magvitv2 import MagVitV2, MagVitV2Config
from unigen.models.image_tokenizers.registry import load_image_tokenizer

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> MagVitV2:
    """The tokenizer loaded from a folder in the released layout."""
    folder = tmp_path_factory.mktemp("magvitv2")
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in MagVitV2(MagVitV2Config()).state_dict().items()}
    weights = {name: torch.from_numpy(weight_by_name(name, shape)) for name, shape in shapes.items()}
    weights["quantize.power_vals"] = torch.tensor([2 ** (12 - channel) for channel in range(13)])
    bits = [[(code >> (12 - channel)) & 1 for channel in range(13)] for code in range(8192)]
    weights["quantize.embedding"] = torch.tensor(bits).float() * 2 - 1
    save_file(weights, folder / "pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}))
    return load_image_tokenizer(folder)


@pytest.fixture(scope="module")
def saved_again(released: MagVitV2, tmp_path_factory: pytest.TempPathFactory) -> MagVitV2:
    """The same tokenizer after save_pretrained and a load."""
    folder = tmp_path_factory.mktemp("saved")
    released.save_pretrained(folder)
    return load_image_tokenizer(folder)


@pytest.mark.parametrize("tokenizer_name", ["released", "saved_again"])
@pytest.mark.parametrize("case", golden_parameters("magvitv2"))
def test_tokenizer_gives_the_golden_numbers(case: Path, tokenizer_name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: MagVitV2 = request.getfixturevalue(tokenizer_name)
    golden = load_file(case)
    grid = (golden["latents"].shape[2], golden["latents"].shape[3])
    with torch.no_grad():
        latents = tokenizer.latents(golden["pixels"])
    torch.testing.assert_close(latents, golden["latents"], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(tokenizer.encode(golden["pixels"]), golden["codes"], rtol=0, atol=0)
    torch.testing.assert_close(
        tokenizer.decode(golden["codes"], grid), golden["decoded"], rtol=TOLERANCE, atol=TOLERANCE
    )
