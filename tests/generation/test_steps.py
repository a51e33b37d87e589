# SPDX-License-Identifier: Apache-2.0
"""A compiled step gives the tokens of an eager one, is compiled once, and asks the device for nothing.

CUDA graphs need a GPU. A step that compiles as one whole graph has no question to the host, which is what recording needs.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_map_only

from unigen.data.batch import Batch, collate, fill_codes
from unigen.generation import autoregressive, maskgit
from unigen.generation.autoregressive import TextSettings, write_text
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.generation.pipeline import AskRequest
from unigen.generation.steps import Decoding, step_runner
from unigen.generation.unigen import UnigenPipeline

pytestmark = pytest.mark.timeout(900)  # a compiled step takes half a minute on an idle core
CPU = torch.device("cpu")
PROMPTS = ["a cross", "a photo of a red circle left of a blue square", "a cross"]
NEVER = -1


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def num_compiled() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def draw(drawer: UnigenPipeline, prompts: list[str], decoding: Decoding, seed: int = 0) -> list[list[int]]:
    settings = MaskGitSettings(steps=8, guidance_scale=3.0)
    noise = MaskGitNoise.from_seeds([seed + number for number in range(len(prompts))], 8, 16, CPU)
    rows = [drawer.template.draw_prompt(prompt) for prompt in prompts]
    nothing = drawer.template.draw_prompt("")
    codes = draw_codes(drawer.model, drawer.vocabulary, rows, nothing, noise, settings, decoding=decoding)
    found: list[list[int]] = codes.tolist()
    return found


def reading_rows(drawer: UnigenPipeline, questions: list[str]) -> Batch:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in questions]
    requests = [AskRequest(question, (image,)) for question, image in zip(questions, images, strict=True)]
    batch = collate([drawer._reading_rows([request]) for request in requests], 96)
    return fill_codes(batch, drawer.image_tokenizer.encode(torch.stack(batch.code_images)), drawer.vocabulary)


def write(drawer: UnigenPipeline, batch: Batch, decoding: Decoding, settings: TextSettings) -> list[list[int]]:
    size = len(drawer.tokenizer)
    return write_text(drawer.model, batch, None, NEVER, size, settings, [3, 4], decoding)


def test_compiled_drawing_gives_the_codes_of_eager_drawing_and_is_compiled_once(drawer: UnigenPipeline) -> None:
    assert draw(drawer, PROMPTS, "compile") == draw(drawer, PROMPTS, "eager")
    before = num_compiled()
    assert before > 0
    others = ["a photo of a green triangle", "a white cross", "three circles"]
    assert draw(drawer, others, "compile", seed=9) == draw(drawer, others, "eager", seed=9)
    assert num_compiled() == before, "other prompts and seeds must not be compiled again"


def test_compiled_writing_gives_the_tokens_of_eager_writing_and_is_compiled_once(drawer: UnigenPipeline) -> None:
    settings = TextSettings(max_new_tokens=9, temperature=1.0, top_k=40, top_p=0.9)
    first = reading_rows(drawer, ["what?", "how many red crosses are there?"])
    assert write(drawer, first, "compile", settings) == write(drawer, first, "eager", settings)
    before = num_compiled()
    assert before > 0
    second = reading_rows(drawer, ["is it a square or a circle?", "which one?"])
    assert write(drawer, second, "compile", settings) == write(drawer, second, "eager", settings)
    assert num_compiled() == before


def test_auto_is_eager_on_a_cpu(drawer: UnigenPipeline) -> None:
    assert draw(drawer, PROMPTS, "auto") == draw(drawer, PROMPTS, "eager")
    assert num_compiled() == 0


@pytest.mark.parametrize("module", [maskgit, autoregressive])
def test_no_step_asks_the_device_for_anything(
    drawer: UnigenPipeline, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors on the meta device have shapes and no values: a step that needs a value to go on fails on them."""
    recorded: list[tuple[object, ...]] = []

    def runner(
        step: object, fixed: tuple[object, ...], decoding: Decoding, device: torch.device, num_steps: int
    ) -> object:
        run = step_runner(step, fixed, "eager", device, num_steps)  # type: ignore[arg-type]

        def remember(*changing: object) -> object:
            recorded.append((step, *fixed, *changing))
            return run(*changing)  # type: ignore[arg-type]

        return remember

    monkeypatch.setattr(module, "step_runner", runner)
    if module is maskgit:
        draw(drawer, PROMPTS, "eager")
    else:
        write(drawer, reading_rows(drawer, ["what?", "how?"]), "eager", TextSettings(max_new_tokens=3))
    step, *arguments = recorded[0]
    assert callable(step)
    on_meta = [
        torch.nn.Module.to(copy.deepcopy(one), "meta")
        if isinstance(one, torch.nn.Module)
        else tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), one)
        for one in arguments
    ]
    with torch.no_grad():
        outputs = step(*on_meta)
    assert all(output.is_meta for output in outputs)
