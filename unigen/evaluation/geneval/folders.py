# SPDX-License-Identifier: Apache-2.0
"""Loading a judge's model from a folder of transformers."""

from pathlib import Path
from typing import Any

from unigen.errors import CheckpointError, EvaluationError
from unigen.models import pretrained


def load_whole(kind: Any, folder: Path, what: str) -> Any:
    """A model of the class `kind`, every parameter of which the folder fills.

    Raises:
        EvaluationError: the folder holds no such model, or not all of it.
    """
    try:
        return pretrained.load_whole(kind, folder, what)
    except CheckpointError as error:
        raise EvaluationError(f"{error}; run scripts/setup_eval.sh") from error
