# SPDX-License-Identifier: Apache-2.0
"""Lookup-free quantisation: each latent channel gives one bit, its sign (MAGVIT-v2, arXiv 2310.05737, section 3.1).

Shapes: B images, C channels = bits, H x W positions, N = H * W, K = 2^C codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LookupFreeQuantizer(nn.Module):
    """Latents <-> codes. Channel 0 is the most significant bit; a latent above zero is a one, all else is a zero.

    Buffers: `embedding` (K, C) holds the -1/+1 vector of each code, `power_vals` (C,) what each bit is worth.
    """

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        shifts_C = torch.arange(num_bits - 1, -1, -1)
        codes_K = torch.arange(2**num_bits)
        self.register_buffer("embedding", (((codes_K[:, None] >> shifts_C) & 1) * 2 - 1).float())
        self.register_buffer("power_vals", 2**shifts_C)

    def quantise(self, latents_BCHW: Tensor) -> Tensor:
        """Latents -> their signs, -1 or +1 (0 becomes -1), differentiable straight through."""
        signs_BCHW = torch.where(latents_BCHW > 0, 1.0, -1.0).to(latents_BCHW.dtype)
        return latents_BCHW + (signs_BCHW - latents_BCHW).detach()

    def codes(self, latents_BCHW: Tensor) -> Tensor:
        """Latents -> codes (B, N) int64, row by row from the top left."""
        bits_BCHW = (latents_BCHW > 0).long()
        return (bits_BCHW * self.power_vals[:, None, None]).sum(dim=1).flatten(1)

    def lookup(self, codes_BN: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes (B, N) in [0, K) -> the -1/+1 vectors (B, C, H, W) of a `grid` of (H, W) positions."""
        vectors_BNC = F.embedding(codes_BN, self.embedding)
        return vectors_BNC.transpose(1, 2).unflatten(2, grid)
