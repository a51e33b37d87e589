# SPDX-License-Identifier: Apache-2.0
"""Encoders that are not there, or not the right ones, end in an error and never in fewer numbers."""

from pathlib import Path

import pytest

from tests.tiny_encoders import tiny_dinov2
from unigen.config.evaluation import SimilarityEncoderConfig, UnifiedBenchConfig
from unigen.config.folders import weights_hash
from unigen.errors import EvaluationError
from unigen.evaluation.unified_bench.encoders import choose_encoders, describe_encoder, load_checked_encoder


def load(choice: SimilarityEncoderConfig, data_root: Path) -> object:
    return load_checked_encoder("dinov2", choice, data_root, "cpu")


def test_a_missing_encoder_is_an_error_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as error:
        load(SimilarityEncoderConfig(kind="dinov2"), tmp_path)
    assert "the encoder dinov2 cannot be used" in str(error.value)
    assert "unigen download dinov2-large" in str(error.value)
    assert "--models, which gives no overall score" in str(error.value)


def test_weights_are_held_to_the_hash_of_the_settings(data_root: Path) -> None:
    choice = SimilarityEncoderConfig(kind="dinov2", model="tiny-dinov2")
    found = describe_encoder(load_checked_encoder("dinov2", choice, data_root, "cpu"))
    assert (found["kind"], found["preprocessing"]) == ("dinov2", "BitImageProcessorPil")
    given = found["weights"][:8]
    load(SimilarityEncoderConfig(kind="dinov2", model="tiny-dinov2", weights=given.upper()), data_root)
    with pytest.raises(EvaluationError, match="does not begin with 0badc0de"):
        load(SimilarityEncoderConfig(kind="dinov2", model="tiny-dinov2", weights="0badc0de"), data_root)


def test_a_folder_that_is_called_like_the_published_model_must_hold_its_weights(tmp_path: Path) -> None:
    tiny_dinov2(tmp_path / "checkpoints" / "dinov2-large")
    with pytest.raises(EvaluationError, match=r"dinov2-large/model.safetensors is not the published one .*399fba97"):
        load(SimilarityEncoderConfig(kind="dinov2"), tmp_path)


def test_the_description_of_a_public_model_names_its_repository_and_revision(tmp_path: Path) -> None:
    folder = tiny_dinov2(tmp_path / "dinov2-large")
    weights = weights_hash(folder)[:8]
    choice = SimilarityEncoderConfig(kind="dinov2", model=str(folder), weights=weights)
    found = describe_encoder(load_checked_encoder("dinov2", choice, tmp_path, "cpu"))
    assert found["origin"]["repository"] == "facebook/dinov2-large"
    assert len(found["origin"]["revision"]) == 40


def test_encoders_are_chosen_by_name() -> None:
    known = UnifiedBenchConfig().encoders
    assert list(choose_encoders(["dinov3", "clip"], known)) == ["dinov3", "clip"]
    with pytest.raises(EvaluationError, match=r"no encoder 'dino'.*choose from clip, longclip, dinov2, dinov3"):
        choose_encoders(["clip", "dino"], known)
    with pytest.raises(EvaluationError, match="name at least one encoder"):
        choose_encoders([], known)
