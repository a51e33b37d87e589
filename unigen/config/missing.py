# SPDX-License-Identifier: Apache-2.0
"""The mark of a value that must be given."""

from typing import Any

MISSING: Any = "???"
"""OmegaConf's own, by its value: what only reads the configuration's classes does without OmegaConf."""
