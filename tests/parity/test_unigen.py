# SPDX-License-Identifier: Apache-2.0
"""UniGen equals the golden cases through the public load path, dense and packed, and again after a save and load."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.golden import golden_parameters, weight_by_name
from unigen.models.checkpoints import load_unigen
from unigen.models.unigen import UniGen
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.sequence.layout import (
    IGNORED,
    Document,
    RowLayout,
    Segment,
    Supervision,
    Visibility,
    codes,
    features,
    lay_out,
    text,
)
from unigen.sequence.visibility import Visible

TEXT_VOCABULARY, PAD, START_OF_IMAGE, END_OF_IMAGE = 400, 390, 391, 392
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
CASES = golden_parameters("unigen_tiny")


def released_folder(case: Path, folder: Path) -> Path:
    """A checkpoint in the released layout, whose weights follow from their names."""
    llm = json.loads(case.with_suffix(".qwen2_config.json").read_text())
    shapes = json.loads(case.with_suffix(".keys.json").read_text())
    weights = {name: torch.from_numpy(weight_by_name(name, tuple(shape))) for name, shape in shapes.items()}
    (folder / "llm").mkdir(parents=True)
    (folder / "llm" / "config.json").write_text(json.dumps(llm))
    content = {
        "_class_name": "UniGen",
        "w_und_encoder": True,
        "vocab_size": weights["llm.lm_head.weight"].shape[0],
        "llm_model_path": str(folder / "llm"),
        "codebook_size": weights["llm.lm_head.weight"].shape[0] - TEXT_VOCABULARY - 1,
        "mm_input_dim": weights["mm_projector.0.weight"].shape[1],
        "und_proj_depth": 2,
    }
    released = folder / "unwrapped_model"
    released.mkdir()
    (released / "config.json").write_text(json.dumps(content))
    torch.save(weights, released / "pytorch_model.bin")
    return released


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(params=["released", "saved again"])
def model(case: Path, tmp_path: Path, request: pytest.FixtureRequest) -> UniGen:
    loaded = load_unigen(released_folder(case, tmp_path))
    if request.param == "saved again":
        loaded.save_pretrained(tmp_path / "ours")
        return load_unigen(tmp_path / "ours")
    return loaded


def without_pads(ids: Tensor) -> Tensor:
    return (ids != PAD).nonzero().flatten()


def drawing_document(ids: Tensor) -> Document:
    start = int((ids == START_OF_IMAGE).nonzero()[0])
    block = Visibility.BLOCK
    return Document(
        0,
        (
            text(ids[:start].tolist()),
            text([START_OF_IMAGE], visibility=block),
            codes(len(ids) - start - 2, visibility=block, supervision=Supervision.MASKED),
            text([END_OF_IMAGE], visibility=block),
        ),
    )


def reading_document(ids: Tensor) -> Document:
    start, stop = (int((ids == token).nonzero()[0]) for token in (START_OF_IMAGE, END_OF_IMAGE))
    return Document(
        1,
        (
            text(ids[: start + 1].tolist(), visibility=Visibility.OPEN),
            codes(stop - start - 1, visibility=Visibility.OPEN),
            text([END_OF_IMAGE], visibility=Visibility.OPEN),
            text(ids[stop + 1 :].tolist(), supervision=Supervision.NEXT_TOKEN),
        ),
    )


def layouts(documents: list[Document], packed: bool) -> list[RowLayout]:
    rows = [documents] if packed else [[document] for document in documents]
    length = max(sum(document.length for document in row) for row in rows)
    return [lay_out(row, length) for row in rows]


def visible_of(rows: list[RowLayout]) -> Visible:
    return Visible(
        *(
            torch.stack([torch.from_numpy(getattr(row, name)) for row in rows])
            for name in ("documents_L", "blocks_L", "open_L")
        )
    )


def stacked(rows: list[RowLayout], name: str) -> Tensor:
    return torch.stack([torch.from_numpy(getattr(row, name)) for row in rows])


def run(model: UniGen, rows: list[RowLayout], ids: Tensor, **features: Tensor) -> list[Tensor]:
    """Hidden states of each document, in order, wherever it was packed."""
    with torch.no_grad():
        hidden = model(ids, stacked(rows, "positions_L"), visible_of(rows).dense(), **features)
    return per_document(rows, hidden)


def per_document(rows: list[RowLayout], values: Tensor) -> list[Tensor]:
    found = []
    for row, layout in enumerate(rows):
        numbers = torch.from_numpy(layout.documents_L)
        found += [values[row, numbers == number] for number in range(int(numbers.max()) + 1)]
    return found


def with_codes(rows: list[RowLayout], documents_ids: list[Tensor]) -> Tensor:
    """The golden ids, code slots included, in the places that the layout gave them."""
    ids = stacked(rows, "input_ids_L")
    parts = iter(documents_ids)
    for row, layout in enumerate(rows):
        numbers = torch.from_numpy(layout.documents_L)
        for number in range(int(numbers.max()) + 1):
            ids[row, numbers == number] = next(parts)
    return ids


def assert_visible(rows: list[RowLayout], expected: Tensor, kept: list[Tensor]) -> None:
    masks = visible_of(rows).dense()[:, 0]
    for row in range(len(rows)):
        length = len(kept[row])
        assert torch.equal(masks[row, :length, :length], expected[row].bool()[kept[row]][:, kept[row]])


@pytest.mark.parametrize("packed", [False, True], ids=["one document a row", "packed"])
def test_drawing_rows_give_the_golden_logits_and_loss(case: Path, model: UniGen, packed: bool) -> None:
    golden = load_file(case)
    kept = [without_pads(ids) for ids in golden["t2i.input_ids"]]
    ids = [row[keep] for row, keep in zip(golden["t2i.input_ids"], kept, strict=True)]
    labels = [row[keep] for row, keep in zip(golden["t2i.labels"], kept, strict=True)]
    rows = layouts([drawing_document(row) for row in ids], packed)
    if not packed:
        assert_visible(rows, golden["t2i.visible"], kept)
    hidden = run(model, rows, with_codes(rows, ids))
    image_hidden = torch.stack([states[-golden["t2i.image_logits"].shape[1] - 1 : -1] for states in hidden])
    logits = image_hidden @ model.code_output_embedding_CD.T
    torch.testing.assert_close(logits, golden["t2i.image_logits"], **TOLERANCE)
    image_labels = torch.stack([row[-logits.shape[1] - 1 : -1] for row in labels])
    chosen = image_labels != IGNORED
    weights = torch.full((int(chosen.sum()),), 1 / float(chosen.sum()))
    loss, _ = linear_cross_entropy(image_hidden[chosen], model.output_embedding_VD, image_labels[chosen], weights)
    torch.testing.assert_close(loss.detach(), golden["t2i.loss"][0], **TOLERANCE)


def text_loss(model: UniGen, rows: list[RowLayout], hidden: list[Tensor]) -> Tensor:
    states, targets = torch.cat(hidden), torch.cat(per_document(rows, stacked(rows, "targets_L")))
    chosen = targets != IGNORED
    weights = torch.full((int(chosen.sum()),), 1 / float(chosen.sum()))
    return linear_cross_entropy(states[chosen], model.output_embedding_VD, targets[chosen], weights)[0].detach()


def assert_text_logits(model: UniGen, hidden: list[Tensor], first: int, expected: Tensor) -> None:
    for states, logits in zip(hidden, expected, strict=True):
        found = states[first:] @ model.output_embedding_VD[:TEXT_VOCABULARY].T
        torch.testing.assert_close(found, logits[: len(found)], **TOLERANCE)


@pytest.mark.parametrize("packed", [False, True], ids=["one document a row", "packed"])
def test_reading_rows_over_codes_give_the_golden_logits_and_loss(case: Path, model: UniGen, packed: bool) -> None:
    golden = load_file(case)
    kept = [without_pads(ids) for ids in golden["mmu_vq.input_ids"]]
    ids = [row[keep] for row, keep in zip(golden["mmu_vq.input_ids"], kept, strict=True)]
    rows = layouts([reading_document(row) for row in ids], packed)
    if not packed:
        assert_visible(rows, golden["mmu_vq.visible"], kept)
    hidden = run(model, rows, with_codes(rows, ids))
    after_image = int((ids[0] == END_OF_IMAGE).nonzero()[0])
    assert_text_logits(model, hidden, after_image, golden["mmu_vq.text_logits"])
    torch.testing.assert_close(text_loss(model, rows, hidden), golden["mmu_vq.loss"][0], **TOLERANCE)


def feature_document(prefix: Tensor, suffix: Tensor, labels: Tensor, num_features: int) -> Document:
    first = len(prefix) + num_features
    segments: list[Segment] = [text(prefix.tolist()), features(num_features, visibility=Visibility.OPEN)]
    for offset, token in enumerate(suffix.tolist()):
        is_target = labels[first + offset] != IGNORED
        segments.append(text([token], supervision=Supervision.NEXT_TOKEN if is_target else Supervision.NONE))
    return Document(1, tuple(segments))


@pytest.mark.parametrize("packed", [False, True], ids=["one document a row", "packed"])
def test_reading_rows_over_features_give_the_golden_logits_and_loss(case: Path, model: UniGen, packed: bool) -> None:
    golden = load_file(case)
    seen = golden["mmu_vit.features"]
    prefix_length, num_features = golden["mmu_vit.prefix_ids"].shape[1], seen.shape[1]
    suffixes = [row[without_pads(row)] for row in golden["mmu_vit.suffix_ids"]]
    documents = [
        feature_document(prefix, suffix, labels, num_features)
        for prefix, suffix, labels in zip(golden["mmu_vit.prefix_ids"], suffixes, golden["mmu_vit.labels"], strict=True)
    ]
    rows = layouts(documents, packed)
    if not packed:
        assert_visible(rows, golden["mmu_vit.visible"], [torch.arange(document.length) for document in documents])
    length = rows[0].input_ids_L.shape[0]
    slots = [torch.from_numpy(run + row * length) for row, layout in enumerate(rows) for run in layout.feature_slots]
    hidden = run(
        model, rows, stacked(rows, "input_ids_L"), features_KF=seen.flatten(0, 1), feature_slots_K=torch.cat(slots)
    )
    assert_text_logits(model, hidden, prefix_length + num_features, golden["mmu_vit.text_logits"])
    torch.testing.assert_close(text_loss(model, rows, hidden), golden["mmu_vit.loss"][0], **TOLERANCE)
