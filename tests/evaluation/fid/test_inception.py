# SPDX-License-Identifier: Apache-2.0
"""The real extractor with random weights: through the real command, and what is said of weights that are not the right ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.painter import painted
from unigen.cli.main import main
from unigen.errors import EvaluationError
from unigen.evaluation.fid.inception import WEIGHTS_NAME, load_inception

inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="FID needs the extra eval")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the file's own layout."""
    path = tmp_path_factory.mktemp("inception") / WEIGHTS_NAME
    kept: dict[str, Any] = {}

    class Bare(inception.FeatureExtractorInceptionV3):  # type: ignore[misc,name-defined]
        def load_state_dict(self, state_dict: Any, *arguments: Any, **settings: Any) -> None:
            kept.update(self.state_dict())

    torch.manual_seed(0)
    torch.save({}, path)
    Bare("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(kept, path)
    return path


def test_the_command_scores_a_folder_pair(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 0), ("other", 9)):
        (tmp_path / name).mkdir()
        for number in range(3):
            painted(seed + number).save(tmp_path / name / f"{number}.png")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    arguments = ["evaluate", "--benchmarks", "fid", "--images", str(tmp_path / "one"), "--json"]
    arguments += ["--output", str(tmp_path / "out"), f"fid.weights={weights}", f"fid.reference={tmp_path / 'other'}"]
    assert main(arguments) == 2
    assert "should begin with 6726825d" in capsys.readouterr().err
    assert main([*arguments, f"fid.weights_sha256={digest[:8]}"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["fid"]["overall"] > 0
    assert results["fid"]["extractor"]["weights_sha256"] == digest
    assert results["fid"]["extractor"]["library"].startswith("torch-fidelity")
    assert results["manifest"]["model"]["family"] == "images"


def test_features_do_not_depend_on_the_batch(weights: Path) -> None:
    extractor = load_inception(weights, "", "cpu")
    images = [painted(0), painted(1), painted(2).resize((16, 16))]
    together = extractor.features(images)
    assert together.shape == (3, 2048)
    alone = np.concatenate([extractor.features([image]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_absent_and_foreign_weights_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no Inception weights at .*fetch https://github.com/toshas"):
        load_inception(tmp_path / WEIGHTS_NAME, "", "cpu")
    torch.save({"a": torch.zeros(1)}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(EvaluationError, match="holds no Inception weights"):
        load_inception(tmp_path / WEIGHTS_NAME, "", "cpu")


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(EvaluationError, match="holds no Inception weights"):
        load_inception(tmp_path / WEIGHTS_NAME, "", "cpu")
    assert not (tmp_path / "ran").exists()
