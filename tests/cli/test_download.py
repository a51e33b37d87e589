# SPDX-License-Identifier: Apache-2.0
"""`unigen download`: pinned revisions into the README's folders, and plain words where there is no network."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants

from unigen.cli.main import main
from unigen.config.assets import ASSETS
from unigen.config.folders import SHIPPED_CONFIGS

PRETRAIN = """
stage: pretrain
experiment: {{name: check, output_dir: {root}/run}}
data:
  root: {root}
  sources:
    drawing: {{task: t2i, format: webdataset, paths: ["imagenet/train-{{0..3}}.tar"]}}
    text: {{task: lm, format: parquet, paths: [falcon-refinedweb/data]}}
training: {{samples_per_step: {{t2i: 8, lm: 2}}}}
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that answers: the calls to snapshot_download are recorded instead of made."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda self, repository, **options: None)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda repository, **options: calls.append({"repo": repository, **options}),
    )
    return calls


def test_every_asset_of_which_a_commit_is_known_is_pinned_to_it() -> None:
    loose = {asset.name for asset in ASSETS.values() if not re.fullmatch(r"[0-9a-f]{40}", asset.revision or "")}
    assert loose == {"vila-u-7b-256", "UAE", "LongCLIP-L", "stable-diffusion-3.5-large", "stable-diffusion-3.5-medium"}


def test_an_asset_without_a_known_commit_is_fetched_at_the_newest_and_says_so(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = SimpleNamespace(sha="0" * 40)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda self, repository, **options: newest)
    recipe = SHIPPED_CONFIGS.parent / "unifork_0_5b" / "s1_imagenet.yaml"
    assert main(["download", "--config", str(recipe), "--data-root", str(tmp_path)]) == 0
    assert [(call["repo"], call["local_dir"].name) for call in hub] == [
        ("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("mit-han-lab/vila-u-7b-256", "vila-u-7b-256"),
    ]
    assert (hub[1]["revision"], hub[1]["allow_patterns"]) == (newest.sha, ["vision_tower/*"])
    assert "none is pinned" in capsys.readouterr().out


def test_a_name_is_fetched_at_its_revision_into_the_readme_folder(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    assert main(["download", "Qwen2.5-1.5B-Instruct", "--data_root", str(tmp_path)]) == 0
    assert hub[0]["repo"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert hub[0]["revision"] == ASSETS["Qwen2.5-1.5B-Instruct"].revision
    assert hub[0]["local_dir"] == tmp_path / "checkpoints" / "Qwen2.5-1.5B-Instruct"


def test_a_config_brings_what_it_wants_and_names_what_no_hub_has(
    hub: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pretrain.yaml"
    file.write_text(PRETRAIN.format(root=tmp_path / "data"))
    assert main(["download", "--config", str(file)]) == 0
    assert [(call["repo"], call["repo_type"]) for call in hub] == [
        ("Qwen/Qwen2.5-1.5B-Instruct", "model"),
        ("showlab/magvitv2", "model"),
        ("tiiuae/falcon-refinedweb", "dataset"),
    ]
    assert hub[2]["local_dir"] == tmp_path / "data" / "datasets" / "falcon-refinedweb"
    assert "imagenet/train-{0..3}.tar" in capsys.readouterr().err


def test_offline_it_says_what_it_would_have_fetched_and_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    assert main(["download", "magvitv2", "siglip-so400m-patch14-384", "--data-root", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "*.safetensors" in captured.out
    assert str(tmp_path / "checkpoints" / "magvitv2") in captured.out
    assert captured.err.count("HF_HUB_OFFLINE") == 2


def test_without_a_network_a_half_filled_folder_is_not_taken_for_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", unreachable)
    (tmp_path / "checkpoints" / "magvitv2").mkdir(parents=True)
    (tmp_path / "checkpoints" / "magvitv2" / "config.json").write_text("{}")
    assert main(["download", "magvitv2", "--data-root", str(tmp_path)]) == 1
    assert "Name or service not known" in capsys.readouterr().err


def test_a_dry_run_fetches_nothing_and_succeeds(
    hub: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", "magvitv2", "--dry-run", "--data-root", str(tmp_path)]) == 0
    assert hub == []
    assert capsys.readouterr().out.startswith("would fetch showlab/magvitv2")


def test_an_unknown_name_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "magvit"]) == 2
    assert "did you mean magvitv2?" in capsys.readouterr().err


def test_saying_nothing_to_download_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download"]) == 2
    assert "--config" in capsys.readouterr().err
