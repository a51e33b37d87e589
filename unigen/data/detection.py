# SPDX-License-Identifier: Apache-2.0
"""What any detector reports: one object found in an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Detection:
    """One object: its class, box (x0, y0, x1, y1) in pixels (x1, y1 exclusive), score in [0, 1] and colour name."""

    class_name: str
    box: tuple[float, float, float, float]
    score: float
    color: str | None = None
