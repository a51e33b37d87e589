# SPDX-License-Identifier: Apache-2.0
"""A page that shows what a stage of single images trains on: each image as the model gets it, with its caption."""

from importlib.resources import files

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor

from unigen.data.inspect import SeenStep, data_uri, enlarged

TEMPLATE = files("unigen.data") / "templates" / "inspect_images.html.j2"


def write_image_page(step: SeenStep, *, title: str, num_images: int) -> str:
    """The HTML of the page: the first `num_images` of the step. Their samples hold them as `target_image`."""
    shown = []
    for seen in step.samples[:num_images]:
        pixels_3HW = seen.sample.target_image
        assert pixels_3HW is not None, "made by the preparer of a stage of single images"
        size = f"{pixels_3HW.shape[2]} x {pixels_3HW.shape[1]} pixels"
        shown.append((seen.raw.key, data_uri(enlarged(_picture(pixels_3HW))), size, seen.sample.caption))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, images=shown, total=len(step.samples), faults=step.faults)


def _picture(pixels_3HW: Tensor) -> Image.Image:
    """Of values in [-1, 1]."""
    values_HW3 = (pixels_3HW.permute(1, 2, 0).numpy() + 1) * 127.5
    return Image.fromarray(np.clip(np.rint(values_HW3), 0, 255).astype(np.uint8))
