# SPDX-License-Identifier: Apache-2.0
"""What `unigen encode` is to do for a configuration: which shards of images become which shards of codes, and who reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from unigen.config.checks import reads_codes, reads_padded
from unigen.config.schema import Config, SourceConfig
from unigen.data.class_folders import templates_of
from unigen.data.codes import SUFFIX, CodeSpec, code_spec
from unigen.data.conversations import CONVERSATIONS
from unigen.data.records import EncodableSource
from unigen.data.shards import scheme_of
from unigen.data.sources import open_source
from unigen.errors import ConfigError

ENCODABLE_FORMATS = ("webdataset", "imagefolder", "captions", "conversations")
"""Formats whose sources are `EncodableSource`s."""


@dataclass(frozen=True)
class EncodingJob:
    """One shard of a source, and the codes that are to be made of it."""

    source: EncodableSource
    shard: int
    """Its number in the source."""
    spec: CodeSpec
    is_padded: bool
    """Whether images are padded to squares instead of cropped."""
    target: Path


@dataclass(frozen=True)
class EncodingPlan:
    """Which shards of images become which shards of codes."""

    jobs_of: dict[str, list[EncodingJob]]
    """By source, in the order of its shards."""

    @property
    def jobs(self) -> list[EncodingJob]:
        """Every job once: tars and classes that several sources read alike are encoded once."""
        return list({job.target: job for jobs in self.jobs_of.values() for job in jobs}.values())


def plan_encoding(config: Config, output: Path) -> EncodingPlan:
    """Find the shards of all sources whose images a configuration reads through codes.

    Raises:
        ConfigError: there is no such source, or a shell command among them.
        DataError, CheckpointError: data or an image tokenizer that is not there.
    """
    wanted = [name for name, source in config.data.sources.items() if _is_encoded(config, source)]
    if not wanted:
        raise ConfigError(
            f"no source of this configuration is of {', '.join(ENCODABLE_FORMATS)} with images that stage {config.stage} reads "
            "through codes; there is nothing to encode"
        )
    return EncodingPlan({name: _jobs(name, config, output) for name in wanted})


def _jobs(name: str, config: Config, output: Path) -> list[EncodingJob]:
    data, settings = config.data, config.data.sources[name]
    source = cast(EncodableSource, open_source(name, settings, data, config.experiment.seed))
    command = next((shard for shard in source.shards if scheme_of(shard) == "pipe"), None)
    if command is not None:
        raise ConfigError(f"'{command}' has no name that its codes could be found by; encode from files or addresses")
    spec, is_padded = code_spec(config.model, data, settings.task), reads_padded(config.model, settings.task)
    ending = f"{'.padded' if is_padded else ''}{SUFFIX}"
    return [
        EncodingJob(source, shard, spec, is_padded, output / (source.code_file(shard) + ending))
        for shard in range(len(source.shards))
    ]


def _is_encoded(config: Config, source: SourceConfig) -> bool:
    return source.format in ENCODABLE_FORMATS and source.weight > 0 and reads_codes(config, source.task)


def coded_config(config: Config, plan: EncodingPlan, lists: Mapping[str, Path]) -> Config:
    """The same configuration, reading the codes; `lists` name the .json list of shards of each source."""
    sources = {
        name: _coded(source, plan.jobs_of[name][0].source, lists[name]) if name in plan.jobs_of else source
        for name, source in config.data.sources.items()
    }
    return replace(config, data=replace(config.data, sources=sources))


def _coded(settings: SourceConfig, source: EncodableSource, shards: Path) -> SourceConfig:
    """Codes keep the words of their samples: what says where words and images lie is not needed any more."""
    coded = replace(settings, format="codes", paths=[str(shards)])
    if settings.format == "webdataset":
        return coded
    return replace(
        coded,
        num_samples=source.num_samples(),
        take=[],
        first_files=None,
        images=None,
        class_names=None,
        class_templates=templates_of(settings) if settings.format == "imagefolder" else None,
        conversations_key=CONVERSATIONS if settings.format == "conversations" else None,
    )
