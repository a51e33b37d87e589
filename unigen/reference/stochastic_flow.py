# SPDX-License-Identifier: Apache-2.0
"""The stochastic steps of a flow, element by element in Python's own numbers, each from its definition.

dx = [v + s^2 / (2 t) (x + (1 - t) v)] dt + s dw, with s = a sqrt(t / (1 - t)); and the coefficient-preserving step, which takes
the sample apart into data and noise and puts it together anew.
"""

import math
from collections.abc import Sequence


def slow_step(x: float, v: float, t: float, next_t: float, a: float, second_t: float) -> tuple[float, float]:
    """Mean and standard deviation of one element."""
    dt = next_t - t
    s = a * math.sqrt(t / (1 - (second_t if t >= 1 else t)))
    drift = v + s * s / (2 * t) * (x + (1 - t) * v)
    return x + drift * dt, s * math.sqrt(-dt)


def slow_log_prob(values: Sequence[float], means: Sequence[float], std: float) -> float:
    """Mean log-density of the elements of one sample."""
    logs = [
        -math.log(std * math.sqrt(2 * math.pi)) - (value - mean) ** 2 / (2 * std * std)
        for value, mean in zip(values, means, strict=True)
    ]
    return sum(logs) / len(logs)


def slow_preserving_step(x: float, v: float, t: float, next_t: float, a: float) -> tuple[float, float]:
    """Mean and standard deviation of one element."""
    noise = x + (1 - t) * v
    data = noise - v
    kept, new = next_t * math.cos(a * math.pi / 2), next_t * math.sin(a * math.pi / 2)
    return (1 - next_t) * data + kept * noise, new
