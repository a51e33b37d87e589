# SPDX-License-Identifier: Apache-2.0
"""From logits to objects, rule by rule on logits made by hand, and all together against the slow way."""

import pytest
import torch
from torch import Tensor

from unigen.evaluation.geneval.postprocess import MAX_DETECTIONS, at_original_size, find_instances, tight_box
from unigen.reference.mask2former_objects import objects_of_logits

SIDE = 32


def masks(*boxes: tuple[int, int, int, int] | None, logit: float = 6.0) -> Tensor:
    """Mask logits on the grid of an input of 32 x 32: high in a box of grid cells, low elsewhere; low everywhere for None."""
    grids = torch.full((len(boxes), 8, 8), -6.0)
    for grid, box in zip(grids, boxes, strict=True):
        if box:
            grid[box[1] : box[3], box[0] : box[2]] = logit
    return grids


def classes(*probs: tuple[float, ...]) -> Tensor:
    """Class logits with these probabilities; what is missing to one is that of no object."""
    return torch.tensor([[*query, 1 - sum(query)] for query in probs]).log()


def find(probs: Tensor, grids: Tensor, min_score: float = 0.0) -> list[tuple[int, tuple[float, ...], float]]:
    found = find_instances(probs, grids, (SIDE, SIDE), (SIDE, SIDE), min_score)
    return [(one.label, one.box, one.score) for one in found]


def test_the_box_is_tight_and_its_end_lies_one_past_the_last_pixel() -> None:
    mask_HW = torch.zeros(10, 12, dtype=torch.bool)
    mask_HW[2:5, 3:9] = True
    assert tight_box(mask_HW) == (3, 2, 9, 5)
    assert tight_box(torch.zeros(4, 4, dtype=torch.bool)) == (0, 0, 0, 0)


def test_the_score_is_the_probability_times_the_mean_of_the_sigmoid_inside_the_mask() -> None:
    whole = masks((0, 0, 8, 8), logit=2.0)
    ((label, box, score),) = find(classes((0.0, 0.75)), whole, 0.1)
    assert (label, box) == (1, (0, 0, SIDE, SIDE))
    assert score == pytest.approx(0.75 * torch.tensor(2.0).sigmoid().item(), rel=1e-5)


def test_an_empty_mask_has_no_score_and_a_box_of_zeros() -> None:
    assert find(classes((0.9,)), masks(None)) == [(0, (0, 0, 0, 0), 0.0)]


def test_one_query_may_give_objects_of_several_classes() -> None:
    found = find(classes((0.5, 0.4)), masks((0, 0, 4, 4)))
    assert [label for label, _, _ in found] == [0, 1]
    assert found[0][1] == found[1][1]
    assert found[0][2] / found[1][2] == pytest.approx(0.5 / 0.4, rel=1e-5)


def test_the_probability_of_no_object_is_left_out_after_the_softmax() -> None:
    ((_, _, score),) = find(classes((0.25,)), masks((0, 0, 8, 8), logit=20.0))
    assert score == pytest.approx(0.25, rel=1e-5)


def test_a_hundred_pairs_of_query_and_class_are_kept_the_best_first() -> None:
    probs = torch.rand(30, 11, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = find_instances(probs.log(), masks(*[(0, 0, 8, 8)] * 30), (SIDE, SIDE), (SIDE, SIDE))
    assert len(found) == MAX_DETECTIONS == 100
    kept = probs[:, :-1].flatten().sort(descending=True).values[:100]
    torch.testing.assert_close(torch.tensor([one.score for one in found]), kept * torch.tensor(6.0).sigmoid())


def test_what_cannot_pass_the_threshold_is_left_out_and_the_rest_is_the_same() -> None:
    probs, grids = classes((0.8, 0.1), (0.35, 0.3)), masks((0, 0, 4, 4), (4, 4, 8, 8))
    everything = find(probs, grids)
    assert [one for one in everything if one[2] > 0.3] == [one for one in find(probs, grids, 0.3) if one[2] > 0.3]
    assert len(find(probs, grids, 0.3)) == 2
    assert find(probs, grids, 0.9) == []


def test_the_padding_is_cut_off_before_masks_go_to_the_images_size() -> None:
    logits_QHW = torch.full((1, 8, 16), -6.0)
    logits_QHW[:, :, 8:] = 6.0  # right of 32 of 64 columns, of which 40 are no padding
    large = at_original_size(logits_QHW, (32, 40), (16, 20))
    assert large.shape == (1, 16, 20)
    assert tight_box(large[0] > 0) == (16, 0, 20, 16)


def test_objects_are_those_of_the_slow_way() -> None:
    generator = torch.Generator().manual_seed(3)
    probs = 3 * torch.randn(6, 5, generator=generator)
    grids = 4 * torch.randn(6, 8, 12, generator=generator) - 2
    grids[5] = -9  # nothing
    resized, original = (30, 45), (20, 30)
    found = find_instances(probs, grids, resized, original)
    slow = objects_of_logits(probs, grids, resized, original)
    assert [(one.label, one.box, int(one.mask_HW.sum())) for one in found] == [
        (label, tuple(map(float, box)), size) for label, box, _, size in slow
    ]
    assert [one.score for one in found] == pytest.approx([score for _, _, score, _ in slow], rel=1e-5)
