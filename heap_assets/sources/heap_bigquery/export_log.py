"""The stored state of Heap's export: a fingerprint of each day of each table, and when it last changed.

Views have no time of arrival. A look reads the days from the last sync less an overlap, and at longer intervals much
further back; days whose fingerprint differs have late rows, or a user_id that changed in place (heap.md 3.3).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.errors import HeapAssetsError
from heap_assets.redaction import redact_error
from heap_assets.sources.heap_bigquery.export import OVERLAP, HeapExport, changed_days
from heap_assets.sources.warehouse import FINGERPRINT_SCHEME
from heap_assets.storage import Store, state_keys

_log = logging.getLogger("heap_assets.exports")

_STATE = "state"
_LONGEST_PAUSE = timedelta(hours=6)


@dataclass(frozen=True)
class LookBack:
    """How many days before the last sync a comparison reads: `overlap` each time, `deep` once every `deep_every`."""

    overlap: timedelta = OVERLAP
    deep: timedelta = timedelta(days=90)
    deep_every: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class DayState:
    """The row count and fingerprint of a day at the last comparison, and when (UTC) they last changed."""

    rows: int
    fingerprint: int
    since: datetime


@dataclass(frozen=True)
class TableState:
    """The state of a table's days at the last comparison; `failure` is why the newest comparison could not read it.

    `scheme`: how the days' fingerprints were computed; those of different schemes are not comparable.
    """

    days: Mapping[date, DayState] = field(default_factory=dict)
    synced_to: datetime | None = None
    looked_at: datetime | None = None
    looked_deep_at: datetime | None = None
    failure: str | None = None
    scheme: int = FINGERPRINT_SCHEME


@dataclass(frozen=True)
class ExportState:
    """The export's version at the last comparison, and the number of comparisons that failed since."""

    version: str | None = None
    failed_looks: int = 0
    failed_at: datetime | None = None

    def may_try(self, now: datetime) -> bool:
        """Whether a failed comparison may be retried: exponential back-off from one minute up to six hours."""
        if self.failed_at is None or not self.failed_looks:
            return True
        pause = timedelta(minutes=2 ** min(self.failed_looks - 1, 12))
        return now >= self.failed_at + min(pause, _LONGEST_PAUSE)


@dataclass(frozen=True)
class TableLook:
    """The result of comparing one table with its stored fingerprints."""

    table: str
    changed: tuple[date, ...] = ()
    since: date | None = None
    rows: int = 0
    bytes_billed: int = 0
    skipped: bool = False
    failure: str | None = None


@dataclass(frozen=True)
class ExportLog:
    """The log of one dataset, in the lake's store below `_exports/`.

    State of a dataset of this name in another `project` is ignored.
    """

    store: Store
    dataset: str
    project: str | None = None

    def state(self) -> ExportState:
        record = self._load(_STATE)
        return ExportState(record.get("version"), int(record.get("failed_looks", 0)), _moment(record.get("failed_at")))

    def tables(self) -> list[str]:
        """Return the tables that were ever compared."""
        prefix = f"{state_keys.EXPORTS}/{self.dataset}/tables/"
        return [info.key.removeprefix(prefix).removesuffix(".json") for info in self.store.list(prefix)]

    def table(self, name: str) -> TableState:
        record = self._load(f"tables/{name}")
        days = {
            date.fromisoformat(day): DayState(rows, fingerprint, datetime.fromisoformat(since))
            for day, (rows, fingerprint, since) in record.get("days", {}).items()
        }
        return TableState(
            days,
            synced_to=_moment(record.get("synced_to")),
            looked_at=_moment(record.get("looked_at")),
            looked_deep_at=_moment(record.get("looked_deep_at")),
            failure=record.get("failure"),
            scheme=record.get("scheme", 1 if days else FINGERPRINT_SCHEME),
        )

    def inspect(
        self,
        export: HeapExport,
        tables: Iterable[str],
        start: date,
        now: datetime,
        version: str,
        back: LookBack = LookBack(),
        since: date | None = None,
    ) -> list[TableLook]:
        """Fingerprint the tables, store the result, and return what has changed. One bad table stops no other.

        Parameters
        ----------
        start
            Days before it, and those after today, are not read.
        version
            Of the export before this look.
        since
            Read every table from this day on, whatever was synced.
        """
        synced = export.synced_to()
        looks = [self._look(export, name, start, now, back, since, synced.get(name)) for name in tables]
        before, failed = self.state(), any(look.failure for look in looks)
        count = before.failed_looks + 1 if failed else 0
        state = ExportState(before.version if failed else version, count, now if failed else None)
        self._save(_STATE, asdict(state))
        return looks

    def _look(
        self,
        export: HeapExport,
        name: str,
        start: date,
        now: datetime,
        back: LookBack,
        requested: date | None,
        synced_to: datetime | None,
    ) -> TableLook:
        state = self.table(name)
        is_outdated = state.scheme != FINGERPRINT_SCHEME
        if is_outdated:
            _log.warning("%s: its days are fingerprinted in a new way: those looked at are built once more", name)
        is_deep_due = state.looked_deep_at is None or now - state.looked_deep_at >= back.deep_every
        deep = requested is None and (is_deep_due or is_outdated)
        idle = synced_to is not None and synced_to == state.synced_to and state.failure is None
        if idle and not deep and requested is None:
            return TableLook(name, skipped=True)
        if requested is None and state.looked_at is not None:  # all days of a table that was never read
            behind = back.deep if deep else back.overlap
            requested = (min(now, state.synced_to or state.looked_at) - behind).date()
        since = max(start, requested or date.min)
        try:
            fingerprints = export.fingerprints(name, since)
        except Exception as error:  # whatever is wrong with one table stops that table
            failure = str(error) if isinstance(error, HeapAssetsError) else f"{name}: {redact_error(error)}"
            _log.error("%s could not be looked at: %s", name, failure)
            self._save_table(name, state, failure=failure)
            return TableLook(name, since=since, failure=failure)
        days = fingerprints.days.filter(pl.col("day").is_between(since, now.date()))
        changed = changed_days(_frame(state), days, since)
        looked_deep_at = now if deep else state.looked_deep_at
        merged = _merged(state, days, changed, since, now)
        self._save_table(name, TableState(merged, synced_to, now, looked_deep_at))
        billed = fingerprints.reading.bytes_billed or 0
        return TableLook(name, tuple(changed), since, int(days["rows"].sum()), billed)

    def _save_table(self, name: str, state: TableState, failure: str | None = None) -> None:
        days = {str(day): [d.rows, d.fingerprint, d.since.isoformat()] for day, d in sorted(state.days.items())}
        self._save(f"tables/{name}", {**asdict(state), "days": days, "failure": failure})

    def _load(self, name: str) -> dict[str, Any]:
        """Return a record; a damaged one is ignored, so that the table is read as one never read before."""
        key = f"{state_keys.EXPORTS}/{self.dataset}/{name}.json"
        try:
            record = json.loads(self.store.read(key))
        except FileNotFoundError:
            return {}
        except ValueError:
            record = None
        if not isinstance(record, dict):
            _log.warning("%s is damaged: what it tells of is looked at anew", self.store.uri(key))
            return {}
        if record.get("project", self.project) != self.project:
            _log.warning("%s is of project %s: what it tells of is looked at anew", key, record["project"])
            return {}
        return record

    def _save(self, name: str, document: Mapping[str, Any]) -> None:
        text = json.dumps({**document, "project": self.project}, default=lambda moment: moment.isoformat())
        self.store.write(f"{state_keys.EXPORTS}/{self.dataset}/{name}.json", text.encode())


def _merged(
    state: TableState, days: pl.DataFrame, changed: Iterable[date], since: date, now: datetime
) -> dict[date, DayState]:
    fresh, moment = set(changed), now.astimezone(UTC)
    counts = {day: (rows, fingerprint) for day, rows, fingerprint in days.rows()}
    merged = {day: day_state for day, day_state in state.days.items() if day < since or day not in fresh}
    # a day that lost all its rows stays known, with none: it is built as an empty one
    return merged | {day: DayState(*counts.get(day, (0, 0)), moment) for day in fresh}


def _frame(state: TableState) -> pl.DataFrame:
    rows = [(day, day_state.rows, day_state.fingerprint) for day, day_state in state.days.items() if day_state.rows]
    schema = {"day": pl.Date, "rows": pl.UInt32, "fingerprint": pl.UInt64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
