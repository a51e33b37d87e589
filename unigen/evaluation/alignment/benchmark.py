# SPDX-License-Identifier: Apache-2.0
"""Alignment of images and texts inside a model, layer by layer: have an image and its caption the same neighbours?

Both modalities go in alone, and the states of each are pooled over its own positions. A model may take them in by several ways
(its branches, or codes and features): each has a curve of its own. Files: `states/<pair, 5 digits>.safetensors` with
`<way>/text` and `<way>/image`, (layers + 1, width) in float32; place 0 is what goes into the first layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.manifest import open_run
from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.alignment.neighbours import neighbour_weights, overlaps, permuted_alignments
from unigen.evaluation.alignment.pairs import Pair, find_pairs, pairs_hash
from unigen.evaluation.families import UNIFORK, UNIGEN
from unigen.evaluation.items import Item, expand
from unigen.evaluation.job import Job
from unigen.evaluation.records import RecordWriter, read_records
from unigen.evaluation.statistics import clustered, estimate
from unigen.generation.pipeline import in_batches

PAIRS_FOLDER = "evaluation/captioned"
"""Of a world of shapes: scenes that training never shows, with long captions."""
STATES_FOLDER = "states"
NUM_PERMUTATIONS = 20


class Alignment:
    name = "alignment"
    families = frozenset({UNIGEN, UNIFORK})

    def check(self, job: Job) -> None:
        open_run(job.folder, _identity(job, _work(job)[0]), writes=False)

    def run(self, job: Job) -> list[str]:
        pairs, items = _work(job)
        open_run(job.folder, _identity(job, pairs), writes=job.ranks.is_first)
        records = read_records(job.folder)
        pending = [item for item in job.share(items) if not _is_done(job, item, records)]
        failures: list[str] = []
        for batch in in_batches(job.progress(pending, len(pending), self.name), job.options.batch_size):
            failures += _read_batch(job, [(item, pairs[item.index]) for item in batch])
        return failures

    def score(self, job: Job) -> dict[str, Any]:
        _, items = _work(job)
        finished = job.finished(self.name, items)
        states = [load_file(_states_file(job, item)) for item, _ in finished.pairs]
        k, count = job.options.alignment.num_neighbours, len(states)
        rng = np.random.default_rng(job.options.seed)
        ways = {way: score_way(states, way, k, rng) for way in job.pipeline.layer_ways}
        different = len({record["caption"] for _, record in finished.pairs})
        facts = {"k": k, "chance": k / (count - 1), "num_pairs": count, "num_captions": different}
        return {self.name: {**facts, "ways": ways, **finished.mark}}


def score_way(
    states: Sequence[dict[str, np.ndarray]], way: str, k: int, rng: np.random.Generator
) -> dict[str, list[Any]]:
    """The curve of one way: the alignment at each place of the layers with its 95% interval over pairs, and what permuted pairs
    give in the mean and at most."""
    curve: dict[str, list[Any]] = {name: [] for name in ("alignment", "intervals", "permuted", "most_permuted")}
    for place in range(len(states[0][f"{way}/text"])):
        text_NN, image_NN = (
            neighbour_weights(np.stack([one[f"{way}/{kind}"][place] for one in states]), k)
            for kind in ("text", "image")
        )
        found = estimate(clustered(enumerate(overlaps(text_NN, image_NN).tolist())))
        permuted_P = permuted_alignments(text_NN, image_NN, NUM_PERMUTATIONS, rng)
        values = (found.value, found.interval, float(permuted_P.mean()), float(permuted_P.max()))
        for name, value in zip(curve, values, strict=True):
            curve[name].append(value)
    return curve


def _work(job: Job) -> tuple[list[Pair], list[Item]]:
    """The pairs, and an item for each.

    Raises:
        EvaluationError: no pairs, or too few for so many neighbours.
    """
    settings = job.options.alignment
    place = Path(settings.pairs) if settings.pairs else job.options.world / PAIRS_FOLDER
    if not settings.pairs and not place.is_dir():
        raise EvaluationError(
            f"there is no {place}; name images with captions by alignment.pairs=PATH, or a world of shapes by --data "
            "(one that was written before it had pairs is written again by `unigen data shapes`)"
        )
    pairs = find_pairs(place, settings.num_pairs)
    if not 0 < settings.num_neighbours < len(pairs):
        raise EvaluationError(
            f"alignment.num_neighbours is {settings.num_neighbours}, but {place} has {len(pairs)} pairs; give more, or lower it"
        )
    return pairs, expand(Alignment.name, len(pairs), 1, job.options.seed)


def _identity(job: Job, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the states depend on."""
    return job.identity(pairs_hash(pairs), ways=",".join(job.pipeline.layer_ways))


def _read_batch(job: Job, batch: Sequence[tuple[Item, Pair]]) -> list[str]:
    """Write the states and the records of some items; returns one line for each that failed."""
    ready, images, failures = [], [], []
    for item, pair in batch:
        try:
            images.append(decode_image(pair.read_image()))
            ready.append((item, pair))
        except (OSError, SampleRefused) as error:
            failures.append(f"{Alignment.name}, item {item.item_id}: {pair.name}: {error}")
    if not ready:
        return failures
    captions, states = [pair.caption for _, pair in ready], {}
    for way in job.pipeline.layer_ways:
        for kind, inputs in (("text", captions), ("image", images)):
            states[f"{way}/{kind}"] = job.pipeline.layer_states(inputs, way, batch_size=len(ready)).numpy()
    writer = RecordWriter(job.folder, job.ranks.rank)
    for number, (item, pair) in enumerate(ready):
        with whole_file(_states_file(job, item)) as partial:
            save_file({name: np.ascontiguousarray(found[number]) for name, found in states.items()}, partial)
        writer.append(item, {"name": pair.name, "caption": pair.caption, "rank": job.ranks.rank})
    return failures


def _is_done(job: Job, item: Item, records: dict[str, dict[str, Any]]) -> bool:
    return item.item_id in records and _states_file(job, item).is_file()


def _states_file(job: Job, item: Item) -> Path:
    return job.folder / STATES_FOLDER / f"{item.index:05d}.safetensors"
