# SPDX-License-Identifier: Apache-2.0
"""Colours by CLIP: what it is shown, what it is told, and that the numbers are those of a plain computation."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from tests.evaluation.geneval.judges import instance, small_clip, write_clip
from unigen.errors import EvaluationError
from unigen.evaluation.geneval.colors import (
    BATCH_SIZE,
    COLORS,
    DEVIATION,
    MEAN,
    TEMPLATES,
    ColorClassifier,
    find_clip,
    isolated,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def classifier(folder: Path) -> ColorClassifier:
    return ColorClassifier.load(folder, CPU, "#999", True)


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((64, 64), 80).convert("RGB")


def test_the_constants_are_the_official_ones() -> None:
    assert (*("red", "orange", "yellow", "green", "blue"), *("purple", "pink", "brown", "black", "white")) == COLORS
    texts = [one.format(color="red", name="car") for one in TEMPLATES]
    assert texts == ["a photo of a red car", "a photo of a red-colored car", "a photo of a red object"]
    assert BATCH_SIZE == 16


def test_an_object_is_shown_alone_on_grey_and_cut_out(image: Image.Image) -> None:
    bench = instance("bench", (10, 20, 40, 30), 0.9)
    bench.mask_HW[22:25, 15:20] = False
    shown = isolated(image, bench, "#999", crop=True)
    assert shown.size == (30, 10)
    assert shown.getpixel((0, 0)) == image.getpixel((10, 20))
    assert shown.getpixel((6, 3)) == (0x99, 0x99, 0x99)
    whole = isolated(image, bench, "#999", crop=False)
    assert whole.size == image.size
    assert whole.getpixel((0, 0)) == (0x99, 0x99, 0x99)
    assert isolated(image, bench, "original", crop=True).tobytes() == image.crop((10, 20, 40, 30)).tobytes()


@pytest.mark.parametrize("size", [(30, 10), (10, 33), (32, 32), (7, 90), (200, 150)])
def test_the_view_is_clips_own_so_that_long_crops_lose_their_ends(
    classifier: ColorClassifier, size: tuple[int, int]
) -> None:
    crop = Image.effect_noise(size, 80).convert("RGB")
    steps = [Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor(), Normalize(MEAN, DEVIATION)]
    torch.testing.assert_close(classifier.pixels(crop), Compose(steps)(crop))


def test_the_logits_are_those_of_a_plain_computation(classifier: ColorClassifier, image: Image.Image) -> None:
    objects = [instance("tv remote", (2, 3, 40, 30), 0.9), instance("tv remote", (20, 30, 30, 60), 0.9)]
    model = small_clip()
    with torch.no_grad():
        columns = []
        for color in COLORS:
            texts = [one.format(color=color, name="tv remote") for one in TEMPLATES]
            rows = []
            for text in texts:
                ids = torch.tensor([classifier.tokenizer(text).input_ids])
                embedding = model.text_projection(model.text_model(ids).last_hidden_state[:, -1])[0]
                rows.append(embedding / embedding.norm())
            mean = sum(rows) / len(rows)
            columns.append(mean / mean.norm())
        wanted = []
        for one in objects:
            pixels = classifier.pixels(isolated(image, one, "#999", True))
            hidden = model.vision_model(pixels[None]).last_hidden_state[:, 0]
            feature = model.visual_projection(model.vision_model.post_layernorm(hidden))[0]
            wanted.append([100 * float(feature @ column) / float(feature.norm()) for column in columns])
    logits = classifier.logits(image, objects, "tv remote")
    torch.testing.assert_close(logits, torch.tensor(wanted), rtol=1e-4, atol=1e-3)
    best = [COLORS[row.index(max(row))] for row in wanted]
    assert classifier.classify(image, objects, "tv remote") == best


def test_many_objects_in_batches_give_what_each_gives_alone(classifier: ColorClassifier, image: Image.Image) -> None:
    objects = [instance("cup", (index, index, index + 20, index + 25), 0.9) for index in range(17)]
    alone = torch.cat([classifier.logits(image, [one], "cup") for one in objects])
    torch.testing.assert_close(classifier.logits(image, objects, "cup"), alone, rtol=1e-4, atol=1e-4)


def test_a_clip_with_the_plain_gelu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"gelu; GenEval wants quick_gelu"):
        ColorClassifier.load(write_clip(tmp_path, "gelu"), CPU, "#999", True)


def test_the_activation_matters_so_that_the_refusal_does(folder: Path) -> None:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        quick, plain = (small_clip(name).vision_model(pixels).pooler_output for name in ("quick_gelu", "gelu"))
    assert not torch.allclose(quick, plain, atol=1e-4)


def test_a_clip_that_is_not_whole_or_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EvaluationError, match=r"1 parameters, the first is visual_projection\.weight"):
        ColorClassifier.load(tmp_path, CPU, "#999", True)
    with pytest.raises(EvaluationError, match=r"checkpoints/clip-vit-large-patch14.*setup_eval"):
        find_clip("clip-vit-large-patch14", tmp_path)
