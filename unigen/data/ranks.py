# SPDX-License-Identifier: Apache-2.0
"""The processes that share one piece of work, as torchrun or accelerate started them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from unigen.errors import RanksApartError

LONGEST_WAIT = timedelta(days=7)
"""Ranks do not work in step: the fastest waits for the slowest at the end."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and how many there are."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """One process unless RANK and WORLD_SIZE say otherwise."""
        names = {"rank": "RANK", "world_size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
        return cls(**{field: int(os.environ[name]) for field, name in names.items() if name in os.environ})

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def own_device(self) -> str:
        """The GPU of this process, or the CPU where there is none: every process of a machine has a GPU of its own."""
        import torch

        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else "cpu"

    @contextmanager
    def together(self) -> Iterator[None]:
        """Lets `gather` work inside; leaves no process group behind."""
        if self.world_size == 1:
            yield
            return
        from torch import distributed

        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def gather(self, lines: list[str], *, at: str) -> list[str]:
        """Waits for all ranks; everyone's lines, in order of rank.

        Args:
            at: says at which place of the work this is. A rank that left it early, because of a mistake that the others have
                not made, waits at another place.
        Raises:
            RanksApartError: on all ranks, if they are at different places.
        """
        if self.world_size == 1:
            return lines
        from torch import distributed

        everyones: list[tuple[str, list[str]]] = [("", [])] * self.world_size
        distributed.all_gather_object(everyones, (at, lines))
        if len({place for place, _ in everyones}) > 1:
            said = [
                f"rank {rank} is at {place} {lines or ''}".rstrip() for rank, (place, lines) in enumerate(everyones)
            ]
            raise RanksApartError(f"the processes do not work in step: {', '.join(said)}; run the same command again")
        return [line for _, lines in everyones for line in lines]
