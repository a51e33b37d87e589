# SPDX-License-Identifier: Apache-2.0
"""A page that shows the rows of a configuration as training gets them: pieces, targets, who sees whom, images, bad records.

Legend: R packed rows, L positions of a row.
"""

import base64
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.schema import TASKS
from unigen.data.batch import Batch, Sample, collate, count_targets
from unigen.data.draws import Draws
from unigen.data.faults import FaultLog
from unigen.data.lanes import Prepare, WeightedSource
from unigen.data.mixture import SampleStream
from unigen.data.sample import RawSample
from unigen.errors import DataError
from unigen.sequence.layout import IGNORED, PADDING, Document, Kind, Segment, Visibility
from unigen.sequence.packing import pack

TEMPLATE = files("unigen.data") / "templates" / "inspect.html.j2"
IMAGE_SIDE, PICTURE_SIDE = 128, 320
COLOURS = {Kind.TEXT: (96, 110, 140), Kind.CODES: (22, 140, 130), Kind.FEATURES: (200, 110, 30)}
PADDING_COLOUR, HIDDEN_COLOUR = (225, 225, 225), (255, 255, 255)
LONGEST_SHOWN_KEY = 80


@dataclass(frozen=True)
class SeenSample:
    """A record as it was read, and the row that was made of it."""

    raw: RawSample
    sample: Sample


@dataclass(frozen=True)
class SeenStep:
    """One global step, all ranks together."""

    samples: list[SeenSample]
    faults: FaultLog


@dataclass(frozen=True)
class Piece:
    """What stands at one position (a token), or at a run of them (an image)."""

    text: str
    kind: str
    note: str
    """What a pointer that rests on it is told."""
    is_target: bool = False
    is_break: bool = False
    """A line ends after it."""


@dataclass(frozen=True)
class SeenDocument:
    """One sample within a row."""

    key: str
    task: str
    length: int
    num_targets: int
    pieces: list[Piece]
    images: list[tuple[str, str]] = field(default_factory=list)
    """(data URI, what it shows)."""


@dataclass(frozen=True)
class SeenRow:
    length: int
    num_tokens: int
    documents: list[SeenDocument]
    picture: str
    """Who sees whom, as a data URI."""


def read_step(
    mixture: dict[str, list[WeightedSource]],
    samples_per_step: dict[str, int],
    prepare: Prepare[Sample],
    *,
    lanes: int,
    seed: int,
    shuffle_block: int,
) -> SeenStep:
    """The first global step of a run.

    Raises:
        DataError: a source without a usable record.
    """

    def keep_both(raw: RawSample, draws: Draws) -> SeenSample:
        return SeenSample(raw, prepare(raw, draws))

    stream = SampleStream(mixture, samples_per_step, keep_both, lanes=lanes, seed=seed, shuffle_block=shuffle_block)
    faults = FaultLog(max_bad_fraction=1.0)
    for part in stream:
        faults.add(part.faults, part.seen)
        if part.failure is not None:
            raise DataError(part.failure)
        if part.is_whole:
            placed = sorted(part.samples, key=lambda placed: placed[0])
            return SeenStep([row for _, seen in placed for row in _rows(seen)], faults)
    raise AssertionError("the stream of samples is endless")


def _rows(seen: SeenSample) -> list[SeenSample]:
    """The rows of a sample: one, or of a preference those of its two images."""
    rejected = seen.sample.rejected
    if rejected is None:
        return [seen]
    pair = zip(("chosen", "rejected"), seen.raw.images, (seen.sample, rejected), strict=True)
    return [
        SeenSample(replace(seen.raw, key=f"{seen.raw.key} ({name})", images=(image,)), sample)
        for name, image, sample in pair
    ]


def write_page(
    step: SeenStep,
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    tokens_per_row: int,
    num_rows: int,
    draws_apart: bool = False,
) -> str:
    """The HTML of the page: `num_rows` packed rows of the step, those that bring another task first.

    Args:
        draws_apart: whether what is drawn has rows of its own, as UniFork's branches have.
    """
    groups = [step.samples]
    if draws_apart:
        groups = [[seen for seen in step.samples if (seen.raw.task == "t2i") == is_drawn] for is_drawn in (True, False)]
    rows = [row for group in groups for row in _packed(group, tokens_per_row)]
    lengths = [seen.sample.document.length for seen in step.samples]
    facts = {
        "samples": Counter(seen.raw.task for seen in step.samples),
        "targets": count_targets([seen.sample for seen in step.samples]),
        "num_rows": len(rows),
        "tokens_per_row": tokens_per_row,
        "filled": sum(lengths) / (len(rows) * tokens_per_row),
        "mean_length": sum(lengths) / len(lengths),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = [_see_row(row, tokenizer) for row in _varied(rows)[:num_rows]]
    return template.render(title=title, facts=facts, rows=shown, faults=step.faults, colours=_css_colours())


def _packed(samples: Sequence[SeenSample], tokens_per_row: int) -> list[list[SeenSample]]:
    packed = pack([seen.sample.document.length for seen in samples], tokens_per_row)
    return [[samples[index] for index in row] for row in packed]


def _varied(rows: list[list[SeenSample]]) -> list[list[SeenSample]]:
    """Rows in turn of the sets of tasks they hold, so that the first few show them all."""
    groups: dict[frozenset[str], list[list[SeenSample]]] = {}
    for row in rows:
        groups.setdefault(frozenset(seen.raw.task for seen in row), []).append(row)
    order = sorted(groups, key=lambda tasks: (-len(tasks), sorted(tasks)))
    most = max(map(len, groups.values()))
    return [groups[tasks][number] for number in range(most) for tasks in order if number < len(groups[tasks])]


def _see_row(row: Sequence[SeenSample], tokenizer: PreTrainedTokenizerBase) -> SeenRow:
    batch = collate([[seen.sample for seen in row]])
    predicted = _predicted_positions(batch)
    documents, start = [], 0
    for seen in row:
        documents.append(_see_document(seen, start, predicted, tokenizer))
        start += seen.sample.document.length
    return SeenRow(batch.input_ids_RL.shape[1], batch.num_tokens, documents, _visibility_picture(batch, row))


def _predicted_positions(batch: Batch) -> dict[int, int]:
    """Position whose content is a target -> position that predicts it, read from the very fields that the loss reads."""
    predictors = (batch.targets_RL[0] != IGNORED).nonzero()[:, 0].tolist()
    found = {place + 1: place for place in predictors}
    targets, slots = batch.code_targets_NI.flatten().tolist(), batch.code_slots_NI.flatten().tolist()
    found.update({slot: place for slot, place in zip(slots, targets, strict=True) if place != IGNORED})
    return found


def _see_document(
    seen: SeenSample, start: int, predicted: dict[int, int], tokenizer: PreTrainedTokenizerBase
) -> SeenDocument:
    document, place = seen.sample.document, start
    pieces: list[Piece] = []
    for segment in document.segments:
        pieces += _see_segment(segment, place, start, predicted, tokenizer)
        place += segment.length
    key = seen.raw.key if len(seen.raw.key) <= LONGEST_SHOWN_KEY else "..." + seen.raw.key[-LONGEST_SHOWN_KEY:]
    num_targets = sum(start <= position < place for position in predicted)
    return SeenDocument(key, TASKS[document.task], document.length, num_targets, pieces, list(_images(seen)))


def _see_segment(
    segment: Segment, place: int, start: int, predicted: dict[int, int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Piece]:
    seen_by = {
        Visibility.CAUSAL: "seen by later positions",
        Visibility.BLOCK: "seen by the whole open block",
        Visibility.OPEN: "seen by the whole sample",
    }[segment.visibility]
    if segment.kind is not Kind.TEXT:
        positions = range(place, place + segment.length)
        num_targets = sum(position in predicted for position in positions)
        side = math.isqrt(segment.length)
        shape = f"{side} × {side} " if side * side == segment.length else f"{segment.length} "
        targets = f", {num_targets} masked and predicted" if num_targets else ""
        note = f"positions {place - start}-{place - start + segment.length - 1}; {seen_by}"
        yield Piece(f"{shape}{segment.kind.value}{targets}", segment.kind.value, note, bool(num_targets))
        return
    for position, token in enumerate(segment.token_ids, place):
        words = str(tokenizer.decode([token]))
        by = f"; predicted from position {predicted[position] - start}" if position in predicted else ""
        note = f"position {position - start}, id {token}; {seen_by}{by}"
        is_break = words.endswith("\n")
        yield Piece(words.replace("\n", "↵"), "text", note, position in predicted, is_break)


def _images(seen: SeenSample) -> Iterator[tuple[str, str]]:
    """The images of a record; beside one that is drawn, what of it the model is shown."""
    for number, raw in enumerate(seen.raw.images):
        yield data_uri(enlarged(raw)), f"as it was read, {raw.width} × {raw.height}"
        if number < len(seen.sample.code_images):
            image = seen.sample.code_images[number]
            assert isinstance(image.content, Tensor), "an image that was read is no codes"
            pixels = ((image.content + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
            side = pixels.shape[0]
            if image.mask_I is None:
                if raw.size == (side, side):
                    continue
                yield data_uri(enlarged(Image.fromarray(pixels))), f"as it is encoded, {side} × {side}"
            else:
                hidden = f"{int(image.mask_I.sum())} of {len(image.mask_I)} codes hidden"
                yield data_uri(enlarged(Image.fromarray(_with_mask(pixels, image.mask_I)))), hidden


def _with_mask(pixels_HW3: np.ndarray, mask_I: np.ndarray) -> np.ndarray:
    cells = math.isqrt(len(mask_I))
    cell = pixels_HW3.shape[0] // cells
    is_hidden_HW = np.kron(mask_I.reshape(cells, cells), np.ones((cell, cell), dtype=bool))
    hatched_HW = np.add.outer(np.arange(pixels_HW3.shape[0]), np.arange(pixels_HW3.shape[1])) % 4 < 1
    grey_HW3 = np.where(hatched_HW, 150, 185).astype(np.uint8)[..., None].repeat(3, axis=2)
    return np.where(is_hidden_HW[..., None], grey_HW3, pixels_HW3)


def enlarged(image: Image.Image) -> Image.Image:
    """About `IMAGE_SIDE` pixels a side; small images keep their hard pixels."""
    factor = IMAGE_SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _visibility_picture(batch: Batch, row: Sequence[SeenSample]) -> str:
    """Rows down, columns across: a cell has the colour of the column's kind where the row sees it."""
    is_seen_LL = batch.visible.dense()[0, 0].numpy()
    is_padding_L = (batch.visible.documents_RL[0] == PADDING).numpy()
    colours_L3 = np.array([colour for seen in row for colour in _colours(seen.sample.document)], dtype=np.uint8)
    padding_L3 = np.full((len(is_padding_L) - len(colours_L3), 3), PADDING_COLOUR, dtype=np.uint8)
    colours_L3 = np.concatenate([colours_L3, padding_L3])
    picture = np.where(is_seen_LL[..., None], colours_L3[None], np.array(HIDDEN_COLOUR, dtype=np.uint8))
    picture[is_padding_L] = PADDING_COLOUR
    scale = max(1, round(PICTURE_SIDE / len(is_padding_L)))
    image = Image.fromarray(picture.astype(np.uint8))
    if scale > 1:
        return data_uri(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST))
    return data_uri(
        image.resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX) if image.width > PICTURE_SIDE else image
    )


def _colours(document: Document) -> Iterator[tuple[int, int, int]]:
    for segment in document.segments:
        yield from [COLOURS[segment.kind]] * segment.length


def _css_colours() -> dict[str, str]:
    return {kind.value: f"rgb{colour}" for kind, colour in COLOURS.items()}


def data_uri(image: Image.Image) -> str:
    """The image as a PNG that stands in the page itself."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def page_facts(step: SeenStep) -> dict[str, Any]:
    """What was seen, for `--json`."""
    return {
        "samples": dict(Counter(seen.raw.task for seen in step.samples)),
        "targets": count_targets([seen.sample for seen in step.samples]),
        "records_seen": step.faults.seen,
        "bad": dict(step.faults.counts),
    }
