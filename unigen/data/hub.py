# SPDX-License-Identifier: Apache-2.0
"""Fetching known assets from the Hugging Face hub into `<data.root>`, each at its pinned revision where it has one."""

from pathlib import Path

from unigen.config.assets import Asset
from unigen.errors import DataError


def fetch(asset: Asset, root: Path) -> Path:
    """Download `asset` under `root`; what is there already is kept, an interrupted download goes on where it stopped.

    Raises:
        DataError: no network or offline mode, a gated or absent repository, or a full disk.
    """
    # Imported here: listing what would be fetched needs none of it.
    import httpx2
    from huggingface_hub import HfApi, constants, snapshot_download

    folder = root / asset.place
    if constants.is_offline_mode():
        raise DataError(f"{asset.name} is not fetched: HF_HUB_OFFLINE is set; unset it where there is a network")
    try:
        # Asked first: without a network snapshot_download hands back a half-filled folder as if it were whole.
        found = HfApi().repo_info(asset.repository, repo_type=asset.kind, revision=asset.revision)
        snapshot_download(
            asset.repository,
            repo_type=asset.kind,
            revision=asset.revision or found.sha,
            local_dir=folder,
            allow_patterns=list(asset.patterns) or None,
        )
    except (httpx2.HTTPError, OSError) as error:
        raise DataError(f"{asset.name} is not fetched: {_first_line(error)}; see {asset.page}") from error
    return folder


def describe(asset: Asset, root: Path) -> str:
    """One line: which files of which revision go where, under which licence."""
    files = " ".join(asset.patterns) or "all files"
    revision = asset.revision or "the newest, none is pinned"
    return (
        f"{asset.repository} ({asset.kind}, revision {revision}, licence: {asset.licence}, {asset.page}): "
        f"{files} -> {root / asset.place}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
