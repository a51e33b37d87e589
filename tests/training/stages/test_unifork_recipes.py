# SPDX-License-Identifier: Apache-2.0
"""The recipes of UniFork one after another on a tiny model, through the real command line: what each trains and leaves alone."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.unifork_world import NUM_LAYERS, ORIGINS, RECIPES, UniForkWorld, write_captions, write_unifork_world
from tests.world import forget_last_run, metrics, train, weights
from unigen.cli.main import main
from unigen.config.folders import find_model, weights_hash
from unigen.config.load import load_config
from unigen.data.captions import load_prompts
from unigen.data.images import square_pixels
from unigen.models.unifork_checkpoints import load_unifork
from unigen.models.weights import read_weights
from unigen.training.loop import Trainer
from unigen.training.stages.registry import build_stage

STEPS = 2
CONNECTOR, DEPTH_TRANSFORMER = "model.mm_projector.", "model.vision_tower."
UPPER_LAYERS = tuple(f"model.layers.{depth}." for depth in range(NUM_LAYERS // 2, NUM_LAYERS))
TRAINED: dict[str, tuple[str, ...]] = {
    "s1_imagenet": (CONNECTOR, DEPTH_TRANSFORMER),
    "s1_laion_coyo": (CONNECTOR, DEPTH_TRANSFORMER),
    "s2_pretrain": ("",),
    "s2_sft": ("",),
    "s3_gen": ("model.gen_fork_layers.", "model.norm_gen.", DEPTH_TRANSFORMER),
    "s3_und": (*UPPER_LAYERS, "model.norm."),
}
"""Beginnings of the names of what a stage trains."""


@dataclass(frozen=True)
class Chain:
    """All stages, trained one after another in `runs`."""

    world: UniForkWorld
    runs: Path
    tokenizer_hash: str
    """Of the image tokenizer before the first."""

    def before(self, stage: str) -> dict[str, Tensor]:
        """The weights that a stage started from, each once."""
        origin = ORIGINS[stage]
        if origin is not None:
            return weights(self.runs / origin)
        forget_last_run()
        built = build_stage(load_config(RECIPES / f"{stage}.yaml", self.words(stage)), torch.device("cpu"))
        return {name: one.detach() for name, one in built.model.named_parameters()}

    def words(self, stage: str) -> list[str]:
        return self.world.overrides(stage, self.runs, STEPS)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("unifork")
    world = write_unifork_world(folder / "data")
    tokenizer = world.root / "checkpoints" / "vila-u-7b-256" / "vision_tower"
    chain = Chain(world, folder / "runs", weights_hash(tokenizer))
    for stage in ORIGINS:
        assert train(RECIPES / f"{stage}.yaml", *chain.words(stage)) == 0
    assert weights_hash(tokenizer) == chain.tokenizer_hash
    return chain


@pytest.mark.parametrize("stage", TRAINED)
def test_a_stage_changes_what_it_trains_and_no_other_bit(chain: Chain, stage: str) -> None:
    before, after = chain.before(stage), weights(chain.runs / stage)
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {name for name in after if name.startswith(TRAINED[stage])}
    around_image = [tensors[f"{CONNECTOR}token_embedding.weight"] for tensors in (before, after)]
    is_changed_2 = (around_image[0] != around_image[1]).any(dim=1)
    assert is_changed_2.tolist() == [CONNECTOR.startswith(TRAINED[stage])] * 2
    model = load_unifork(find_model(chain.runs / stage))
    assert model.lm_head is not None
    assert model.lm_head.weight is model.model.embed_tokens.weight
    last = metrics(chain.runs / stage)[-1]
    tasks = load_config(RECIPES / f"{stage}.yaml").training.samples_per_step
    assert {task for task in ("t2i", "mmu") if f"loss/{task}" in last} == tasks.keys()


def test_the_first_stage_starts_from_the_language_model_in_both_branches(chain: Chain) -> None:
    found = chain.before("s1_imagenet")
    qwen = read_weights(chain.world.root / "checkpoints" / "Qwen2.5-0.5B")
    assert all(torch.equal(found[name], tensor) for name, tensor in qwen.items())
    upper = {name: tensor for name, tensor in qwen.items() if name.startswith(UPPER_LAYERS)}
    for name, tensor in upper.items():
        _, _, depth, rest = name.split(".", 3)
        assert torch.equal(found[f"model.gen_fork_layers.{int(depth) - NUM_LAYERS // 2}.{rest}"], tensor)
    assert torch.equal(found["model.norm_gen.weight"], qwen["model.norm.weight"])


def test_a_web_caption_is_asked_for_in_the_released_words() -> None:
    source = load_config(RECIPES / "s1_laion_coyo.yaml").data.sources["read"]
    assert load_prompts(source.caption_prompts) == ("Provide a one-sentence caption for the image.",)


def test_samples_that_are_too_long_are_left_out_with_their_image_and_counted(chain: Chain) -> None:
    """Every other one is; those that stay have each their own image."""
    images = chain.world.root / "datasets" / "long" / "images"
    write_captions(images.parent, lambda number: "a square " * (300 if number % 2 else 1))
    places = ["data.sources.draw.paths=[long/annotations]", "data.sources.draw.images=long/images"]
    words = [*chain.words("s3_gen"), *places, "training.prompt_drop_prob=0"]
    forget_last_run()
    trainer = Trainer(load_config(RECIPES / "s3_gen.yaml", words))
    samples = next(iter(trainer.loader))
    assert trainer.loader.faults.counts["too_long"] > 0
    for sample in samples:
        number = int(sample.key.rpartition("/")[2])
        assert number % 2 == 0
        (image,) = sample.code_images
        assert torch.equal(image.content, square_pixels(Image.open(images / f"{number}.png"), 32))


def test_the_last_two_stages_become_one_model(chain: Chain) -> None:
    output = chain.runs / "merged"
    words = [str(chain.runs / "s3_und"), "--generation-branch", str(chain.runs / "s3_gen")]
    assert main(["convert", "model", *words, "--output", str(output), "--to", "ours"]) == 0
    merged, drawing, reading = weights(output), weights(chain.runs / "s3_gen"), weights(chain.runs / "s3_und")
    for name, tensor in merged.items():
        source = drawing if name.startswith(TRAINED["s3_gen"]) else reading
        assert torch.equal(tensor, source[name]), name
