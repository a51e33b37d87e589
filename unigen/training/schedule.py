# SPDX-License-Identifier: Apache-2.0
"""The learning rate as a function of the step alone."""

import math

from unigen.config.schema import ScheduleConfig


def learning_rate_factor(schedule: ScheduleConfig, step: int, num_steps: int) -> float:
    """Factor on the peak learning rate at `step` (0 is the first): linear from 0, then half a cosine down to the floor."""
    warmup_steps = schedule.warmup_steps or int(schedule.warmup_ratio * num_steps)
    if step < warmup_steps:
        return step / warmup_steps
    if schedule.name == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return schedule.min_ratio + 0.5 * (1 - schedule.min_ratio) * (1 + math.cos(math.pi * min(1.0, progress)))
