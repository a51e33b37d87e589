# SPDX-License-Identifier: Apache-2.0
"""Every random draw about a sample, as a function of (base seed, sample key, visit, purpose) and of nothing else.

So neither the number of ranks and workers nor the order of the samples changes what is drawn.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence


@dataclass(frozen=True)
class Draws:
    """The draws of one visit to one sample."""

    seed: int
    key: str
    visit: int

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh generator for `purpose`; asking twice gives the same numbers twice."""
        name = f"{self.seed}|{self.key}|{self.visit}|{purpose}".encode()
        return np.random.Generator(np.random.PCG64(_Hashed(name)))  # type: ignore[arg-type]  # numpy says so, its annotation does not


class _Hashed(ISeedSequence):
    """A generator's first state straight from a hash, which is mixed already: numpy's own mixing takes five times as long as
    all the rest, and every sample has several generators."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> np.ndarray:
        kind = np.dtype(dtype)
        digest = hashlib.blake2b(self._name, digest_size=n_words * kind.itemsize).digest()
        return np.frombuffer(digest, kind.newbyteorder("<")).astype(kind)
