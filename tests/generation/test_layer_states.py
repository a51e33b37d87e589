# SPDX-License-Identifier: Apache-2.0
"""States of layers pooled over texts and over images: those of plain models, row by row, in any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.tiny_unifork import released_unifork
from unigen.errors import ConfigError
from unigen.generation.pipeline import load_pipeline
from unigen.generation.unifork import UniForkPipeline
from unigen.generation.unigen import UnigenPipeline
from unigen.models.unifork_config import Branch
from unigen.reference.forked import plain_qwen2

CAPTIONS = ["a photo of a red circle", "two", "there are two objects, a white cross and a blue square."]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> UniForkPipeline:
    loaded = load_pipeline(released_unifork(tmp_path_factory.mktemp("unifork") / "released"), device="cpu")
    assert isinstance(loaded, UniForkPipeline)
    return loaded


def noise_images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(20, 20), (33, 12), (16, 30)]
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes[:count]
    ]


def layer_outputs(forked: UniForkPipeline, branch: Branch, ids: list[int]) -> list[Tensor]:
    """States (L, D) before the first layer and after all but the last, by transformers' own bookkeeping."""
    plain = plain_qwen2(forked.model, branch)
    length = len(ids)
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    output = plain.model(
        input_ids=torch.tensor([ids]),
        position_ids=torch.arange(length)[None],
        attention_mask={"full_attention": causal},
        output_hidden_states=True,
        use_cache=False,
    )
    return [states_1LD[0] for states_1LD in output.hidden_states[:-1]]  # it calls the normed ones the last layer's


@pytest.mark.parametrize("branch", ["understanding", "generation"])
@torch.no_grad()
def test_texts_have_the_states_of_a_plain_qwen2_over_their_own_tokens(forked: UniForkPipeline, branch: Branch) -> None:
    found = forked.layer_states(CAPTIONS, branch)
    template = forked.template
    assert found.shape == (3, 5, 16)
    for caption, found_PD in zip(CAPTIONS, found, strict=True):
        if branch == "generation":
            ids, own = template.draw_prompt(caption), template.caption_positions(caption)
        else:
            ids = template.running_text(caption)
            own = list(range(1, len(ids)))
        words = forked.tokenizer.decode([ids[position] for position in own])
        assert words.strip() == caption
        for place, states_LD in enumerate(layer_outputs(forked, branch, ids)):
            torch.testing.assert_close(found_PD[place], states_LD[own].mean(dim=0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_images_enter_both_branches_as_their_features(forked: UniForkPipeline) -> None:
    """A square image is the same whether it is padded to be read or cropped to be drawn, and so is what goes into the layers."""
    read, drawn = (forked.layer_states(noise_images(1), branch) for branch in ("understanding", "generation"))
    torch.testing.assert_close(read[:, 0], drawn[:, 0])
    assert not torch.allclose(read[:, 4], drawn[:, 4], atol=1e-2)


def check_batches(pipeline: UnigenPipeline | UniForkPipeline) -> None:
    images = noise_images(3)
    for way in pipeline.layer_ways:
        for inputs in (CAPTIONS, images):
            together = pipeline.layer_states(inputs, way)
            alone = torch.cat([pipeline.layer_states([one], way) for one in inputs])  # type: ignore[list-item]
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
            assert together.dtype == torch.float32
            assert not torch.allclose(together[0], together[1])


def test_a_batch_has_the_states_of_its_rows_one_by_one(pipeline: UnigenPipeline, forked: UniForkPipeline) -> None:
    check_batches(pipeline)
    check_batches(forked)


def test_a_model_with_a_vision_tower_takes_images_in_both_ways(pipeline: UnigenPipeline) -> None:
    assert pipeline.layer_ways == (("codes", "features") if pipeline.vision_tower else ("codes",))
    images = noise_images(2)
    found = [pipeline.layer_states(images, way) for way in pipeline.layer_ways]
    assert all(states.shape == (2, 3, 32) for states in found)
    if len(found) == 2:
        assert not torch.allclose(*found)


def test_an_unknown_way_is_refused_with_those_there_are(forked: UniForkPipeline) -> None:
    with pytest.raises(ConfigError, match=r"by 'codes'; choose from understanding, generation"):
        forked.layer_states(CAPTIONS, "codes")


def test_the_layers_are_left_as_they_were(forked: UniForkPipeline, tmp_path: Path) -> None:
    forked.layer_states(CAPTIONS, "generation")
    layers = [*forked.model.model.layers, *forked.model.model.gen_fork_layers]
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in layers)
