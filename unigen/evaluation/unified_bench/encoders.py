# SPDX-License-Identifier: Apache-2.0
"""The encoders by which Unified-Bench compares images: chosen by name, all there or an error, their weights known by hash."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.config.assets import ASSETS
from unigen.config.evaluation import UNIFIED_BENCH_METRICS, SimilarityEncoderConfig
from unigen.config.policy import PUBLISHED_ENCODERS
from unigen.data.manifest import file_hash
from unigen.errors import CheckpointError, EvaluationError
from unigen.rewards.image_encoders.encoder import ImageEncoder
from unigen.rewards.image_encoders.loading import load_encoder


def choose_encoders(
    names: Sequence[str], known: Mapping[str, SimilarityEncoderConfig]
) -> dict[str, SimilarityEncoderConfig]:
    """The encoders of these names, in order.

    Raises:
        EvaluationError: an unknown name, or none.
    """
    for name in names:
        if name not in known:
            raise EvaluationError(f"there is no encoder {name!r} to compare images by; choose from {', '.join(known)}")
    if not names:
        raise EvaluationError(f"name at least one encoder to compare images by, out of {', '.join(known)}")
    return {name: known[name] for name in names}


def has_overall(names: Sequence[str]) -> bool:
    """Whether these are the four whose mean is the overall score."""
    return set(names) == set(UNIFIED_BENCH_METRICS)


def load_checked_encoder(name: str, choice: SimilarityEncoderConfig, data_root: Path, device: str) -> ImageEncoder:
    """An encoder whose weights are those that they should be, as far as that is known.

    Raises:
        EvaluationError: it is not there, not whole, or has other weights.
        ConfigError: what reads it is not installed.
    """
    try:
        encoder = load_encoder(choice.kind, choice.model, data_root, device)
    except CheckpointError as error:
        raise EvaluationError(
            f"the encoder {name} cannot be used: {error}; {_how_to_get(choice)}or compare by fewer with --models, "
            "which gives no overall score"
        ) from error
    _check_weights(name, choice, encoder)
    return encoder


def describe_encoder(encoder: ImageEncoder) -> dict[str, Any]:
    """What a manifest says of it: hash, preprocessing and origin."""
    return {**encoder.identity, **origin_of(encoder)}


def origin_of(encoder: ImageEncoder) -> dict[str, Any]:
    """Where a folder that is called like a public one is fetched from, and the revision that is pinned; None where none is."""
    asset = ASSETS.get(encoder.folder.name)
    return {"origin": {"repository": asset.repository, "revision": asset.revision} if asset is not None else None}


def _check_weights(name: str, choice: SimilarityEncoderConfig, encoder: ImageEncoder) -> None:
    """Compare the weights with the hash that the settings give, or else with that of the public files."""
    folder = encoder.folder
    if choice.weights is not None:
        found = encoder.identity["weights"]
        if not found.startswith(choice.weights.lower()):
            raise EvaluationError(
                f"the encoder {name}: the hash of the weights in {folder} is {found} and does not begin with "
                f"{choice.weights}; fetch them again, or set its `weights` to what they should be"
            )
        return
    asset = ASSETS.get(folder.name)
    for file, digest in asset.sha256.items() if asset is not None else ():
        found = file_hash(folder / file) if (folder / file).is_file() else "absent"
        if found != digest:
            raise EvaluationError(
                f"the encoder {name}: {folder / file} is not the published one (SHA-256 {found}, not {digest}); fetch it "
                "again, or set its `weights` to what they should be"
            )


def _how_to_get(choice: SimilarityEncoderConfig) -> str:
    published = PUBLISHED_ENCODERS[choice.kind]
    return f"name its folder, fetch it by `unigen download {published}`, " if choice.model is None else ""
