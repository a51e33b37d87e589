# SPDX-License-Identifier: Apache-2.0
"""The objects of a Mask2Former's logits, found one by one.

Legend: Q queries, K classes and one for none, H rows, W columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Found = tuple[int, tuple[int, int, int, int], float, int]
"""Class, box, score and number of pixels."""


def objects_of_logits(
    classes_QK: Tensor, masks_QHW: Tensor, resized: tuple[int, int], original: tuple[int, int], most: int = 100
) -> list[Found]:
    """The best `most` pairs of a query and a class by probability, each with its own mask at the image's size."""
    pairs = []
    for query, logits in enumerate(classes_QK.tolist()):
        total = sum(math.exp(logit) for logit in logits)
        pairs += [(math.exp(logit) / total, query, label) for label, logit in enumerate(logits[:-1])]
    found = []
    for prob, query, label in sorted(pairs, reverse=True)[:most]:
        mask_HW = _mask(masks_QHW[query], resized, original)
        inside = [
            (row, column, mask_HW[row][column])
            for row in range(original[0])
            for column in range(original[1])
            if mask_HW[row][column] > 0
        ]
        mean = sum(1 / (1 + math.exp(-logit)) for _, _, logit in inside) / (len(inside) + 1e-6)
        rows, columns = [row for row, _, _ in inside], [column for _, column, _ in inside]
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1) if inside else (0, 0, 0, 0)
        found.append((label, box, prob * mean, len(inside)))
    return found


def _mask(logits_HW: Tensor, resized: tuple[int, int], original: tuple[int, int]) -> list[list[float]]:
    """One query's mask logits at the padded input's size, without the padding, then at the image's."""
    padded = [math.ceil(side / 32) * 32 for side in resized]
    large = F.interpolate(logits_HW[None, None], padded, mode="bilinear", align_corners=False)
    kept = large[:, :, torch.arange(resized[0])][:, :, :, torch.arange(resized[1])]
    return F.interpolate(kept, original, mode="bilinear", align_corners=False)[0, 0].tolist()
