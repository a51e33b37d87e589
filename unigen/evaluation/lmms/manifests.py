# SPDX-License-Identifier: Apache-2.0
"""What lmms-eval finds by the entry point `lmms_eval.models`: our models by name, imported only when one is asked for.

An error in here would hide the models of every other plug-in too, so nothing else is imported.
"""

from typing import Any

NAME = "unigen"
"""The model that lmms-eval is asked for; it loads a checkpoint of any family."""


def manifests() -> list[Any]:
    """One manifest (`lmms_eval.models.registry_v2.ModelManifest`) with both ways of asking."""
    from lmms_eval.models.registry_v2 import ModelManifest

    module = f"{__name__.rpartition('.')[0]}.models"
    return [ModelManifest(NAME, simple_class_path=f"{module}.SimpleModel", chat_class_path=f"{module}.ChatModel")]
