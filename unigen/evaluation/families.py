# SPDX-License-Identifier: Apache-2.0
"""Which family a checkpoint is of."""

from pathlib import Path

from unigen.config.folders import find_model
from unigen.models.weights import model_kind

UNIGEN = "unigen"
UNIFORK = "unifork"
UAE = "uae"
IMAGES = "images"
"""Not a model but a folder of images that were drawn elsewhere (`--images`)."""
FAMILIES = (UNIGEN, UNIFORK, UAE, IMAGES)
NAMES_IN_CONFIG = {"unigen": UNIGEN, "UniGen": UNIGEN, "unifork": UNIFORK, "llava_qwen2": UNIFORK, "uae": UAE}


def family_of(model: str | Path, data_root: str | Path) -> str:
    """The family of a checkpoint, by its config.json alone; what is of no known family is called as it calls itself.

    Raises:
        CheckpointError: no such model.
    """
    kind = str(model_kind(find_model(model, data_root)))
    return NAMES_IN_CONFIG.get(kind, kind)
