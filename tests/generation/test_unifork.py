# SPDX-License-Identifier: Apache-2.0
"""UniFork through `unigen sample` and `unigen ask`: released and own checkpoints, every flag, batches, experts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import tiny_unigen
from tests.tiny_unifork import FORK, SMALL_DEPTH, released_unifork, small_language, small_unifork
from unigen.cli.main import main
from unigen.errors import CheckpointError
from unigen.generation import code_pipeline
from unigen.generation.autoregressive import write_behind
from unigen.generation.pipeline import AskRequest, load_pipeline
from unigen.generation.unifork import UniForkPipeline
from unigen.models.checkpoints import load_tokenizer
from unigen.reference.rating import answer_slowly, yes_probability_slowly


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


def questions() -> list[AskRequest]:
    """Several about one image, in turn with others."""
    first, second = noise_image(20, 20), noise_image(33, 12)
    return [
        AskRequest("is it red?", (first,)),
        AskRequest("is it rather a blue circle?", (first,)),
        AskRequest("is it?", (first,), (("what shape?", "a square"),), answer_start="is it a cross?"),
        AskRequest("is it red?", (second,)),
        AskRequest("is there anything?"),
        AskRequest("is it red?", (second, first)),
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_shared_beginnings_give_the_answers_and_probabilities_of_whole_rows(
    pipeline: UniForkPipeline, batch_size: int
) -> None:
    asked = questions()
    answers = list(pipeline.ask_requests(asked, batch_size=batch_size, max_new_tokens=6))
    assert answers == [answer_slowly(pipeline, request, 6) for request in asked]
    assert len(set(answers)) > 2
    found = list(pipeline.yes_probabilities(asked, batch_size=batch_size))
    assert found == pytest.approx([yes_probability_slowly(pipeline, request) for request in asked], rel=1e-4)
    assert len({round(value, 4) for value in found}) > 3


def test_an_image_is_encoded_once_for_all_its_questions(
    pipeline: UniForkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = pipeline.image_tokenizer.encode

    def count(pixels_B3HW: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels_B3HW))
        return encode(pixels_B3HW)

    monkeypatch.setattr(pipeline.image_tokenizer, "encode", count)
    list(pipeline.ask_requests(questions()[:4], max_new_tokens=2))
    assert sum(seen) == 2


def test_an_answer_stops_at_the_end_of_the_message(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(released, device="cpu")
    assert isinstance(pipeline, UniForkPipeline)
    written: list[list[int]] = []

    def record(*given: Any) -> list[list[int]]:
        written.extend(write_behind(*given))
        return written[-1:]

    monkeypatch.setattr(code_pipeline, "write_behind", record)
    image, head = noise_image(20, 20), pipeline.model.lm_head
    pipeline.ask(image, "what is it?", max_new_tokens=6)
    place = next(place for place, token in enumerate(written[0]) if place and token not in written[0][:place])
    ended, end = written[0][place], pipeline.tokenizer.convert_tokens_to_ids("<|im_end|>")
    # With two rows of the output exchanged, the model writes the end where it wrote another token.
    assert head is not None
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with torch.no_grad():
        head.weight[[end, ended]] = head.weight[[ended, end]].clone()
    pipeline.ask(image, "what is it?", max_new_tokens=6)
    assert written[1] == written[0][:place]


def test_a_setting_of_another_family_is_refused_in_one_line(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unigen = tiny_unigen(tmp_path / "unigen")
    for model, flag, complaint in (
        (released, ["--steps", "3"], "UniFork does not know the setting 'steps'"),
        (released, ["--temperature-schedule", "linear"], "UniFork does not know the setting 'temperature_schedule'"),
        (unigen, ["--top-k", "3"], "UniGen does not know the setting 'top_k'"),
        (unigen, ["--negative-prompt", "ugly"], "UniGen does not know the setting 'negative_prompt'"),
    ):
        words = ["sample", "--model", str(model), "--prompt", "two", "--output", str(tmp_path / "out"), *flag]
        assert main([*words, "--device", "cpu"]) == 2
        (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("unigen: error")]
        assert complaint in line
        assert "choose from guidance_scale" in line


def test_without_flags_an_image_is_drawn_with_the_released_settings(
    released: Path, pipeline: UniForkPipeline, tmp_path: Path
) -> None:
    words = ["sample", "--model", str(released), "--device", "cpu", "--prompt", "two", "--output"]
    spelled = [
        "--guidance-scale",
        "4",
        "--temperature",
        "1",
        "--top-k",
        "900",
        "--top-p",
        "0.96",
        "--negative-prompt",
        "",
    ]
    assert main([*words, str(tmp_path / "a")]) == main([*words, str(tmp_path / "b"), *spelled]) == 0
    first, second = (Image.open(tmp_path / name / "00000_00.png").tobytes() for name in "ab")
    assert first == second == pipeline.draw("two")[0].tobytes()


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
