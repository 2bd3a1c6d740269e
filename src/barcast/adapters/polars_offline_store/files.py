"""Parquet files of one Feast FileSource: which there are, their rows by number, and appending to them.

A source is one file, a folder of files, or a pattern. Rows are numbered through all files in the order of
their names, so a later file's row wins where everything else is equal. A join reads the narrow key columns
first and then only those row groups that hold an answer: memory is bounded by the answer and one row group.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource

from barcast.errors import DataError

ROW = "__row"
ROW_GROUP_ROWS = 65_536
_PART = re.compile(r"part-(\d{8})-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True)
class ParquetFiles:
    """The files of a source as they are at one moment; written files never change, so two reads agree."""

    paths: tuple[Path, ...]
    origin: Path

    @classmethod
    def of(cls, source: DataSource | None, repo_path: str | Path | None) -> ParquetFiles:
        """The files behind a FileSource; none where nothing was written yet.

        Raises:
            DataError: the source is not a Parquet FileSource on this machine's disk.
        """
        if not isinstance(source, FileSource):
            raise DataError(
                f"The Polars offline store reads Parquet files, not a {type(source).__name__}.",
                hint="Declare a feast.FileSource with ParquetFormat, or use that source's own offline store.",
            )
        if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
            raise DataError(
                f"Source {source.name!r} is {type(source.file_format).__name__}, expected Parquet.",
                hint="Give file_format=ParquetFormat().",
            )
        origin = Path(FileSource.get_uri_for_file_path(repo_path, source.path))
        if origin.is_dir():
            found = sorted(p for p in origin.rglob("*.parquet") if not p.name.startswith("."))
        elif any(mark in origin.name for mark in "*?["):
            found = sorted(origin.parent.glob(origin.name))
        else:
            found = [origin] if origin.exists() else []
        return cls(tuple(found), origin)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all files together; a column of several files has the type of the newest."""
        fields: dict[str, pa.Field] = {}
        for path in reversed(self.paths):
            for field in pq.read_schema(path).remove_metadata():
                fields.setdefault(field.name, field)
        return pa.schema(list(fields.values()))

    def columns(self) -> list[str]:
        """Column names, those of the newest file first."""
        return list(self.schema.names)

    def scan(self) -> pl.LazyFrame:
        """All rows, lazily, numbered in the column `__row`; a column absent from a file is null there."""
        empty = pl.from_arrow(self.schema.empty_table())
        assert isinstance(empty, pl.DataFrame)
        return pl.scan_parquet(
            list(self.paths),
            row_index_name=ROW,
            schema=empty.schema,
            missing_columns="insert",
            glob=False,
            hive_partitioning=False,
        )

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> pl.DataFrame:
        """The given columns of the rows with these numbers (ascending, unique), in that order.

        One row group at a time is in memory besides the answer; groups without an answer are not read. A
        column that a file lacks is null there; one that no file has is of type Null.
        """
        fields = [self.schema.field(c) if c in self.schema.names else pa.field(c, pa.null()) for c in columns]
        table = pa.concat_tables([pa.schema(fields).empty_table(), *self._taken(rows, fields)])
        taken = pl.from_arrow(table, rechunk=False)
        assert isinstance(taken, pl.DataFrame)
        return taken

    def _taken(self, rows: np.ndarray, fields: Sequence[pa.Field]) -> Iterator[pa.Table]:
        offset = 0
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                metadata = file.metadata
                end = offset + metadata.num_rows
                if np.searchsorted(rows, offset) == np.searchsorted(rows, end):
                    offset = end
                    continue
                present = [f.name for f in fields if f.name in file.schema_arrow.names]
                for group in range(metadata.num_row_groups):
                    end = offset + metadata.row_group(group).num_rows
                    first, last = np.searchsorted(rows, [offset, end])
                    if first < last:
                        table = file.read_row_group(group, columns=present)
                        table = table.take(pa.array(rows[first:last] - offset))
                        columns = [
                            table[f.name].cast(f.type)
                            if f.name in present
                            else pa.nulls(table.num_rows, f.type)
                            for f in fields
                        ]
                        yield pa.table(columns, schema=pa.schema(fields))
                    offset = end


def write(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically: whole under its name, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    plain = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    try:
        pq.write_table(table, part, row_group_size=ROW_GROUP_ROWS, compression="lz4", use_dictionary=plain)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def append(files: ParquetFiles, table: pa.Table) -> None:
    """Add rows: a new file in a folder; a single file is replaced by one that holds old and new rows.

    A folder may gain and lose columns from file to file: what a file lacks reads as null.

    Raises:
        DataError: the source is a pattern, or one file with other columns.
    """
    known = files.schema
    if not files.origin.is_dir() and any(mark in files.origin.name for mark in "*?["):
        raise DataError(
            f"The source {files.origin.name!r} is a pattern; rows cannot be added to it.",
            hint="Give the source a folder.",
        )
    fields = [known.field(f.name) if f.name in known.names else f for f in table.schema.remove_metadata()]
    table = table.cast(pa.schema(fields))
    if files.origin.suffix != ".parquet" or files.origin.is_dir():
        write(files.origin / next_name(files.paths), table)
        return
    missing, extra = set(known.names) - set(table.column_names), set(table.column_names) - set(known.names)
    if files.paths and (missing or extra):
        raise DataError(
            f"The rows do not fit the file {files.origin.name!r}: missing columns {sorted(missing)}, "
            f"unknown columns {sorted(extra)}.",
            hint="Write the same columns, or give the source a folder.",
        )
    old = [pq.read_table(path) for path in files.paths]
    write(files.origin, pa.concat_tables([*old, table.select(known.names) if old else table]))


def next_name(paths: Sequence[Path]) -> str:
    """A file name that sorts after all present ones."""
    numbers = [int(m[1]) for m in (_PART.fullmatch(p.name) for p in paths) if m]
    return f"part-{max(numbers, default=-1) + 1:08d}-{uuid.uuid4().hex[:8]}.parquet"
