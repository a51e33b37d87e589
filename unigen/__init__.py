# SPDX-License-Identifier: Apache-2.0
"""Unified multimodal models that understand and draw images.

model = unigen.load("runs/quickstart/sft")
images = model.draw("a red circle left of a blue square", num_images=4, seed=0)
answer = model.ask(images[0], "what color is the circle?")
"""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` is `generation.pipeline.load_pipeline`, imported when it is first asked for: `import unigen` costs nothing."""
    if name == "load":
        from unigen.generation.pipeline import load_pipeline

        return load_pipeline
    raise AttributeError(f"module 'unigen' has no attribute {name!r}")
