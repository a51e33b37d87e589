# SPDX-License-Identifier: Apache-2.0
"""VGG16's features: read as tensors alone from torch's cache, and a clear line where they are not there."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import VGG16_Weights, vgg16

from unigen.errors import CheckpointError
from unigen.models.perceptual import PerceptualFeatures

NAME = Path(VGG16_Weights.IMAGENET1K_V1.url).name


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of the weights in an empty cache, away from any network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    place = tmp_path / "hub" / "checkpoints" / NAME
    place.parent.mkdir(parents=True)
    return place


def test_features_of_the_first_blocks_come_from_the_cache(cache: Path) -> None:
    network = vgg16(init_weights=False)
    for parameter in network.features.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    rows = {name: one.new_zeros(1).expand(one.shape) for name, one in network.classifier.state_dict().items()}
    state = {**network.state_dict(), **{f"classifier.{name}": one for name, one in rows.items()}}
    torch.save(state, cache)  # rows that are all the same number take no room
    extract = PerceptualFeatures()
    pixels_B3HW = torch.rand(1, 3, 16, 16) * 2 - 1
    maps = extract(pixels_B3HW)
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert not any(one.requires_grad for one in extract.parameters())
    hidden = ((pixels_B3HW + 1) / 2 - extract.mean) / extract.deviation
    torch.testing.assert_close(maps[2], network.features[:16](hidden).detach())


class Code:
    """What pickle would run while it reads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of the file was run",))


def test_a_file_with_code_in_it_is_refused_and_not_run(cache: Path) -> None:
    torch.save({"features.0.weight": Code()}, cache)
    with pytest.raises(CheckpointError, match="neither in"):
        PerceptualFeatures()
    cache.write_bytes(pickle.dumps(Code()))
    with pytest.raises(CheckpointError, match="neither in"):
        PerceptualFeatures()


def test_without_a_network_one_line_says_what_to_fetch_where_and_how_to_do_without(cache: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        PerceptualFeatures()
    for wanted in (str(cache), VGG16_Weights.IMAGENET1K_V1.url, "no route to host", "perceptual_weight=0"):
        assert wanted in str(error.value)
    assert "\n" not in str(error.value)
