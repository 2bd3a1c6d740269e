"""The bar store: one Delta Lake table per workspace, partitioned by symbol.

A row is one revision of one bar. The bar in force is the revision that nothing superseded; a late or
corrected bar supersedes the earlier one in the same atomic commit, and the earlier one stays for `as_of`.
Gaps are reported, never filled. Appending is idempotent, and the order and duplication of batches change
nothing as long as each revision carries its own `created_timestamp`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
from deltalake.exceptions import CommitFailedError, DeltaError

from barcast import clock, intervals, logs
from barcast.bars import calendars, table
from barcast.bars.calendar import GAPS
from barcast.bars.revisions import REVISIONS, first_known, plan
from barcast.bars.schema import BARS, KEY, check, conform, content_hash, empty
from barcast.errors import DataError, did_you_mean

_ATTEMPTS = 8
log = logs.get("bars.store")


@dataclass(frozen=True)
class AppendReport:
    """What one append did.

    Attributes:
        added: bars that were not there.
        replaced: bars whose values in force changed; the earlier revision is kept.
        unchanged: bars that were there with the same values, or whose later revision stays in force.
        late: of the added, bars that close before a bar of their symbol that was already there.
        gaps: expected bars missing around the appended ones (`Calendar.gaps`); empty without a calendar.
        version: the table's version afterwards.
    """

    added: int
    replaced: int
    unchanged: int
    late: int
    version: int
    gaps: pl.DataFrame = field(default_factory=GAPS.to_frame)

    def summary(self) -> dict[str, int]:
        """Counts for logs and reports."""
        counts = {k: v for k, v in asdict(self).items() if isinstance(v, int)}
        return {**counts, "missing_bars": int(self.gaps["missing_bars"].sum())}


class BarStore:
    """Bars of one interval in a Delta table.

    Args:
        path: the table's folder; made by the first append.
        interval: length of a bar; a table of another interval is refused.
        calendar: the symbols' `Calendar`, or a function that gives each one's, for the gaps of an append.
    """

    def __init__(
        self, path: str | Path, interval: str, *, calendar: calendars.Calendars | None = None
    ) -> None:
        self.path = Path(path)
        self.interval = interval
        self.calendar = calendar
        self._step = intervals.parse(interval)
        self._last: tuple[int, dict[str, datetime]] | None = None

    @property
    def exists(self) -> bool:
        return deltalake.DeltaTable.is_deltatable(str(self.path))

    @property
    def version(self) -> int:
        """The table's present version; -1 before the first append."""
        return self._open().version() if self.exists else -1

    def stands_at(self, version: int) -> bool:
        """Whether `version` is the present one: a look at two file names, where opening the table takes milliseconds.

        False too where old commits were cleaned away; `version` then tells.
        """
        if version < 0:
            return not self.exists
        return (
            table.commit_file(self.path, version).is_file()
            and not table.commit_file(self.path, version + 1).exists()
        )

    def append(self, frame: pl.DataFrame, *, origin: str = "") -> AppendReport:
        """Merge bars into the table, atomically.

        Args:
            frame: bars (`BARS`); `created_timestamp` orders revisions. A changed bar with the
                `created_timestamp` of the stored one counts as known now.
            origin: where the bars came from; kept with the version (`history`).

        Raises:
            DataError: a bar breaks a row rule or closes in the future, a key occurs twice, the interval
                differs, or the disk refuses. The table is then as it was.
        """
        bars = conform(frame, origin=origin or "the batch")
        now = clock.now()
        check(bars, as_of=now, origin=origin or "the batch")
        self._check_spacing(bars)
        if bars.height == 0:
            return AppendReport(0, 0, 0, 0, self.version)
        for attempt in range(_ATTEMPTS):
            try:
                with table.locked(self.path):
                    return self._append(bars, origin, now)
            except CommitFailedError as error:  # another writer, on a file system without locks
                log.info(
                    "append conflicts with another writer, trying again", attempt=attempt, error=str(error)
                )
                time.sleep(0.05 * 2**attempt)
            except (DeltaError, OSError) as error:
                raise DataError(
                    f"The bar table at {self.path} cannot be written: {str(error).splitlines()[0]}",
                    hint="Check free space and rights; the table is as it was before.",
                ) from error
        raise DataError(
            f"The bar table at {self.path} was changed by other writers during {_ATTEMPTS} attempts.",
            hint="Try again, or let one process append.",
        )

    def _append(self, bars: pl.DataFrame, origin: str, now: datetime) -> AppendReport:
        first_write = not self.exists
        symbols = bars["symbol"].unique().sort().to_list()
        last = {} if first_write else self._last_known()
        known = pl.DataFrame(list(last.items()), {name: BARS[name] for name in KEY}, orient="row").filter(
            pl.col("symbol").is_in(symbols)
        )
        # Bars after all that their symbols have, as a feed brings them, meet nothing in the table: it is not read.
        meets = bars.join(known, on="symbol", suffix="_last").filter(
            pl.col("event_timestamp") <= pl.col("event_timestamp_last")
        )
        stored = self._overlapping(bars, symbols) if meets.height else REVISIONS.to_frame()
        change = plan(stored, bars, now)
        late = sum(
            1
            for s, t in change.added.select("symbol", "event_timestamp").iter_rows()
            if s in last and t < last[s]
        )
        counts = {
            "added": change.added.height,
            "replaced": change.replaced,
            "unchanged": change.unchanged,
            "late": late,
        }
        if change.operations.height:
            self._write(change.operations, first_write, {**counts, "origin": origin})
        version = self.version
        newest = bars.group_by("symbol").agg(pl.col("event_timestamp").max()).iter_rows()
        self._last = version, last | {s: max(t, last.get(s, t)) for s, t in newest}
        gaps = self._gaps(bars, symbols, None if meets.height else known)
        report = AppendReport(**counts, version=version, gaps=gaps)
        log.info("bars appended", path=str(self.path), **report.summary())
        return report

    def _write(self, operations: pl.DataFrame, first_write: bool, notes: dict[str, Any]) -> None:
        properties = deltalake.CommitProperties(
            custom_metadata={f"barcast.{k}": str(v) for k, v in notes.items()}
        )
        if first_write or (operations["op"] == "insert").all():
            deltalake.write_deltalake(
                str(self.path),
                operations.drop("op"),
                mode="append",
                partition_by=["symbol"],
                description=f"bars of {self.interval}",
                commit_properties=properties,
            )
            return
        delta = self._open()
        names = ", ".join("'" + s.replace("'", "''") + "'" for s in operations["symbol"].unique())
        values = {name: f"s.{name}" for name in REVISIONS.names()}
        (
            delta.merge(
                operations,
                f"t.symbol in ({names}) AND t.symbol = s.symbol AND t.event_timestamp = s.event_timestamp"
                " AND t.created_timestamp = s.created_timestamp",
                source_alias="s",
                target_alias="t",
                commit_properties=properties,
            )
            .when_matched_delete("s.op = 'delete'")
            .when_matched_update({"superseded_timestamp": "s.superseded_timestamp"}, "s.op = 'update'")
            .when_not_matched_insert(values, "s.op = 'insert'")
            .execute()
        )

    def read(
        self,
        symbols: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """Bars that close in start < t <= end, sorted by symbol and time.

        A bar whose factors alone were restated (a split, a dividend) keeps the `created_timestamp` at which its prices
        as traded were known: it did not come late.

        Args:
            symbols: None for all.
            as_of: only what was known then: revisions created by `as_of`, in the state
                before later corrections.
            version: the table as it was at that version.

        Raises:
            DataError: no table, no such version, an unknown symbol, a damaged file, or a time without a zone.
        """
        for name, moment in (("start", start), ("end", end), ("as_of", as_of)):
            if moment is not None and moment.tzinfo is None:
                raise DataError(f"{name} is {moment} without a time zone.", hint="Add tzinfo=UTC.")
        rows = self._scan(version)
        if symbols is not None:
            self._known(symbols, version)
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        if start is not None:
            rows = rows.filter(pl.col("event_timestamp") > start)
        if end is not None:
            rows = rows.filter(pl.col("event_timestamp") <= end)
        superseded = pl.col("superseded_timestamp")
        if as_of is None:
            in_force = rows.filter(superseded.is_null())
        else:
            rows = rows.filter(pl.col("created_timestamp") <= as_of)
            in_force = rows.filter(superseded.is_null() | (superseded > as_of))
        bars = self._collect(in_force.select(BARS.names()).sort("symbol", "event_timestamp"))
        return first_known(bars, self._collect(rows.filter(superseded.is_not_null()).select(BARS.names())))

    def latest(self, symbols: Sequence[str] | None = None, num_bars: int = 1) -> pl.DataFrame:
        """The last `num_bars` bars in force of each symbol, sorted by symbol and time."""
        rows = self._scan(None).filter(pl.col("superseded_timestamp").is_null())
        if symbols is not None:
            self._known(symbols, None)
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        newest = rows.select(BARS.names()).sort("symbol", "event_timestamp").group_by("symbol").tail(num_bars)
        return self._collect(newest.sort("symbol", "event_timestamp"))

    def corrections(self, symbols: Sequence[str] | None = None) -> pl.DataFrame:
        """Revisions that are no longer in force: `BARS` and superseded_timestamp, when each was replaced."""
        rows = self._scan(None).filter(pl.col("superseded_timestamp").is_not_null())
        if symbols is not None:
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        return self._collect(rows.sort("symbol", "event_timestamp", "created_timestamp"))

    def symbols(self, version: int | None = None) -> list[str]:
        """The symbols that have bars, sorted."""
        return sorted({str(p["symbol"]) for p in self._open(version).partitions()}) if self.exists else []

    def last_timestamps(self, symbols: Sequence[str] | None = None) -> dict[str, datetime]:
        """The close of each symbol's last bar in force."""
        if not self.exists:
            return {}
        rows = self._scan(None).filter(pl.col("superseded_timestamp").is_null())
        if symbols is not None:
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        found = self._collect(rows.group_by("symbol").agg(pl.col("event_timestamp").max()))
        return dict(found.iter_rows())

    def content_hash(self, symbols: Sequence[str] | None = None, version: int | None = None) -> str:
        """SHA-256 of the bars in force: equal bars, equal hash, however they were written."""
        return content_hash(self.read(symbols, version=version) if self.exists else empty())

    def history(self) -> list[dict[str, Any]]:
        """Lineage, newest first: per version its time (UTC), operation, origin and the append's counts."""
        if not self.exists:
            return []
        entries = []
        for item in self._open().history():
            notes = {k.removeprefix("barcast."): v for k, v in item.items() if k.startswith("barcast.")}
            moment = datetime.fromtimestamp(item["timestamp"] / 1000, tz=clock.now().tzinfo)
            entries.append(
                {"version": item.get("version"), "time": moment, "operation": item.get("operation"), **notes}
            )
        return entries

    def commits_after(self, version: int) -> list[dict[str, Any]]:
        """Version, origin and counts of the commits after `version`, oldest first.

        Looks for the next commit's file only, so that asking at every close costs nothing when there is none.
        """
        found = []
        for number, actions in table.commits(self.path, version):
            info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
            notes = {k.removeprefix("barcast."): v for k, v in info.items() if k.startswith("barcast.")}
            found.append({"version": number, **notes})
        return found

    def changed_after(self, version: int) -> tuple[int, pl.DataFrame] | None:
        """The present version, and bars in force (`BARS`) that hold all that changed after `version`.

        Only the files that those commits wrote are read; a correction writes the files anew in which it changes a bar.
        None where that does not tell: the commits were cleaned away, or one corrected what another wrote.

        Raises:
            DataError: a data file is gone or damaged.
        """
        changed = table.changed_files(self.path, version)
        if changed is None:
            return None
        present, files = changed
        if not files:
            return present, empty()
        rows = table.scan_files(self.path, files).filter(pl.col("superseded_timestamp").is_null())
        return present, self._collect(rows.select(BARS.names()))

    def compact(self, *, whole: bool = True) -> int:
        """Join the small files of many appends. Returns the files that the newest version needs no more.

        Earlier versions stay readable for a week (Delta's own retention); what only older ones need is deleted. `as_of`
        needs no earlier version: every revision of a bar is in the newest.

        Args:
            whole: also join what was joined before, up to files that are quick to read, and look through the folder for
                old files that the log no longer names.
        """
        return table.compact(self.path, self.interval, whole=whole)

    def _last_known(self) -> dict[str, datetime]:
        """As `last_timestamps`, remembered for as long as nobody else writes."""
        if self._last is None or not self.stands_at(self._last[0]):
            self._last = self.version, self.last_timestamps()
        return self._last[1]

    def _overlapping(self, bars: pl.DataFrame, symbols: list[str]) -> pl.DataFrame:
        rows = self._scan(None).filter(
            pl.col("symbol").is_in(symbols),
            pl.col("event_timestamp").is_between(
                bars["event_timestamp"].min(), bars["event_timestamp"].max()
            ),
        )
        return self._collect(rows).join(bars, on=["symbol", "event_timestamp"], how="semi")

    def _gaps(self, bars: pl.DataFrame, symbols: list[str], known: pl.DataFrame | None) -> pl.DataFrame:
        """Gaps around the appended bars; `known` are the last ones before, where all came after them."""
        if self.calendar is None:
            return GAPS.to_frame()
        if known is not None:
            times = pl.concat([known, bars.select(KEY)])
        else:
            rows = self._scan(None).filter(
                pl.col("superseded_timestamp").is_null(), pl.col("symbol").is_in(symbols)
            )
            times = self._collect(rows.select(KEY))
        span = bars.group_by("symbol").agg(
            first=pl.col("event_timestamp").min(), last=pl.col("event_timestamp").max()
        )
        near = times.join(span, on="symbol")
        previous = (
            pl.col("event_timestamp").filter(pl.col("event_timestamp") < pl.col("first")).max().over("symbol")
        )
        following = (
            pl.col("event_timestamp").filter(pl.col("event_timestamp") > pl.col("last")).min().over("symbol")
        )
        near = near.with_columns(
            first=pl.coalesce(previous, "first"), last=pl.coalesce(following, "last")
        ).filter(pl.col("event_timestamp").is_between(pl.col("first"), pl.col("last")))
        return calendars.gaps(near.sort("symbol", "event_timestamp"), self.interval, self.calendar)

    def _check_spacing(self, bars: pl.DataFrame) -> None:
        # By their opens, where the calendar tells them: the last bar of a session may close soon after the one before.
        opened = bars["event_timestamp"]
        if self.calendar is not None and intervals.is_intraday(self.interval):
            opened = calendars.bar_opens(bars, self.interval, self.calendar)
        seconds = bars.select("symbol", opened).select(
            pl.col(opened.name).diff().over("symbol").dt.total_seconds()
        )
        typical = float(seconds.to_series().drop_nulls().median() or self._step.total_seconds())  # type: ignore[arg-type]
        if typical * 2 <= self._step.total_seconds():
            raise DataError(
                f"Bars about {typical:.0f} s apart do not belong in a table of {self.interval} bars"
                f" ({self.path}).",
                hint="Use a workspace with their interval.",
            )

    def _known(self, symbols: Sequence[str], version: int | None) -> None:
        known = self.symbols(version)
        for symbol in symbols:
            if symbol not in known:
                raise DataError(
                    f"There are no bars of {symbol!r} in {self.path}.",
                    hint=did_you_mean(symbol, known) or "Ingest it first: barcast ingest.",
                )

    def _open(self, version: int | None = None) -> deltalake.DeltaTable:
        return table.opened(self.path, self.interval, version)

    def _scan(self, version: int | None) -> pl.LazyFrame:
        return table.scan(self.path, self._open(version), old=version is not None)

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        return table.collect(self.path, rows)
