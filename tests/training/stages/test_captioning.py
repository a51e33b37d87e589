# SPDX-License-Identifier: Apache-2.0
"""The stage `sft` of UAE: its loss is that of Qwen2.5-VL itself on each chat alone, and a stopped run goes on."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.steps import assert_equal_gradients, first_step, gradients, loss_and_gradients
from tests.uae_stages import stopped_and_gone_on, uae_config
from tests.world import TinyWorld, train, weights
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.sample import RawSample, Turn
from unigen.models.uae_checkpoints import load_uae
from unigen.reference.captioning import chat_loss
from unigen.training.stages.captioning import CaptioningStage

LINES, SIDES = Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").resize((40, 16)).convert("RGB")
CHATS: list[tuple[tuple[Image.Image, ...], list[tuple[str, str]]]] = [
    ((LINES,), [("What is this?", "a gradient"), ("Sure?", "yes, it is")]),
    ((LINES, SIDES), [("Compare these.", "one is round")]),
    ((), [("Say hello.", "hello")]),
]


def open_stage(world: TinyWorld, folder: Path, *words: str) -> CaptioningStage:
    stage, _ = first_step(uae_config(world, folder, "sft"), *words)
    assert isinstance(stage, CaptioningStage)
    return stage


def raw(images: tuple[Image.Image, ...], chat: list[tuple[str, str]]) -> RawSample:
    turns = [turn for asked, said in chat for turn in (Turn("user", asked), Turn("assistant", said))]
    return RawSample("a key", "mmu", images, turns=tuple(turns))


def test_the_loss_is_that_of_each_chat_alone_by_the_library(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage = open_stage(tiny_world, tmp_path, "training.rows_per_micro_batch=3")
    samples = [stage.prepare(raw(*chat), Draws(0, "", 0)) for chat in CHATS]
    loss, found = loss_and_gradients(stage, samples)
    stage.zero_grad()
    expected = sum(
        (chat_loss(stage.uae, stage._processor, chat, images) for images, chat in CHATS), torch.zeros(())
    ) / sum(sample.num_targets for sample in samples)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    expected.backward()
    plain = gradients(stage)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


def test_micro_batches_without_an_image_and_empty_ones_go_through_the_vision_tower_too(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    stage = open_stage(tiny_world, tmp_path, "training.rows_per_micro_batch=1")
    samples = [stage.prepare(raw(*chat), Draws(0, "", 0)) for chat in CHATS]
    loss, found = loss_and_gradients(stage, samples)
    whole = open_stage(tiny_world, tmp_path, "training.rows_per_micro_batch=3")
    again, others = loss_and_gradients(whole, samples)
    assert again == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(others, found)
    for batch in (next(iter(stage.batches(samples[2:]))), stage.empty_batch()):
        stage.zero_grad()
        total, _ = stage(batch, {"mmu": 1.0})
        total.backward()
        assert gradients(stage).keys() == found.keys()
    assert float(total.detach()) == 0.0
    assert not any(bool(one.any()) for one in gradients(stage).values())


def test_the_language_model_alone_is_trained_and_goes_on_after_a_stop(tiny_world: TinyWorld, tmp_path: Path) -> None:
    whole, again = stopped_and_gone_on(uae_config(tiny_world, tmp_path, "sft"), tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    before = load_uae(tiny_world.root / "checkpoints" / "tiny-uae").state_dict()
    assert {name.partition(".")[0] for name, one in whole.items() if not torch.equal(one, before[name])} == {"llm"}


def test_an_adapter_of_the_language_model_leaves_the_vision_tower_alone(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = uae_config(tiny_world, tmp_path, "sft", training={"steps": 2, "lora": {"rank": 2}})
    assert train(config) == 0
    names = weights(tmp_path / "run").keys()
    assert names
    assert all(".language_model.layers." in name and ".lora_" in name for name in names)


def test_a_model_from_random_weights_takes_the_sizes_and_the_words_that_are_named(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    from unigen.data.shapes.processor import shapes_processor

    shapes_processor().save_pretrained(tmp_path / "processor")
    uae = {"diffusion": "shapes-sd3", "projector_width": 24, "negative_prompt": "worse"}
    model = {
        "pretrained": None,
        "initialization": "random",
        "language_model": "shapes-qwen2-vl",
        "text_tokenizer": str(tmp_path / "processor"),
        "image_resolution": 32,
        "uae": uae,
    }
    config = uae_config(tiny_world, tmp_path, "sft", model=model, training={"steps": 1})
    assert train(config) == 0
    made = load_uae(tmp_path / "run" / "checkpoint-1" / "unwrapped_model")
    assert made.projector[0].weight.shape == (24, 128)
    assert (made.config.negative_prompt, made.config.image_resolution) == ("worse", 32)
    forgotten = uae_config(tiny_world, tmp_path / "again", "sft", training={"steps": 1})
    assert train(forgotten, f"model.text_tokenizer={tmp_path / 'processor'}") == 2  # of another vocabulary


def test_a_chat_of_too_many_words_is_left_out(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage = open_stage(tiny_world, tmp_path, "model.max_text_tokens=120")
    with pytest.raises(SampleRefused, match="max_text_tokens=120"):
        stage.prepare(raw((LINES,), [("Why?", "because " * 200)]), Draws(0, "", 0))
