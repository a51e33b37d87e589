# SPDX-License-Identifier: Apache-2.0
"""UniFork through `unigen sample` and `unigen ask`: released and own checkpoints, every flag, batches, experts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny_unifork import FORK, SMALL_DEPTH, released_unifork, small_language, small_unifork
from unigen.cli.main import main
from unigen.errors import CheckpointError, ConfigError
from unigen.generation.pipeline import AskRequest, load_pipeline
from unigen.generation.unifork import UniForkPipeline
from unigen.models.checkpoints import load_tokenizer


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_unifork(tmp_path_factory.mktemp("unifork") / "released")


@pytest.fixture(scope="module")
def pipeline(released: Path) -> UniForkPipeline:
    loaded = load_pipeline(released, device="cpu")
    assert isinstance(loaded, UniForkPipeline)
    return loaded


def noise_image(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_the_commands_draw_and_answer_with_a_released_checkpoint_and_with_its_conversion(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "model", str(released), "--output", str(tmp_path / "ours"), "--to", "ours"]) == 0
    noise_image(30, 20).save(tmp_path / "image.png")
    found = []
    for number, model in enumerate((released, tmp_path / "ours")):
        output = tmp_path / str(number)
        words = ["--model", str(model), "--device", "cpu", "--json"]
        drawing = [
            "--prompt",
            "a red circle",
            "--num-images",
            "2",
            "--top-k",
            "5",
            "--top-p",
            "0.9",
            "--temperature",
            "1.5",
        ]
        more = ["--guidance-scale", "3", "--negative-prompt", "blurry", "--output", str(output)]
        capsys.readouterr()
        assert main(["sample", *words, *drawing, *more]) == 0
        images = json.loads(capsys.readouterr().out)["images"]
        asking = ["--image", str(tmp_path / "image.png"), "--question", "what is it?", "--max-new-tokens", "5"]
        assert main(["ask", *words, *asking]) == 0
        answer = json.loads(capsys.readouterr().out)["turns"][0]["answer"]
        found.append(([Image.open(one["path"]).tobytes() for one in images], answer))
    assert found[0] == found[1]
    assert len(set(found[0][0])) == 2
    assert Image.open(tmp_path / "0" / "00000_00.png").size == (16, 16)


def test_the_same_seed_gives_the_same_image_in_any_batch(pipeline: UniForkPipeline) -> None:
    prompts = ["a red circle", "two", "a longer prompt of several words"]
    whole, parts = (pipeline.draw(prompts, batch_size=size) for size in (3, 2))
    assert [image.tobytes() for image in whole] == [image.tobytes() for image in parts]
    assert pipeline.draw(prompts[1])[0].tobytes() == whole[1].tobytes()


@pytest.mark.parametrize(
    "changed",
    [{"guidance_scale": 9.0}, {"guidance_scale": 1.0}, {"temperature": 4.0}, {"top_k": 2}, {"negative_prompt": "ugly"}],
    ids=str,
)
def test_every_setting_changes_the_image(pipeline: UniForkPipeline, changed: dict[str, Any]) -> None:
    given = {"temperature": 2.0, "top_p": 1.0}
    assert pipeline.draw("two", **given)[0].tobytes() != pipeline.draw("two", **{**given, **changed})[0].tobytes()


def test_answers_in_batches_are_those_one_by_one_and_depend_on_the_image(pipeline: UniForkPipeline) -> None:
    images = [noise_image(20, 20), noise_image(33, 12)]
    requests = [
        AskRequest("what is it?", (images[0],)),
        AskRequest("which colour has the left one?", (images[1],), (("what is it?", "a circle"),)),
        AskRequest("say something"),
        AskRequest("what is it?", (images[1],), answer_start="a"),
    ]
    together = list(pipeline.ask_requests(requests, max_new_tokens=6))
    alone = [next(pipeline.ask_requests([request], max_new_tokens=6)) for request in requests]
    assert together == alone
    assert together[0] != pipeline.ask(images[1], "what is it?", max_new_tokens=6)


def test_an_unknown_setting_is_refused(pipeline: UniForkPipeline) -> None:
    with pytest.raises(ConfigError, match=r"UniFork does not know the setting 'steps'.*top_k"):
        pipeline.draw("two", steps=3)


def test_an_expert_does_what_it_can_and_refuses_the_rest(released: Path, tmp_path: Path) -> None:
    size = len(load_tokenizer(released))
    fields = {
        **FORK,
        "num_understanding_layers": None,
        "llm_config": small_language(vocab_size=size),
        "feature_size": 8,
    }
    model = small_unifork(**fields, depth_transformer={**SMALL_DEPTH, "code_channels": 8}, image_resolution=16)
    assert main(["convert", "model", str(released), "--output", str(tmp_path / "ours"), "--to", "ours"]) == 0
    model.save_pretrained(tmp_path / "expert")
    load_tokenizer(released).save_pretrained(tmp_path / "expert")
    content = json.loads((tmp_path / "expert" / "config.json").read_text())
    (tmp_path / "expert" / "config.json").write_text(
        json.dumps({**content, "image_tokenizer": "../ours/image_tokenizer"})
    )
    expert = load_pipeline(tmp_path / "expert", device="cpu")
    assert expert.draw("two")[0].size == (16, 16)
    with pytest.raises(CheckpointError, match="no understanding branch"):
        expert.ask(noise_image(9, 9), "what?")


def test_a_reconstruction_has_the_size_of_drawn_images(pipeline: UniForkPipeline) -> None:
    (image,) = pipeline.reconstruct([noise_image(40, 24)])
    assert image.size == (16, 16)
    described = pipeline.describe()
    assert (described["family"], described["num_image_codes"]) == ("unifork", 16)
