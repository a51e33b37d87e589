# SPDX-License-Identifier: Apache-2.0
"""Models of transformers from a folder: whole, in float32, from the disk alone."""

from pathlib import Path
from typing import Any

import torch

from unigen.errors import CheckpointError


def load_whole(kind: Any, folder: Path, what: str) -> Any:
    """A model of the class `kind`, every parameter of which the folder fills.

    transformers only warns of what is missing, and the model then computes with random numbers.

    Raises:
        CheckpointError: the folder holds no such model, or not all of it.
    """
    try:
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{folder} cannot be loaded as {what}: {first}") from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise CheckpointError(
            f"{folder} does not fill {what}: {len(absent)} parameters, the first is {absent[0]}; fetch it again"
        )
    return model
