"""The Delta table's files: opened, checked, read and locked, with errors in words."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import deltalake
import polars as pl
from deltalake.exceptions import DeltaError, TableNotFoundError

from barcast.errors import DataError

_RESTORE = "Restore the folder from its backup, or remove it and ingest again."
# A file this large is not written again when small ones are joined; the smaller bound, for often, spares the disk.
_FULL_BYTES, _OFTEN_BYTES = 16 * 2**20, 256 * 2**10


def opened(path: Path, interval: str, version: int | None = None) -> deltalake.DeltaTable:
    """The table at `path`, at `version` (None: the newest).

    Raises:
        DataError: no table, no such version, or bars of another interval.
    """
    try:
        table = deltalake.DeltaTable(str(path), version=version)
    except TableNotFoundError as error:
        raise DataError(f"There are no bars at {path}.", hint="Run `barcast ingest` first.") from error
    except DeltaError as error:
        raise DataError(
            f"The bar table at {path} has no readable version {version}: {str(error).splitlines()[0]}",
            hint="`barcast bars history` lists the versions.",
        ) from error
    description = table.metadata().description
    if description != f"bars of {interval}":
        raise DataError(
            f"The table at {path} holds {description}, not of {interval}.",
            hint="Use another workspace for another interval.",
        )
    return table


def scan(path: Path, table: deltalake.DeltaTable, *, old: bool = False) -> pl.LazyFrame:
    """The table's rows, lazily.

    Args:
        old: the version was asked for by its number; files that only it needs may have been cleaned away.

    Raises:
        DataError: a data file is gone or has another size than the table's log says.
    """
    for name, size in _files(table).iter_rows():
        if (
            old
            and not (path / unquote(name)).exists()
            and name not in _files(deltalake.DeltaTable(path))["path"]
        ):
            raise DataError(
                f"Version {table.version()} of the bar table at {path} cannot be read any more: files that newer "
                "versions do not need are deleted after a week.",
                hint="Every revision of a bar is kept: read with `as_of` what was known at a time.",
            )
        _checked(path, name, size)
    return pl.scan_delta(table)


def _files(table: deltalake.DeltaTable) -> pl.DataFrame:
    """Path and size of the files that the table's version needs."""
    return pl.DataFrame(table.get_add_actions(flatten=True)).select("path", "size_bytes")


def compact(path: Path, interval: str, *, whole: bool) -> int:
    """See `BarStore.compact`."""
    with locked(path):
        table = opened(path, interval)
        done = table.optimize.compact(target_size=_FULL_BYTES if whole else _OFTEN_BYTES)
        # After a while the log forgets what it removed: the whole look finds those files by their age.
        table.vacuum(dry_run=False, full=whole)
        return int(done["numFilesRemoved"])


def commit_file(path: Path, version: int) -> Path:
    """Where Delta's log keeps the commit that made `version`."""
    return path / "_delta_log" / f"{version:020d}.json"


def commits(path: Path, version: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Version and actions of the commits after `version`, oldest first."""
    while (file := commit_file(path, version + 1)).is_file():
        version += 1
        yield version, [json.loads(line) for line in file.read_text().splitlines()]


def changed_files(path: Path, version: int) -> tuple[int, list[dict[str, Any]]] | None:
    """The present version, and the `add` actions of the files that hold all that changed after `version`.

    None where the log does not tell: the commits were cleaned away, or one corrected what another wrote.
    """
    found = list(commits(path, version))
    # Files that were only joined hold nothing new.
    added, removed = (
        [[a[kind] for a in actions if a.get(kind, {}).get("dataChange")] for _, actions in found]
        for kind in ("add", "remove")
    )
    if not found or (any(removed) and sum(map(bool, added)) > 1):
        return None
    return found[-1][0], [file for files in added for file in files]


def scan_files(path: Path, added: list[dict[str, Any]]) -> pl.LazyFrame:
    """The rows of some of the table's files, lazily, in any order.

    Args:
        added: `add` actions of Delta's log; at least one.

    Raises:
        DataError: as `scan`.
    """
    symbols = {str(_checked(path, a["path"], a["size"])): a["partitionValues"]["symbol"] for a in added}
    rows = pl.scan_parquet(list(symbols), include_file_paths="file", hive_partitioning=False)
    return rows.with_columns(symbol=pl.col("file").replace_strict(symbols, return_dtype=pl.String)).drop(
        "file"
    )


def _checked(path: Path, name: str, size: int) -> Path:
    file = path / unquote(name)
    came = file.stat().st_size if file.exists() else None
    if came != size:
        state = "is missing" if came is None else f"has {came} bytes instead of {size}"
        raise DataError(f"The file {name} of the bar table at {path} {state}.", hint=_RESTORE)
    return file


def collect(path: Path, rows: pl.LazyFrame) -> pl.DataFrame:
    """The rows.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"A file of the bar table at {path} cannot be read: {str(error).splitlines()[0]}", hint=_RESTORE
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time, among threads and processes of machines that share the file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
