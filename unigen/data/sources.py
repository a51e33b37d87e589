# SPDX-License-Identifier: Apache-2.0
"""Opening the entries of `data.sources`, each by its format."""

from unigen.config.schema import TASKS_OF_FORMAT, DataConfig, SourceConfig
from unigen.data.conversations import ConversationSource
from unigen.data.image_text import ImageTextSource
from unigen.data.lanes import WeightedSource
from unigen.data.records import Source
from unigen.data.text import ParquetTextSource
from unigen.errors import ConfigError


def open_source(name: str, config: SourceConfig, data: DataConfig, seed: int) -> Source:
    """The source `data.sources.<name>`.

    Raises:
        ConfigError: a task that the format does not serve, or settings that cannot work.
        DataError: files that are not there.
    """
    served = TASKS_OF_FORMAT[config.format]
    if config.task not in served:
        raise ConfigError(
            f"data.sources.{name}: format {config.format} serves {' and '.join(served)}, not task {config.task}"
        )
    if config.format == "webdataset":
        return ImageTextSource(name, config, data)
    if config.format == "conversations":
        return ConversationSource(name, config, data, seed)
    return ParquetTextSource(name, config, data)


def open_mixture(data: DataConfig, seed: int) -> dict[str, list[WeightedSource]]:
    """All sources with a weight above 0, by task.

    Raises:
        ConfigError, DataError: see `open_source`.
    """
    mixture: dict[str, list[WeightedSource]] = {}
    for name, config in data.sources.items():
        if config.weight > 0:
            source = open_source(name, config, data, seed)
            mixture.setdefault(config.task, []).append(WeightedSource(source, config.weight))
    return mixture


def task_sizes(mixture: dict[str, list[WeightedSource]]) -> dict[str, int | None]:
    """Samples of each task, summed over its sources; None where one is not known."""
    sizes: dict[str, int | None] = {}
    for task, sources in mixture.items():
        known = [weighted.source.num_samples() for weighted in sources]
        sizes[task] = None if None in known else sum(size for size in known if size is not None)
    return sizes
