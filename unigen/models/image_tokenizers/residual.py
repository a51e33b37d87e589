# SPDX-License-Identifier: Apache-2.0
"""Residual quantisation: a vector as a sum of codebook rows, each the nearest to what the ones before left over.

Source: Lee et al., arXiv 2203.01941, section 3.1, with one codebook for all depths.
Legend: ... any leading axes, N vectors, C channels, K codes, P depths.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VECTORS_PER_CHUNK = 4096
"""Vectors that are compared with the whole codebook at once: 256 MiB of distances for 16384 codes."""


class Codebook(nn.Module):
    """One row a code, and a last row that stands for no code."""

    def __init__(self, num_codes: int, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_codes + 1, num_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)


class ResidualQuantizer(nn.Module):
    """Vectors (..., C) <-> codes (..., P). It has no statistics of its own: only an optimizer changes it, or nothing does."""

    def __init__(self, num_codes: int, num_channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.codebooks = nn.ModuleList([Codebook(num_codes, num_channels)])

    @property
    def codebook_KC(self) -> Tensor:
        """The rows that codes name."""
        codebook = self.codebooks[0]
        assert isinstance(codebook, Codebook)
        return codebook.weight[:-1]

    @torch.no_grad()
    def codes(self, vectors: Tensor) -> Tensor:
        """Vectors (..., C) -> codes (..., P) int64; of two rows equally near the first is taken."""
        flat_NC = vectors.flatten(0, -2)
        codes_NP = torch.cat([self._nearest(chunk_NC) for chunk_NC in flat_NC.split(VECTORS_PER_CHUNK)])
        return codes_NP.unflatten(0, vectors.shape[:-1])

    def depth_embeddings(self, codes: Tensor) -> Tensor:
        """Codes (..., P) -> their rows (..., P, C), whose sum over the depths stands for the vector."""
        return F.embedding(codes, self.codebook_KC)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (..., P) -> vectors (..., C)."""
        return self.depth_embeddings(codes).sum(-2)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., C) -> quantised ones, with gradients straight through to the vectors, and codes (..., P)."""
        codes = self.codes(vectors)
        return vectors + (self.lookup(codes) - vectors).detach(), codes

    def _nearest(self, vectors_NC: Tensor) -> Tensor:
        codebook_KC = self.codebook_KC
        squares_K = codebook_KC.square().sum(1)
        residual_NC, found = vectors_NC, []
        for _ in range(self.depth):
            # Without the vector's own square, which is the same for all rows.
            distances_NK = torch.addmm(squares_K, residual_NC, codebook_KC.T, alpha=-2)
            found.append(distances_NK.argmin(1))
            residual_NC = residual_NC - codebook_KC[found[-1]]
        return torch.stack(found, dim=1)
