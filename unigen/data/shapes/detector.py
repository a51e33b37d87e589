# SPDX-License-Identifier: Apache-2.0
"""Reads an image of the world of shapes back into objects: where they are, what shape and what colour.

Made for what a small image tokenizer draws: soft edges, noise, colours a little off. On the dark background an object's edge
is its colour dimmed, so a pixel belongs to the palette colour whose ray from the background it lies nearest to, and how far
along the ray it lies is how much of the pixel the object covers. Shape suffixes: H, W pixels; C channels; K colours;
T templates.
"""

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from unigen.data.detection import Detection
from unigen.data.shapes.render import BACKGROUND, covers
from unigen.data.shapes.scene import COLORS, SHAPES

ACCEPTED_SCORE = 0.6
"""The score from which on a person would call the object by its class; `detect` itself reports lower ones too."""

_WORKING_SIDE = 128
_SMOOTHING = 2.0  # in pixels of the working image, half a pixel at 32
_COVERED = 0.5
_MINIMUM_AREA = 0.02  # of the image; a cross covers 0.055
_CORE = 0.75
_CERTAIN = (0.15, 0.85)  # coverage outside this range is taken for none and for full
_WINDOW = 80  # pixels of the working image around an object's centre of mass
_TEMPLATE_EXTENTS = (0.25, 0.28, 0.31, 0.34, 0.37, 0.4)  # of the image; objects measure 0.31 to 0.34
_TEMPLATE_BLURS = (0.5, 1.0, 1.4, 1.8)  # in pixels at 32


def detect(image: Image.Image) -> list[Detection]:
    """Find the objects of an image of any size, best first; boxes are in its pixels.

    The score is the overlap (soft IoU) with the best template, lowered for mixed colours.
    """
    working = image.convert("RGB").resize((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BICUBIC)
    pixels_HWC = ndimage.gaussian_filter(np.asarray(working, dtype=np.float32), (_SMOOTHING, _SMOOTHING, 0))
    coverage_HW, color_HW = _explain_pixels(pixels_HWC)
    labels_HW, num_components = ndimage.label(coverage_HW > _COVERED)
    scale = image.width / _WORKING_SIDE, image.height / _WORKING_SIDE
    found = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels_HW, num_components), start=1):
        mask_HW = labels_HW == index
        if mask_HW.sum() < _MINIMUM_AREA * _WORKING_SIDE**2:
            continue
        own_coverage_HW = np.where(mask_HW | (labels_HW == 0), coverage_HW, 0)
        shape, overlap = _match_shape(own_coverage_HW, mask_HW)
        color, purity = _vote_color(mask_HW, coverage_HW, color_HW)
        box = (columns.start * scale[0], rows.start * scale[1], columns.stop * scale[0], rows.stop * scale[1])
        found.append(Detection(shape, box, overlap * purity, color))
    return sorted(found, key=lambda detection: -detection.score)


def _explain_pixels(pixels_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel an object covers (H, W) and the index of its colour (H, W)."""
    background_C = np.array(BACKGROUND, dtype=np.float32)
    rays_KC = np.array(list(COLORS.values()), dtype=np.float32) - background_C
    offset_HWC = pixels_HWC - background_C
    squared_K = (rays_KC**2).sum(axis=1)
    share_HWK = np.clip(offset_HWC @ rays_KC.T / squared_K, 0, 1)
    # |offset - share * ray|^2 without holding (H, W, K, C)
    distance_HWK = share_HWK**2 * squared_K - 2 * share_HWK * (offset_HWC @ rays_KC.T)
    color_HW = distance_HWK.argmin(axis=-1)
    return np.take_along_axis(share_HWK, color_HW[..., None], axis=-1)[..., 0], color_HW


def _vote_color(mask_HW: np.ndarray, coverage_HW: np.ndarray, color_HW: np.ndarray) -> tuple[str, float]:
    """The commonest colour of a component and its share; dim edge pixels have no vote where there are brighter ones."""
    core_HW = mask_HW & (coverage_HW > _CORE)
    voters_HW = core_HW if core_HW.any() else mask_HW
    votes_K = np.bincount(color_HW[voters_HW], minlength=len(COLORS))
    winner = int(votes_K.argmax())
    return list(COLORS)[winner], float(votes_K[winner] / votes_K.sum())


def _match_shape(coverage_HW: np.ndarray, mask_HW: np.ndarray) -> tuple[str, float]:
    """The class whose template overlaps best with what surrounds a component's centre of mass, and how well."""
    templates_THW, names = _templates()
    view_HW = _view(coverage_HW, mask_HW)
    overlap_T = np.minimum(templates_THW, view_HW).sum(axis=(1, 2)) / np.maximum(templates_THW, view_HW).sum(
        axis=(1, 2)
    )
    best = int(overlap_T.argmax())
    return names[best], float(overlap_T[best])


@lru_cache(maxsize=1)
def _templates() -> tuple[np.ndarray, tuple[str, ...]]:
    """Every shape in several sizes and degrees of blur as it would be viewed (T, H, W), and the names (T)."""
    views, names = [], []
    for shape in SHAPES:
        for extent in _TEMPLATE_EXTENTS:
            axis = (np.arange(_WORKING_SIDE) + 0.5 - _WORKING_SIDE / 2) / (extent * _WORKING_SIDE / 2)
            sharp_HW = covers(shape, axis[None, :], axis[:, None]).astype(np.float32)
            for blur in _TEMPLATE_BLURS:
                coverage_HW = ndimage.gaussian_filter(sharp_HW, blur * _WORKING_SIDE / 32)
                views.append(_view(coverage_HW, coverage_HW > _COVERED))
                names.append(shape)
    return np.stack(views), tuple(names)


def _view(coverage_HW: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """The window around a mask's centre of mass, at half the working resolution, with faint coverage removed."""
    rows, columns = np.nonzero(mask_HW)
    top, left = round(rows.mean()), round(columns.mean())  # the window's corner once half a window is padded around
    padded_HW = np.pad(coverage_HW, _WINDOW // 2)
    half = _WINDOW // 2
    window_HW = padded_HW[top : top + _WINDOW, left : left + _WINDOW].reshape(half, 2, half, 2).mean(axis=(1, 3))
    none, full = _CERTAIN
    return np.clip((window_HW - none) / (full - none), 0, 1)
