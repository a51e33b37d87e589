# SPDX-License-Identifier: Apache-2.0
"""`run.json` of a benchmark's folder; see `unigen.data.manifest`."""

from unigen.data.manifest import MANIFEST_NAME, SCHEMA_VERSION, file_hash, now, open_run, surroundings

__all__ = ["MANIFEST_NAME", "SCHEMA_VERSION", "file_hash", "now", "open_run", "surroundings"]
