# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of written tokens straight from hidden states, with gradient: what a policy that writes is trained by.

Legend: T tokens, D width, V vocabulary, C tokens of one chunk.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unigen.objectives.cross_entropy import LOGITS_PER_CHUNK


def token_log_probs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    temperature: float = 1.0,
    logits_per_chunk: int = LOGITS_PER_CHUNK,
) -> tuple[Tensor, Tensor]:
    """log softmax(hidden @ weight.T / temperature)[target] (T), with gradient, and the entropies (T) of those distributions in
    nats, without; both float32.

    The logits of a chunk are computed again in the backward pass, so the (T x V) matrix is never held.

    Args:
        hidden_TD: the state before each token, any floating dtype.
        weight_VD: output embedding of what may be written.
        temperature: above 0.
    """
    size = max(1, logits_per_chunk // weight_VD.shape[0])
    starts = range(
        0, max(1, len(targets_T)), size
    )  # a chunk of nothing, where there is nothing: it leads to the same weights
    chunks = [
        checkpoint(
            _chunk_log_probs,
            hidden_TD[start : start + size],
            weight_VD,
            targets_T[start : start + size],
            temperature,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in starts
    ]
    log_probs, entropies = zip(*chunks, strict=True)
    return torch.cat(log_probs), torch.cat(entropies).detach()


def _chunk_log_probs(
    hidden_CD: Tensor, weight_VD: Tensor, targets_C: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    log_probs_CV = torch.log_softmax(F.linear(hidden_CD, weight_VD).float() / temperature, dim=-1)
    with torch.no_grad():
        entropies_C = -(log_probs_CV.exp() * log_probs_CV).sum(dim=-1)
    return log_probs_CV.gather(1, targets_C[:, None])[:, 0], entropies_C
