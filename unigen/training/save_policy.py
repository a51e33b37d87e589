# SPDX-License-Identifier: Apache-2.0
"""When a run saves itself, which checkpoints stay, and when the job's time is over. Pure: no clock and no disk in here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unigen.config.schema import ExperimentConfig

SLURM_END = "SLURM_JOB_END_TIME"
"""Of a job's environment: the second (Unix time) at which SLURM ends it."""
LARGEST_SHARE = 0.25
"""Of the time that a job has: what is kept free at its end, at most."""


@dataclass(frozen=True)
class SavePolicy:
    every_steps: int = 0
    """0: not by the number of steps."""
    every_seconds: float | None = None
    keep_last: int = 0
    """0: all stay."""
    keep_every: int = 0
    """Multiples of it are saved, and stay; 0: none."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> "SavePolicy":
        minutes = config.checkpoint_every_minutes
        return cls(
            config.checkpoint_every, None if minutes is None else 60 * minutes, config.keep_last, config.keep_every
        )

    def is_due(self, step: int, seconds_since_last: float) -> bool:
        """Whether to save after `step`, when the run began or was saved so long ago."""
        is_milestone = any(every > 0 and step % every == 0 for every in (self.every_steps, self.keep_every))
        return is_milestone or (self.every_seconds is not None and seconds_since_last >= self.every_seconds)

    def superfluous(self, steps: Iterable[int], newest: int) -> list[int]:
        """Which of the saved `steps` to delete, now that `newest` is there. Later ones are of another life of the run."""
        if self.keep_last <= 0:
            return []
        older = sorted(step for step in steps if step <= newest)[: -self.keep_last]
        return [step for step in older if self.keep_every <= 0 or step % self.keep_every != 0]


@dataclass(frozen=True)
class TimeLimit:
    """The last moment at which a run that has to save itself may begin another step, in seconds of Unix time."""

    last_start: float | None = None
    """None: there is no limit."""

    @classmethod
    def of(cls, config: ExperimentConfig, environment: Mapping[str, str], now: float) -> "TimeLimit":
        """From the configuration, else from SLURM. An end that has passed belongs to another job than this."""
        if config.time_limit_minutes is not None:
            end = now + 60 * config.time_limit_minutes
        else:
            end = float(environment.get(SLURM_END) or now)
        if end <= now:
            return cls()
        return cls(end - min(60 * config.stop_before_limit_minutes, LARGEST_SHARE * (end - now)))

    def is_near(self, now: float) -> bool:
        return self.last_start is not None and now >= self.last_start
