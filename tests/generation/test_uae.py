# SPDX-License-Identifier: Apache-2.0
"""UAE as a pipeline: seeds, batches, settings, the states of prompts, answers, and images after the auto-encoder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_uae import RESOLUTION, released_uae, tiny_uae
from unigen.errors import ConfigError
from unigen.generation.pipeline import AskRequest, DrawRequest, load_pipeline
from unigen.generation.uae import CaptionSettings, StatesOfPrompts, UaePipeline
from unigen.models.text_states import PromptStates
from unigen.models.uae_checkpoints import load_uae

PROMPTS = ["a red circle", "two", "a longer prompt of several words and of more than one thing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_uae(tmp_path_factory.mktemp("uae"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> UaePipeline:
    loaded = load_pipeline(folder, device="cpu")
    assert isinstance(loaded, UaePipeline)
    return loaded


def changed(folder: Path, **fields: Any) -> UaePipeline:
    """The same weights, used in another way."""
    loaded = load_pipeline(folder, device="cpu")
    assert isinstance(loaded, UaePipeline)
    for name, value in fields.items():
        setattr(loaded.model.config, name, value)
    return loaded


def noise_image(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def distance(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any value."""
    values = [np.asarray(image, dtype=np.int64) for image in (one, other)]
    return int(np.abs(values[0] - values[1]).max())


def test_the_same_seed_gives_the_same_image_in_any_batch(pipeline: UaePipeline) -> None:
    whole, parts = (pipeline.draw(PROMPTS, steps=3, batch_size=size) for size in (3, 2))
    alone = [pipeline.draw(prompt, steps=3)[0] for prompt in PROMPTS]
    # Up to rounding: sums of matrix products depend on the size of the batch.
    assert max(distance(a, b) for a, b in zip(whole * 2, parts + alone, strict=True)) <= 1
    assert whole[0].size == (RESOLUTION, RESOLUTION)
    assert pipeline.draw(PROMPTS, steps=3, batch_size=2)[1].tobytes() == parts[1].tobytes()


def test_images_of_one_prompt_differ_by_their_seeds_and_of_one_seed_by_their_prompts(pipeline: UaePipeline) -> None:
    first, second = pipeline.draw("two", num_images=2, steps=3)
    assert first.tobytes() != second.tobytes()
    one, other = pipeline.draw_requests([DrawRequest("two", 5), DrawRequest("a red circle", 5)], steps=3)
    assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    "setting",
    [{"guidance_scale": 9.0}, {"guidance_scale": 1.0}, {"steps": 4}, {"negative_prompt": "two"}, {"resolution": 32}],
    ids=str,
)
def test_every_setting_changes_the_image(pipeline: UaePipeline, setting: dict[str, Any]) -> None:
    given = {"guidance_scale": 5.0, "steps": 3}
    plain, other = (pipeline.draw("a red circle", **one)[0] for one in (given, {**given, **setting}))
    assert plain.tobytes() != other.tobytes()
    assert other.width == setting.get("resolution", RESOLUTION)


@pytest.mark.parametrize(
    "field",
    [
        {"decoder_text_mask": True},
        {"cfg_null": "empty_prompt"},
        {"cfg_null": "zeros"},
        {"negative_prompt": "other"},
        {"draw_role": "user"},
        {"draw_generation_prompt": False},
    ],
    ids=str,
)
def test_every_key_of_the_checkpoint_changes_the_image(
    pipeline: UaePipeline, folder: Path, field: dict[str, Any]
) -> None:
    other = changed(folder, **field)
    assert pipeline.draw("two", steps=3)[0].tobytes() != other.draw("two", steps=3)[0].tobytes()


def test_a_negative_prompt_that_is_asked_for_takes_the_place_of_any_null(pipeline: UaePipeline, folder: Path) -> None:
    own = pipeline.model.config.negative_prompt
    usual = pipeline.draw("two", steps=3)[0].tobytes()
    for null in ("negative_prompt", "empty_prompt", "zeros"):
        assert changed(folder, cfg_null=null).draw("two", steps=3, negative_prompt=own)[0].tobytes() == usual


def test_states_of_equal_prompts_are_encoded_once(pipeline: UaePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = UaePipeline.states_of

    def counted(self: UaePipeline, prompts: Sequence[str]) -> list[PromptStates]:
        encoded.extend(prompts)
        return encode(self, prompts)

    monkeypatch.setattr(UaePipeline, "states_of", counted)
    requests = [DrawRequest(prompt, seed) for prompt in ("two", "three") for seed in range(4)]
    assert len(list(pipeline.draw_requests(requests, batch_size=3, steps=1))) == 8
    assert sorted(encoded) == sorted(["two", "three", pipeline.model.config.negative_prompt])
    encoded.clear()
    list(pipeline.draw_requests(requests[:1], steps=1, guidance_scale=1.0))
    assert encoded == ["two"]


def test_only_the_last_prompts_are_remembered(pipeline: UaePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unigen.generation.uae.MOST_REMEMBERED", 2)
    states = StatesOfPrompts(pipeline)
    for prompt in ("one", "two", "one", "three"):
        states.find([prompt])
    assert list(states._known) == ["one", "three"]
    assert len(states.find(["a", "b", "c", "a"])) == 4


def test_answers_in_batches_are_those_one_by_one_and_depend_on_the_image(pipeline: UaePipeline) -> None:
    images = [noise_image(20, 20), noise_image(33, 12)]
    requests = [
        AskRequest("what is it?", (images[0],), seed=1),
        AskRequest("which colour has the left one?", (images[1],), (("what is it?", "a circle"),), seed=2),
        AskRequest("say something", seed=3),
        AskRequest("what is it?", (images[1], images[0]), answer_start="a", seed=4),
    ]
    together = list(pipeline.ask_requests(requests, max_new_tokens=6))
    alone = [next(pipeline.ask_requests([request], max_new_tokens=6)) for request in requests]
    assert together == alone
    shown = [replace(requests[0], images=(image,)) for image in images]
    first, second = pipeline.ask_requests(shown, max_new_tokens=6, temperature=0.0)
    assert first != second


def test_answers_are_drawn_by_their_seed_and_without_temperature_are_the_likeliest(pipeline: UaePipeline) -> None:
    requests = [AskRequest("what is it?", (noise_image(20, 20),), seed=seed) for seed in range(3)]
    assert (CaptionSettings().max_new_tokens, CaptionSettings().temperature) == (512, 0.7)
    drawn = list(pipeline.ask_requests(requests, max_new_tokens=8))
    assert len(set(drawn)) == 3
    assert list(pipeline.ask_requests(requests, max_new_tokens=8)) == drawn
    greedy = set(pipeline.ask_requests(requests, max_new_tokens=8, temperature=0.0))
    words = pipeline.template.question((), "what is it?", 1)
    inputs = pipeline.processor(text=[words], images=[requests[0].images[0]], return_tensors="pt")
    tokenizer, llm = pipeline.processor.tokenizer, pipeline.model.llm
    with torch.no_grad():
        for _ in range(8):
            logits = llm(**inputs, use_cache=False).logits[:, -1, : len(tokenizer)]
            inputs["input_ids"] = torch.cat([inputs["input_ids"], logits.argmax(dim=-1)[:, None]], dim=1)
            for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
                inputs[name] = torch.cat([inputs[name], torch.full((1, 1), value)], dim=1)
    new = inputs["input_ids"][0, -8:].tolist()
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    kept = new[: new.index(stop)] if stop in new else new
    assert greedy == {tokenizer.decode(kept, skip_special_tokens=True).strip()}


def test_a_setting_of_another_family_is_refused(pipeline: UaePipeline) -> None:
    with pytest.raises(ConfigError, match=r"UAE does not know the setting 'top_p'.*guidance_scale"):
        pipeline.draw("two", top_p=0.5)
    with pytest.raises(ConfigError, match=r"UAE does not know the setting 'steps'.*max_new_tokens"):
        pipeline.ask(noise_image(9, 9), "what?", steps=3)
    with pytest.raises(ConfigError, match="image_resolution is 20"):
        pipeline.draw("two", resolution=20)


def test_images_after_the_auto_encoder_have_the_size_of_drawn_ones(pipeline: UaePipeline) -> None:
    (image,) = pipeline.reconstruct([noise_image(40, 24)])
    assert image.size == (RESOLUTION, RESOLUTION)


def test_a_description_tells_one_model_from_another(pipeline: UaePipeline, tmp_path: Path) -> None:
    described = pipeline.describe()
    assert (described["family"], described["image_resolution"]) == ("uae", RESOLUTION)
    assert set(described["weights"]) == {"model"}
    release = released_uae(tmp_path)
    parts = load_pipeline(release.file, device="cpu").describe()
    assert set(parts["weights"]) == {"llm", "llm_lora", "dit", "dit_lora", "vae", "text_encoder", "text_encoder_2"}
    assert load_uae(tmp_path).config.model_type == parts["family"]
