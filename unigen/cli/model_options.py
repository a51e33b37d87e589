# SPDX-License-Identifier: Apache-2.0
"""The options of every verb that works with a trained model, and how it is loaded from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from unigen.errors import ConfigError

if TYPE_CHECKING:
    from unigen.generation.pipeline import Pipeline
    from unigen.generation.steps import Decoding

OPTIONS = (
    click.option(
        "--model", required=True, help="A checkpoint's folder, a run's folder, or a name under the data root."
    ),
    click.option(
        "--data-root", default="unigen_data", show_default=True, help="Where checkpoints and datasets are kept."
    ),
    click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU if there is one]"),
    click.option(
        "--decoding",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "eager", "graph", "compile"]),
        help="How steps are run: auto is a CUDA graph on a GPU; compile is faster after minutes of compiling.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)
DRAWING = (
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Base of one seed per image."
    ),
    click.option("--guidance-scale", type=float, help="0 and 1 follow the prompt alone.  [6; UniFork 4; UAE 5]"),
    click.option(
        "--steps", type=click.IntRange(min=1), help="Drawing steps.  [50, or the codes of an image if fewer; UAE 40]"
    ),
    click.option("--temperature", type=click.FloatRange(min=0), help="Randomness of which codes are kept.  [1]"),
    click.option("--temperature-schedule", type=click.Choice(["compounding", "linear"]), help="[compounding]"),
    click.option(
        "--top-k", type=click.IntRange(min=0), help="UniFork: choose among the k likeliest codes; 0: all.  [900]"
    ),
    click.option("--top-p", type=click.FloatRange(0, 1), help="UniFork: among codes of this probability.  [0.96]"),
    click.option("--negative-prompt", help="UniFork, UAE: what guidance leads away from.  [as in training]"),
    click.option("--resolution", type=click.IntRange(min=1), help="UAE: side in pixels.  [the model's]"),
)
BATCH_SIZE = click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1))


def with_options(options: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds all of `options`, in this order of help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given; the others keep the family's defaults."""
    return {name: value for name, value in settings.items() if value is not None}


def load(model: str, data_root: str, device: str | None, decoding: Decoding = "auto") -> Pipeline:
    """The model, on a device that is there.

    Raises:
        ConfigError: there is no such device.
    """
    from transformers.utils import logging

    from unigen.generation.pipeline import load_pipeline

    logging.set_verbosity_error()
    if device is not None:
        check_device(device)
    return load_pipeline(model, data_root=data_root, device=device, decoding=decoding)


def check_device(device: str) -> None:
    """Raises ConfigError where there is no such device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from error
