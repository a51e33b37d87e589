# SPDX-License-Identifier: Apache-2.0
"""A loaded model that draws and reads, whatever its family: what the commands, the benchmarks and users' scripts call."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unigen.data.captions import load_prompts
from unigen.errors import CheckpointError, ConfigError
from unigen.generation.seeds import image_seed
from unigen.generation.steps import Decoding


@dataclass(frozen=True)
class DrawRequest:
    """One image to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class AskRequest:
    """One question about images, after earlier turns of (question, answer)."""

    question: str
    images: tuple[Image.Image, ...] = ()
    history: tuple[tuple[str, str], ...] = field(default=())
    seed: int = 0
    answer_start: str = ""
    """What the answer begins with; the model goes on from there."""


class Pipeline(ABC):
    """Draws and reads. Settings are given as keywords; each family says which it knows and refuses others."""

    name: str
    """Where the model came from."""
    tells_probabilities = False
    """Whether `yes_probabilities` gives any."""

    @abstractmethod
    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        """Images in the order of the requests, as batches get done; `on_step` is told of every step of every batch."""

    @abstractmethod
    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        """Answers in the order of the requests, as batches get done; without the beginning that a request gives.

        Neighbouring requests about the same image objects may share what they begin with.
        """

    def yes_probabilities(self, requests: Iterable[AskRequest], *, batch_size: int = 16) -> Iterator[float]:
        """How probable it is that each answer goes on with yes rather than with no, by one reading of each question.

        Raises:
            ConfigError: a family that does not give its probabilities.
        """
        raise ConfigError(
            f"{self.name}: models of this family do not tell the probability of a yes; rate with a style that writes "
            "answers, and leave ties to the order"
        )

    @property
    def layer_ways(self) -> tuple[str, ...]:
        """By which ways texts and images are taken in, such as two branches; none in a family without `layer_states`."""
        return ()

    def layer_states(self, inputs: Sequence[str] | Sequence[Image.Image], way: str, *, batch_size: int = 16) -> Tensor:
        """What each layer makes of texts, or of images, on their own: (N, layers + 1, width) in float32 on the CPU.

        Each state is the mean over the positions of the text or of the image; the first is what goes into the first layer, the
        last what comes out of the last, before any final norm.

        Raises:
            ConfigError: a way that is not one of `layer_ways`.
        """
        raise ConfigError(f"{self.name}: models of this family do not show the states of their layers")

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest should record of the model: with `weights`, hashes that tell one model from another."""

    @property
    def caption_request(self) -> str:
        """What asks a model of this family for a caption that says everything."""
        return load_prompts("long")[0]

    def num_beyond_row(self, prompt: str) -> int:
        """How many tokens of a prompt are more than the rows that the model was trained on have room for. It is drawn from
        whole all the same; who scores the image should say so."""
        return 0

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image] | None:
        """The images after they went through the model's image tokenizer; None for a family that has none."""
        return None

    def draw(
        self, prompts: str | Sequence[str], *, num_images: int = 1, seed: int = 0, **settings: Any
    ) -> list[Image.Image]:
        """`num_images` of each prompt, prompt by prompt; the same seed gives the same images in any batch."""
        wanted = [prompts] if isinstance(prompts, str) else list(prompts)
        requests = [
            DrawRequest(prompt, image_seed(seed, prompt, sample)) for prompt in wanted for sample in range(num_images)
        ]
        return list(self.draw_requests(requests, **settings))

    def ask(
        self,
        images: Image.Image | Sequence[Image.Image],
        question: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        **settings: Any,
    ) -> str:
        """The answer to one question about one or several images."""
        seen = (images,) if isinstance(images, Image.Image) else tuple(images)
        return next(iter(self.ask_requests([AskRequest(question, seen, tuple(history))], **settings)))


def settings_of(family: str, kind: type[Any], given: dict[str, Any]) -> Any:
    """The settings of a way of drawing or writing.

    Raises:
        ConfigError: one that `kind` does not have.
    """
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"{family} does not know the setting {unknown[0]!r}; choose from {', '.join(sorted(known))}")
    return kind(**given)


def in_batches(requests: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The requests in order, `size` at a time."""
    iterator = iter(requests)
    while batch := list(islice(iterator, size)):
        yield batch


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


UNIGEN = ("unigen.generation.unigen", "UnigenPipeline")
UNIFORK = ("unigen.generation.unifork", "UniForkPipeline")
PIPELINES: dict[str, tuple[str, str]] = {
    "unigen": UNIGEN,
    "UniGen": UNIGEN,
    "unifork": UNIFORK,
    "llava_qwen2": UNIFORK,
    "uae": ("unigen.generation.uae", "UaePipeline"),
}
"""What a checkpoint calls its kind -> module and class that draw and read with it, imported when they are asked for."""


def load_pipeline(
    model: str | Path,
    *,
    data_root: str | Path = "unigen_data",
    device: torch.device | str | None = None,
    decoding: Decoding = "auto",
) -> Pipeline:
    """Load a checkpoint of any family for drawing and reading.

    Args:
        model: a folder, or a name under `<data_root>/checkpoints`.
        device: the GPU if there is one, else the CPU, when not given.
        decoding: how the steps of drawing and writing are run, see `unigen.generation.steps`.
    Raises:
        CheckpointError: no such model, or of no known family.
    """
    from unigen.config.folders import find_model
    from unigen.models.weights import model_kind

    folder = find_model(model, data_root)
    kind = model_kind(folder)
    if kind not in PIPELINES:
        raise CheckpointError(
            f"{folder} holds a model of kind {kind!r}; this version draws with {', '.join(PIPELINES)}"
        )
    module, name = PIPELINES[kind]
    family = getattr(import_module(module), name)
    found: Pipeline = family.load(folder, data_root, torch.device(device) if device else default_device(), decoding)
    return found
