# SPDX-License-Identifier: Apache-2.0
"""A UAE put together from parts of other makers: every weight is that of its part, and what is missing is drawn or named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_uae import RESOLUTION, ReleasedUae, released_uae, small_uae
from unigen.config.uae import UaeSettings
from unigen.errors import CheckpointError
from unigen.models.uae_parts import PartFolders, exchange_part, put_together


@pytest.fixture
def released(tmp_path: Path) -> ReleasedUae:
    return released_uae(tmp_path / "release")


def folders(released: ReleasedUae) -> PartFolders:
    home = released.file.parent
    settings = UaeSettings(image_resolution=RESOLUTION)
    return PartFolders(home / "llm", home / "SD3", decoder=home / "dit", projector_width=12, settings=settings)


def weights_of(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_every_weight_is_that_of_its_part(released: ReleasedUae) -> None:
    model, home = put_together(folders(released)), released.file.parent
    for part, folder in (("decoder", home / "dit"), ("vae", home / "SD3" / "vae")):
        found = getattr(model, part).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights_of(folder).items())
    llm = weights_of(home / "llm")
    assert torch.equal(model.llm.model.language_model.norm.weight, llm["model.norm.weight"])
    torch.testing.assert_close(model.pooled_embedding, released.pooled_embedding)
    assert model.projector[0].bias.shape == (20,), "the language model brings its projector"
    assert torch.equal(model.projector[0].bias, llm["projector.0.bias"])


def test_a_language_model_without_projector_gets_a_new_one_by_the_seed(released: ReleasedUae) -> None:
    file = released.file.parent / "llm" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.startswith("projector.")}, file)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(put_together(folders(released)).projector[0].weight)
    assert drawn[0].shape == (12, 32)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_part_is_exchanged_with_what_its_configuration_says(released: ReleasedUae) -> None:
    model, home = small_uae(), released.file.parent
    with torch.no_grad():
        model.decoder.proj_out.weight.add_(1)
    exchange_part(model, "decoder", home / "dit")
    assert torch.equal(model.decoder.proj_out.weight, weights_of(home / "dit")["proj_out.weight"])
    exchange_part(model, "vae", home / "SD3" / "vae")
    assert not any(one.requires_grad for one in model.vae.parameters())
    with pytest.raises(CheckpointError, match="AutoencoderKL is needed"):
        exchange_part(model, "vae", home / "dit")
