# SPDX-License-Identifier: Apache-2.0
"""From the logits of a Mask2Former to the objects of an image: OpenMMLab's way, at the image's own size.

Legend: Q queries, K classes and one for none, M masks of objects, H rows, W columns (of the logits' grid, of the input, or of the
image).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from unigen.evaluation.geneval.pixels import DIVISOR

MAX_DETECTIONS = 100
_TINY = 1e-6


@dataclass(frozen=True)
class Instance:
    """One object found by the detector."""

    label: int
    """Number of the class in the order of COCO."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 around the mask; x1 and y1 are one past it. All zero for an empty mask."""
    score: float
    mask_HW: Tensor
    """Which pixels of the image belong to the object (bool, on the CPU)."""


def find_instances(
    classes_QK: Tensor, masks_QHW: Tensor, resized: tuple[int, int], original: tuple[int, int], min_score: float = 0.0
) -> list[Instance]:
    """The objects of one image, best class probability first.

    A query may give several objects of different classes. The score is the probability of the class times the mean of the
    mask's sigmoid inside the mask, so that no score is above the probability of its class.

    Args:
        classes_QK: class logits, the last of them for no object.
        masks_QHW: mask logits on a grid of a fourth of the padded input.
        resized, original: (height, width) of the input before padding, and of the image.
        min_score: objects that cannot be above it are left out, which spares the work for their masks.
    """
    probs_QK = classes_QK.float().softmax(-1)[:, :-1]
    num_classes = probs_QK.shape[1]
    probs_M, places_M = probs_QK.flatten().topk(min(MAX_DETECTIONS, probs_QK.numel()))
    is_possible_M = probs_M > min_score
    probs_M, places_M = probs_M[is_possible_M], places_M[is_possible_M]
    if not len(probs_M):
        return []
    queries, which_M = (places_M // num_classes).unique(return_inverse=True)
    logits_QHW = at_original_size(masks_QHW[queries].float(), resized, original)
    inside_QHW = logits_QHW > 0
    sums_Q = (logits_QHW.sigmoid() * inside_QHW).flatten(1).sum(1)
    means_Q = sums_Q / (inside_QHW.flatten(1).sum(1) + _TINY)
    scores_M = (probs_M * means_Q[which_M]).tolist()
    boxes = [tight_box(mask_HW) for mask_HW in inside_QHW]
    masks_QHW = inside_QHW.cpu()
    return [
        Instance(label, boxes[query], score, masks_QHW[query])
        for label, query, score in zip((places_M % num_classes).tolist(), which_M.tolist(), scores_M, strict=True)
    ]


def at_original_size(logits_QHW: Tensor, resized: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Mask logits at the image's size: to the padded input, without the padding, to the image; each step bilinear."""
    padded = tuple(side + -side % DIVISOR for side in resized)
    at_input = F.interpolate(logits_QHW[None], padded, mode="bilinear", align_corners=False)
    cropped = at_input[:, :, : resized[0], : resized[1]]
    return F.interpolate(cropped, original, mode="bilinear", align_corners=False)[0]


def tight_box(mask_HW: Tensor) -> tuple[float, float, float, float]:
    """The smallest box around a mask, its end one past the last pixel; all zero around nothing."""
    rows, columns = mask_HW.any(1).nonzero(), mask_HW.any(0).nonzero()
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
