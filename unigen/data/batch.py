# SPDX-License-Identifier: Apache-2.0
"""From prepared samples to packed batches.

Legend: R packed rows, L positions of a row, N images in codes, I code slots of an image, K feature slots of the batch, T targets,
P pairs of images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.sequence.layout import IGNORED, PADDING, Document, RowLayout, Supervision, lay_out
from unigen.sequence.packing import pack, pack_evenly
from unigen.sequence.visibility import Visible
from unigen.sequence.vocabulary import Vocabulary


@dataclass(frozen=True)
class CodeImage:
    """An image that enters a row as codes: pixels (3, H, W) in [-1, 1], or its codes (I,) computed ahead.

    Codes are no tensor yet, since every tensor that a worker hands over takes an open file.
    """

    content: Tensor | np.ndarray
    mask_I: np.ndarray | None = None
    """Codes hidden behind the mask token, for images that are drawn."""


@dataclass(frozen=True)
class Drawing:
    """An image that is to be drawn from words along a flow from noise, and the draws of this visit."""

    prompt_ids: np.ndarray
    """Token ids of the words; not a tensor yet, as those of codes."""
    is_blank: bool = False
    """Whether zeros stand in the place of the states of its words."""
    seed: int = 0
    """Of its noise."""
    time_normal: float = 0.0
    """A number of the standard normal distribution, from which its time follows."""


@dataclass(frozen=True)
class Sample:
    """One row to be: its segments, the images of its code and feature segments in order, and an image to make of it."""

    key: str
    document: Document
    code_images: tuple[CodeImage, ...] = ()
    feature_images: tuple[object, ...] = ()
    """What the vision tower's `preprocess` gave."""
    target_image: Tensor | None = None
    """Pixels (3, H, W) that the row is to become, for decoders outside the sequence."""
    caption: str = ""
    """Plain text that goes with the images, for objectives outside the sequence."""
    drawing: "Drawing | None" = None
    """What is drawn along a flow, for objectives outside the sequence."""
    rejected: "Sample | None" = None
    """The row of another image of the same prompt, to which this one is preferred."""
    visit: int = 0
    """Of preferences: how often the record had been visited before, which with its key says what was drawn."""

    @property
    def num_targets(self) -> int:
        """Positions that enter the loss."""
        masked = sum(int(image.mask_I.sum()) for image in self.code_images if image.mask_I is not None)
        start = total = 0
        for segment in self.document.segments:
            if segment.supervision is Supervision.NEXT_TOKEN:
                total += segment.length - (start == 0)
            start += segment.length
        return total + masked


@dataclass
class Batch:
    """Packed rows of one forward pass. Code and feature slots are flat positions in the (R, L) grid."""

    input_ids_RL: Tensor
    targets_RL: Tensor
    """Token that the state at a position is to predict, IGNORED (-100) where none."""
    positions_RL: Tensor
    tasks_RL: Tensor
    visible: Visible
    code_images: list[Tensor] = field(default_factory=list)
    code_slots_NI: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))
    code_targets_NI: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))
    """Flat position that predicts each code, IGNORED where none does."""
    code_masked_NI: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.bool))
    feature_images: list[object] = field(default_factory=list)
    feature_slots_K: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    features_KF: Tensor | None = None
    """What the vision tower made of `feature_images`, once it has."""
    codes_NIP: Tensor | None = None
    """What the image tokenizer made of `code_images`, where positions have several codes (P depths)."""
    supervised_T: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """Flat positions that have a target, known before the codes are: so no device has to be asked for them."""
    pairs_P2: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))
    """Numbers of the images of each preference: the chosen, the rejected."""
    reference_P2: Tensor | None = None
    """Their log-probabilities by the reference model, where they were computed ahead."""
    target_images: list[Tensor] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    """Of the samples that have one."""
    latents_BChw: Tensor | None = None
    """What the image auto-encoder made of the images of `drawings`, scaled, once it has."""
    captions: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Positions that hold something."""
        return int((self.visible.documents_RL != PADDING).sum())

    @property
    def num_slots(self) -> int:
        """Positions, padding included."""
        return self.input_ids_RL.numel()

    @property
    def num_images(self) -> int:
        return len(self.code_images) + len(self.feature_images) + len(self.target_images)

    def to(self, device: torch.device | str) -> "Batch":
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        images = {
            "code_images": [image.to(device, non_blocking=True) for image in self.code_images],
            "target_images": [image.to(device, non_blocking=True) for image in self.target_images],
        }
        return Batch(**{**vars(self), **moved, **images, "visible": self.visible.to(device)})


def fill_codes(batch: Batch, codes_NI: Tensor, vocabulary: Vocabulary) -> Batch:
    """Write image codes into a batch: as inputs (the mask token where masked) and as targets where they are predicted."""
    tokens_NI = codes_NI + vocabulary.code_offset
    input_ids, targets = batch.input_ids_RL.clone(), batch.targets_RL.clone()
    shown_NI = tokens_NI.masked_fill(batch.code_masked_NI, vocabulary.mask_id)
    input_ids.view(-1)[batch.code_slots_NI] = shown_NI
    predicted_NI = batch.code_targets_NI != IGNORED
    targets.view(-1)[batch.code_targets_NI[predicted_NI]] = tokens_NI[predicted_NI]
    return replace(batch, input_ids_RL=input_ids, targets_RL=targets)


def count_targets(samples: Sequence[Sample]) -> dict[str, int]:
    """Supervised positions per task."""
    counts = dict.fromkeys(TASKS, 0)
    for sample in samples:
        counts[TASKS[sample.document.task]] += sample.num_targets
    return {task: count for task, count in counts.items() if count}


def pack_batches(
    samples: Sequence[Sample], tokens_per_row: int, rows_per_batch: int, *, length_multiple: int | None = None
) -> Iterator[Batch]:
    """Pack the samples of a step into rows, and the rows into batches of at most `rows_per_batch`.

    Rows are as long as the longest of their batch needs. With `length_multiple` all rows of the step are equally long, a
    multiple of it (or `tokens_per_row`), and equally full: the rest of a step is no row of padding.
    """
    lengths, length = [sample.document.length for sample in samples], None
    if length_multiple is None:
        rows = pack(lengths, tokens_per_row)
    else:
        rows, length = pack_evenly(lengths, tokens_per_row, length_multiple)
    for start in range(0, len(rows), rows_per_batch):
        chosen = [[samples[index] for index in row] for row in rows[start : start + rows_per_batch]]
        yield collate(chosen, length)


def collate(rows: Sequence[Sequence[Sample]], length: int | None = None) -> Batch:
    """One batch of rows, each row a list of samples that are packed into it; as long as the longest if not told otherwise."""
    length = length or max(sum(sample.document.length for sample in row) for row in rows)
    layouts = [lay_out([sample.document for sample in row], length) for row in rows]
    samples = [sample for row in rows for sample in row]
    codes = _CodeFields.of(layouts, [image for sample in samples for image in sample.code_images], length)
    targets_RL = _stacked([layout.targets_L for layout in layouts])
    return Batch(
        input_ids_RL=_stacked([layout.input_ids_L for layout in layouts]),
        targets_RL=targets_RL,
        positions_RL=_stacked([layout.positions_L for layout in layouts]),
        tasks_RL=_stacked([layout.tasks_L for layout in layouts]),
        visible=Visible(
            documents_RL=_stacked([layout.documents_L for layout in layouts]),
            blocks_RL=_stacked([layout.blocks_L for layout in layouts]),
            open_RL=_stacked([layout.open_L for layout in layouts]),
        ),
        code_images=codes.images,
        code_slots_NI=codes.slots_NI,
        code_targets_NI=codes.targets_NI,
        code_masked_NI=codes.masked_NI,
        feature_images=[image for sample in samples for image in sample.feature_images],
        feature_slots_K=_feature_slots(layouts, length),
        supervised_T=torch.cat([_present(targets_RL), codes.targets_NI[codes.targets_NI != IGNORED]]),
        target_images=[sample.target_image for sample in samples if sample.target_image is not None],
        drawings=[sample.drawing for sample in samples if sample.drawing is not None],
        captions=[sample.caption for sample in samples],
        keys=[sample.key for sample in samples],
    )


def _present(targets_RL: Tensor) -> Tensor:
    return (targets_RL.flatten() != IGNORED).nonzero()[:, 0]


def _stacked(rows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))


def _tensor(content: Tensor | np.ndarray) -> Tensor:
    return content if isinstance(content, Tensor) else torch.from_numpy(content.astype(np.int64))


def _feature_slots(layouts: Sequence[RowLayout], length: int) -> Tensor:
    slots = [row * length + run for row, layout in enumerate(layouts) for run in layout.feature_slots]
    return torch.from_numpy(np.concatenate(slots)) if slots else torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class _CodeFields:
    """The fields of a batch that belong to its images in codes."""

    images: list[Tensor]
    slots_NI: Tensor
    targets_NI: Tensor
    masked_NI: Tensor

    @classmethod
    def of(cls, layouts: Sequence[RowLayout], images: Sequence[CodeImage], length: int) -> "_CodeFields":
        runs = [(row * length, run) for row, layout in enumerate(layouts) for run in layout.code_slots]
        assert len(runs) == len(images), "every code segment needs one image, and every image one segment"
        if not runs:
            empty = torch.empty(0, 0, dtype=torch.long)
            return cls([], empty, empty, empty.bool())
        masks, targets = [], []
        for (first, run), image in zip(runs, images, strict=True):
            masked_I = np.zeros(len(run.slots_I), dtype=bool) if image.mask_I is None else image.mask_I
            predicted_I = run.targets_I != IGNORED
            if run.supervision is Supervision.MASKED:
                predicted_I = predicted_I & masked_I
            masks.append(masked_I)
            targets.append(np.where(predicted_I, first + run.targets_I, IGNORED))
        slots = [first + run.slots_I for first, run in runs]
        return cls([_tensor(image.content) for image in images], _stacked(slots), _stacked(targets), _stacked(masks))
