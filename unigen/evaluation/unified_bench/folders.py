# SPDX-License-Identifier: Apache-2.0
"""Two folders of images compared: the released result file, and a manifest that says how its numbers came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unigen.config.evaluation import SimilarityEncoderConfig
from unigen.data.json_files import write_json
from unigen.data.manifest import now, surroundings
from unigen.evaluation.unified_bench.encoders import describe_encoder, load_checked_encoder
from unigen.evaluation.unified_bench.likeness import ImagePair, compare_pairs, summarise
from unigen.evaluation.unified_bench.pairing import RULES, Match, images_of, pair_folders
from unigen.rewards.image_encoders.encoder import ImageEncoder


@dataclass(frozen=True)
class FolderComparison:
    """What came out of comparing two folders."""

    matches: Sequence[Match]
    values: Mapping[str, Mapping[str, float | None]]
    """Encoder -> original -> likeness, None where there is none."""
    summary: Mapping[str, Any]
    encoders: Mapping[str, Any]
    failures: list[str] = field(default_factory=list)
    """A line for each original without a partner, and for each pair that could not be compared."""

    def result(self) -> dict[str, dict[str, float | None]]:
        """The release's file: a key an encoder, in it a number a file, then their average, min and max."""
        found = {}
        for name, values in self.values.items():
            valid = [value for value in values.values() if value is not None]
            found[name] = {**values, "average": sum(valid) / len(valid), "min": min(valid), "max": max(valid)}
        return found


def compare_folders(
    originals: Path,
    generated: Path,
    encoders: Mapping[str, SimilarityEncoderConfig],
    *,
    data_root: Path,
    device: str,
    batch_size: int,
) -> FolderComparison:
    """Compare every image of `originals` with its partner, by one encoder after the other.

    Raises:
        EvaluationError: a folder without images, an encoder that is not there or not the right one, or nothing to compare.
        ConfigError: what reads an encoder is not installed.
    """
    matches = pair_folders(originals, generated)
    # All are loaded before any works: the last one's absence should not be news of the last minute.
    loaded = {name: load_checked_encoder(name, choice, data_root, device) for name, choice in encoders.items()}
    failures = {match.name: match.reason for match in matches if match.generated is None}
    values = {name: _values(encoder, matches, batch_size, failures) for name, encoder in loaded.items()}
    valid = {name: {k: v for k, v in found.items() if v is not None} for name, found in values.items()}
    described = {name: describe_encoder(encoder) for name, encoder in loaded.items()}
    lines = [f"{name}: {reason}" for name, reason in failures.items()]
    return FolderComparison(matches, values, summarise(valid), described, lines)


def write_comparison(comparison: FolderComparison, output: Path, originals: Path, generated: Path) -> Path:
    """Write the result file and the manifest beside it; returns the manifest."""
    write_json(comparison.result(), output)
    path = output.with_name(f"{output.stem}.manifest.json")
    matches = comparison.matches
    partners = {match.generated for match in matches}
    content = {
        "results": output.name,
        "originals": str(originals.resolve()),
        "generated": str(generated.resolve()),
        **comparison.summary,
        "encoders": comparison.encoders,
        "num_originals": len(matches),
        "num_compared": {name: sum(v is not None for v in found.values()) for name, found in comparison.values.items()},
        "pairing": {rule: sum(match.rule == rule for match in matches) for rule in RULES},
        "failed": comparison.failures,
        "num_generated_without_original": sum(other not in partners for other in images_of(generated)),
        "written": now(),
        **surroundings(output.parent),
    }
    write_json(content, path)
    return path


def _values(
    encoder: ImageEncoder, matches: Sequence[Match], batch_size: int, failures: dict[str, str]
) -> dict[str, float | None]:
    """The likeness of every original with its partner; `failures` gets the reasons of those that have none."""
    found: dict[str, float | None] = {match.name: None for match in matches}
    pairs = [ImagePair(match.name, match.original, match.generated) for match in matches if match.generated is not None]
    for one in compare_pairs(encoder, pairs, batch_size):
        found[one.pair.name] = one.value
        if one.value is None:
            failures[one.pair.name] = one.reason
    return found
