# SPDX-License-Identifier: Apache-2.0
"""Opening the entries of `data.sources`, each by its format."""

from unigen.config.schema import TASKS_OF_FORMAT, DataConfig, ModelConfig, SourceConfig
from unigen.data.caption_records import CaptionSource
from unigen.data.class_folders import ClassFolderSource
from unigen.data.codes import CodeSource, code_spec
from unigen.data.conversations import ConversationSource
from unigen.data.image_text import ImageTextSource
from unigen.data.lanes import WeightedSource
from unigen.data.preferences import PreferenceSource
from unigen.data.prompts import PromptSource
from unigen.data.records import Source
from unigen.data.text import ParquetTextSource
from unigen.errors import ConfigError


def open_source(
    name: str, config: SourceConfig, data: DataConfig, seed: int, model: ModelConfig | None = None
) -> Source:
    """The source `data.sources.<name>`.

    Args:
        model: whose image codes the rows hold; codes computed ahead can only be counted without it.

    Raises:
        ConfigError: a task that the format does not serve, or settings that cannot work.
        DataError: files that are not there, or codes that are not the model's.
    """
    served = TASKS_OF_FORMAT[config.format]
    if config.task not in served:
        raise ConfigError(
            f"data.sources.{name}: format {config.format} serves {' and '.join(served)}, not task {config.task}"
        )
    if config.format == "codes":
        return CodeSource(name, config, data, None if model is None else code_spec(model, data, config.task))
    draft_side = _draft_side(config, data, model)
    if config.format == "webdataset":
        return ImageTextSource(name, config, data, draft_side)
    if config.format == "imagefolder":
        return ClassFolderSource(name, config, data, draft_side)
    if config.format == "captions":
        return CaptionSource(name, config, data, seed, draft_side)
    if config.format == "conversations":
        return ConversationSource(name, config, data, seed, draft_side)
    if config.format == "preferences":
        return PreferenceSource(name, config, data, seed, draft_side)
    if config.format == "prompts":
        return PromptSource(name, config, data, seed)
    return ParquetTextSource(name, config, data)


def _draft_side(config: SourceConfig, data: DataConfig, model: ModelConfig | None) -> int | None:
    """How small JPEGs may be decoded; a vision tower's images are always exact."""
    if model is None or data.image_decoding == "exact" or (config.task == "mmu" and model.vision_tower is not None):
        return None
    return model.image_resolution


def open_mixture(data: DataConfig, seed: int, model: ModelConfig | None = None) -> dict[str, list[WeightedSource]]:
    """All sources with a weight above 0, by task.

    Args:
        model: see `open_source`.

    Raises:
        ConfigError, DataError: see `open_source`.
    """
    mixture: dict[str, list[WeightedSource]] = {}
    for name, config in data.sources.items():
        if config.weight > 0:
            source = open_source(name, config, data, seed, model)
            mixture.setdefault(config.task, []).append(WeightedSource(source, config.weight))
    return mixture


def task_sizes(mixture: dict[str, list[WeightedSource]]) -> dict[str, int | None]:
    """Samples of each task, summed over its sources; None where one is not known."""
    sizes: dict[str, int | None] = {}
    for task, sources in mixture.items():
        known = [weighted.source.num_samples() for weighted in sources]
        sizes[task] = None if None in known else sum(size for size in known if size is not None)
    return sizes
