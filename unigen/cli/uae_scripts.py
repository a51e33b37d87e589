# SPDX-License-Identifier: Apache-2.0
"""The command of UAE's README by its flags, in dashes or underscores; `scripts/demo.py` starts it."""

from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.cli.ask import read_image
from unigen.cli.unifork_scripts import CONTEXT, FILE
from unigen.config.folders import REPOSITORY
from unigen.errors import ConfigError

SEED = 42
MODEL = Path("configs") / "uae" / "model.yaml"


@click.command(
    context_settings=CONTEXT,
    help="Draw a text; or caption an image and draw it again from its caption, or with --prompt_only caption it alone. The "
    f"model's folders are those of {MODEL}.",
)
@click.option("--input-text", help="What to draw.")
@click.option("--input-img", type=FILE, help="An image to caption.")
@click.option("--prompt-only", is_flag=True, help="Print the image's caption and draw nothing.")
@click.option("--output-path", default="output/generated_image.png", show_default=True, type=FILE)
@click.option("--model", default=str(REPOSITORY / MODEL), help=f"Another checkpoint of any kind.  [{MODEL}]")
@click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU if there is one]")
@click.option("--seed", default=SEED, show_default=True, type=click.IntRange(min=0))
@click.option("--steps", type=click.IntRange(min=1), help="Drawing steps.  [40]")
@click.option("--guidance-scale", type=float, help="0 and 1 follow the prompt alone.  [5]")
@click.option("--resolution", type=click.IntRange(min=1), help="Side in pixels.  [the model's, 1024 as released]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest caption.  [512]")
def demo(
    input_text: str | None,
    input_img: Path | None,
    prompt_only: bool,
    output_path: Path,
    model: str,
    data_root: str,
    device: str | None,
    seed: int,
    max_new_tokens: int | None,
    **drawing: Any,
) -> None:
    from unigen.generation.pipeline import AskRequest, DrawRequest
    from unigen.generation.png import write_png

    _check(input_text, input_img, prompt_only)
    image = None if input_img is None else read_image(input_img)
    pipeline = model_options.load(model, data_root, device)
    prompt = input_text
    if image is not None:
        request = AskRequest(pipeline.caption_request, (image,), seed=seed)
        prompt = next(iter(pipeline.ask_requests([request], **model_options.given(max_new_tokens=max_new_tokens))))
        click.echo(prompt)
    if prompt_only:
        return
    assert prompt is not None
    chosen = model_options.given(**drawing)
    (drawn,) = pipeline.draw_requests([DrawRequest(prompt, seed)], **chosen)
    write_png(drawn, output_path, {"prompt": prompt, "seed": seed, "model": pipeline.name, **chosen})
    click.echo(f"written to {output_path}")


def _check(input_text: str | None, input_img: Path | None, prompt_only: bool) -> None:
    """Raises ConfigError for flags that exclude each other."""
    if input_text is not None and input_img is not None:
        raise ConfigError("--input_text and --input_img exclude each other: give what to draw, or what to caption")
    if prompt_only and input_img is None:
        raise ConfigError("--prompt_only captions an image; give it with --input_img")
    if input_text is None and input_img is None:
        raise ConfigError("give --input_text TEXT to draw, or --input_img FILE to caption")
