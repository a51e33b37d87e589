# SPDX-License-Identifier: Apache-2.0
"""A loaded model draws and reads the same whatever the batch, and says plainly what it does not know."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unigen
from tests.tiny import tiny_unigen
from unigen.errors import CheckpointError, ConfigError, DataError
from unigen.generation.pipeline import AskRequest, DrawRequest, load_pipeline
from unigen.generation.seeds import image_seed
from unigen.generation.unigen import UnigenPipeline

PROMPTS = ["a cross", "a photo of a red circle left of a blue square", "a white square", "a picture of two crosses"]


def pixels(image: Image.Image) -> bytes:
    return image.tobytes()


def test_a_batch_of_four_draws_the_images_of_four_batches_of_one(drawer: UnigenPipeline) -> None:
    one = drawer.draw(PROMPTS, batch_size=1, steps=4)
    four = drawer.draw(PROMPTS, batch_size=4, steps=4)
    assert [pixels(image) for image in one] == [pixels(image) for image in four]
    assert len({pixels(image) for image in one}) == 4


def test_order_and_neighbours_do_not_change_an_image(drawer: UnigenPipeline) -> None:
    requests = [DrawRequest(prompt, image_seed(0, prompt, 0)) for prompt in PROMPTS]
    forwards = [pixels(image) for image in drawer.draw_requests(requests, steps=4, batch_size=3)]
    backwards = [pixels(image) for image in drawer.draw_requests(requests[::-1], steps=4, batch_size=2)]
    assert forwards == backwards[::-1]


def test_samples_and_seeds_give_different_images_and_repeat_themselves(drawer: UnigenPipeline) -> None:
    first = [pixels(image) for image in drawer.draw("a cross", num_images=3, seed=5, steps=4)]
    assert len(set(first)) == 3
    assert [pixels(image) for image in drawer.draw("a cross", num_images=3, seed=5, steps=4)] == first
    assert [pixels(image) for image in drawer.draw("a cross", num_images=3, seed=6, steps=4)] != first


@pytest.mark.parametrize("guidance_scale", [0, 0.5, 1, 6])
def test_every_guidance_scale_draws(drawer: UnigenPipeline, guidance_scale: float) -> None:
    (image,) = drawer.draw("a red circle", steps=4, guidance_scale=guidance_scale)
    assert image.size == (32, 32)
    assert image.mode == "RGB"


def test_by_default_no_step_is_spent_on_codes_that_are_all_fixed(drawer: UnigenPipeline) -> None:
    steps: list[int] = []
    list(drawer.draw_requests([DrawRequest("a cross", 0)], on_step=steps.append))
    assert steps == list(range(drawer.model.config.num_image_codes))


def test_answers_do_not_depend_on_the_batch(pipeline: UnigenPipeline) -> None:
    images = pipeline.draw(PROMPTS, steps=2)
    requests = [AskRequest("what is it?", (image,)) for image in images]
    requests += [AskRequest("which is left of the other one?", tuple(images[:2])), AskRequest("hm?", tuple(images))]
    one = list(pipeline.ask_requests(requests, batch_size=1, max_new_tokens=6))
    assert list(pipeline.ask_requests(requests, batch_size=6, max_new_tokens=6)) == one


def test_the_history_of_a_chat_and_every_image_are_seen(pipeline: UnigenPipeline) -> None:
    black, white = (Image.new("RGB", (32, 32), color) for color in ("black", "white"))
    first = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    noise = Image.fromarray(first)
    answers = [
        pipeline.ask(black, "what?", max_new_tokens=12),
        pipeline.ask(black, "what?", history=[("is it red?", "no")], max_new_tokens=12),
        pipeline.ask([black, noise], "what?", max_new_tokens=12),
        pipeline.ask([noise, black], "what?", max_new_tokens=12),
        pipeline.ask(white, "what?", max_new_tokens=12),
    ]
    assert len(set(answers[:4])) == 4
    assert answers[4] != answers[0]


def test_images_of_any_mode_are_read(pipeline: UnigenPipeline) -> None:
    image = pipeline.draw("a cross", steps=2)[0]
    answers = {pipeline.ask(image.convert(mode).convert("RGB"), "what?", max_new_tokens=4) for mode in ("RGB", "RGBA")}
    assert {pipeline.ask(image.convert("RGBA"), "what?", max_new_tokens=4)} == answers


def test_a_question_without_an_image_needs_a_model_that_reads_features(pipeline: UnigenPipeline) -> None:
    if pipeline.vision_tower is None:
        with pytest.raises(DataError, match="at least one image"):
            pipeline.ask([], "hello?")
    else:
        assert isinstance(pipeline.ask([], "hello?", max_new_tokens=3), str)


def test_a_reconstruction_is_what_the_image_tokenizer_makes_of_the_image(drawer: UnigenPipeline) -> None:
    images = drawer.draw(PROMPTS, steps=2)
    together = drawer.reconstruct(images)
    assert [pixels(image) for image in together] == [
        pixels(image) for one in images for image in drawer.reconstruct([one], batch_size=1)
    ]
    assert [image.size for image in together] == [(32, 32)] * 4


def test_an_unknown_setting_is_refused_by_name(drawer: UnigenPipeline) -> None:
    with pytest.raises(ConfigError, match=r"'step'.*steps"):
        drawer.draw("a cross", step=4)


def test_the_description_tells_one_models_weights_from_anothers(tmp_path: Path) -> None:
    one, other = (load_pipeline(tiny_unigen(tmp_path / name), device="cpu") for name in ("one", "other"))
    assert one.describe()["weights"] == other.describe()["weights"]
    assert set(one.describe()["weights"]) == {"model", "image_tokenizer"}
    reader = load_pipeline(tiny_unigen(tmp_path / "reader", reads_features=True), device="cpu")
    assert reader.describe()["weights"]["model"] != one.describe()["weights"]["model"]


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="llama"):
        load_pipeline(tmp_path)


def test_the_three_lines_of_the_python_api(tmp_path: Path) -> None:
    model = unigen.load(tiny_unigen(tmp_path), device="cpu")
    images = model.draw("a red circle left of a blue square", num_images=4, seed=0)
    answer = model.ask(images[0], "what color is the circle?")
    assert len(images) == 4
    assert isinstance(answer, str)


def test_importing_the_package_costs_nothing() -> None:
    program = (
        "import sys, unigen; print([name for name in ('torch', 'transformers', 'numpy', 'PIL') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
