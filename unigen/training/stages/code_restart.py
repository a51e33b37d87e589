# SPDX-License-Identifier: Apache-2.0
"""Rows of a codebook that nothing takes any more are put where features are: a part of training alone.

Source: random restarts, Dhariwal et al., arXiv 2005.00341, section 3.1, as of the tokenizers of Lee et al., arXiv 2203.01941.
Legend: B images, N positions, P depths, C channels, K codes, V vectors that codes were found for, U unused codes.
"""

import torch
from torch import Tensor, distributed, nn

from unigen.models.image_tokenizers.rqvae_siglip import FeatureTokenizerOutput

DECAY = 0.9
LEAST_USAGE = 0.1
"""Vectors of a forward pass, over all ranks, that take a code; from 1 it falls so low in 22 passes that do not."""


class CodeRestart(nn.Module):
    """Counts how often codes are taken, as a moving average that begins at nothing: the first pass places most codes."""

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.usage_K: Tensor
        self.register_buffer("usage_K", torch.zeros(num_codes))

    @torch.no_grad()
    def forward(self, codebook_KC: Tensor, output: FeatureTokenizerOutput) -> None:
        """Count the codes of a forward pass, and write new rows for those that are unused into the codebook.

        All ranks make this call together.
        """
        counts_K = output.codes.flatten().bincount(minlength=len(self.usage_K)).to(self.usage_K.dtype)
        if distributed.is_initialized():
            distributed.all_reduce(counts_K)
        self.usage_K.lerp_(counts_K, 1 - DECAY)
        unused_U = (self.usage_K < LEAST_USAGE).nonzero()[:, 0]
        if len(unused_U):
            vectors_VC = _quantised_vectors(output)
            chosen_UC = vectors_VC[torch.randint(len(vectors_VC), (len(unused_U),)).to(vectors_VC.device)]
            if distributed.is_initialized():
                distributed.broadcast(chosen_UC, 0)
            codebook_KC[unused_U] = chosen_UC
            self.usage_K[unused_U] = 1.0


def _quantised_vectors(output: FeatureTokenizerOutput) -> Tensor:
    """What each depth found a code for: the feature without the rows before."""
    before_BNPC = output.partial_sums.roll(1, dims=2)
    before_BNPC[:, :, 0] = 0
    return (output.features.unsqueeze(2) - before_BNPC).flatten(0, 2)
