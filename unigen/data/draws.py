# SPDX-License-Identifier: Apache-2.0
"""Every random draw about a sample, as a function of (base seed, sample key, visit, purpose) and of nothing else.

So neither the number of ranks and workers nor the order of the samples changes what is drawn.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draws:
    """The draws of one visit to one sample."""

    seed: int
    key: str
    visit: int

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh generator for `purpose`; asking twice gives the same numbers twice."""
        name = f"{self.seed}|{self.key}|{self.visit}|{purpose}".encode()
        # PCG64 from an integer asks the system for no entropy, as Philox does even where it is given a key.
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        return np.random.Generator(np.random.PCG64(seed))
