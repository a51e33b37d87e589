# SPDX-License-Identifier: Apache-2.0
"""Running text in parquet files, read row group by row group."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.local_copies import local_copy
from unigen.data.records import Part, Record, take_part
from unigen.data.sample import RawSample
from unigen.data.shards import expand_files
from unigen.errors import DataError

COLUMN = "content"
WINDOW = 8000
"""Longest piece of a text, in characters; where it begins is drawn."""
_ROWS_AT_ONCE = 256
_FILES_COUNTED = 64
_FILES_PER_LANE = 4


class ParquetTextSource:
    """The rows of the column `content` of one or more local parquet files.

    A shard is a file; where there are few files per lane it is a row group, so that lanes need not share files.
    """

    def __init__(self, name: str, config: SourceConfig, data: DataConfig) -> None:
        self.name = name
        self._num_samples = config.num_samples
        self._data = data
        self._base = Path(data.root) / "datasets"
        self._paths = expand_files(config.paths, data.root, (".parquet",))
        _check_column(self._paths[0])
        self._pieces: list[tuple[Path, int | None]] = [(path, None) for path in self._paths]
        if len(self._paths) < _FILES_PER_LANE * data.lanes:
            self._pieces = [(path, group) for path in self._paths for group in _row_groups(path)]

    @property
    def shards(self) -> Sequence[str]:
        return [str(path) if group is None else f"{path}#{group}" for path, group in self._pieces]

    def num_samples(self) -> int | None:
        """The configured number, else that in the files' footers where they are few."""
        if self._num_samples is not None or len(self._paths) > _FILES_COUNTED:
            return self._num_samples
        try:
            return sum(pyarrow.parquet.read_metadata(path).num_rows for path in self._paths)
        except (OSError, pyarrow.ArrowException):
            return None

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        path, group = self._pieces[shard]
        if part.of > 1:
            return take_part(self._rows(path, group, 0), part, skip)
        return self._rows(path, group, skip)

    def decode(self, record: Record, draws: Draws) -> RawSample:
        text = record.content.strip() if isinstance(record.content, str) else ""
        if not text:
            raise SampleRefused("empty_text")
        if len(text) > WINDOW:
            start = int(draws.generator("window").integers(len(text) - WINDOW + 1))
            text = text[start : start + WINDOW]
        return RawSample(record.key, "lm", text=text)

    def _rows(self, path: Path, only: int | None, skip: int) -> Iterator[Record | Fault]:
        """Row groups that are skipped as a whole are not read."""
        label = str(path.relative_to(self._base)) if path.is_relative_to(self._base) else str(path)
        try:
            with pyarrow.parquet.ParquetFile(local_copy(str(path), self._data), memory_map=True) as file:
                if COLUMN not in file.schema_arrow.names:
                    yield Fault("missing_key", str(path), f"no column '{COLUMN}'")
                    return
                number = 0
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if only in (None, group) and skip < rows:
                        yield from _records(file, group, skip, f"{self.name}/{label}", number)
                    skip = max(0, skip - rows) if only in (None, group) else skip
                    number += rows
        except (OSError, pyarrow.ArrowException) as error:
            yield Fault("unreadable_shard", str(path), " ".join(str(error).split())[:200])


def _records(
    file: pyarrow.parquet.ParquetFile, group: int, skip: int, prefix: str, number: int
) -> Iterator[Record | Fault]:
    """The rows of one group without the first `skip`; `number` is that of its first row in the file."""
    first = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[COLUMN], use_threads=False):
        start = min(len(batch), max(0, skip - first))
        for row, text in enumerate(batch.column(0).slice(start).to_pylist(), first + start):
            yield Record(f"{prefix}/{number + row}", text)
        first += len(batch)


def _row_groups(path: Path) -> Sequence[int | None]:
    try:
        return range(pyarrow.parquet.read_metadata(path).num_row_groups)
    except (OSError, pyarrow.ArrowException):
        return [None]  # reading it will say what is wrong


def _check_column(path: Path) -> None:
    try:
        names = pyarrow.parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException):
        return
    if COLUMN not in names:
        raise DataError(f"{path} has the columns {names}; running text is read from '{COLUMN}'")
