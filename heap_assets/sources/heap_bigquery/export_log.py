"""What was last seen of Heap's export: a fingerprint for each day of each table, and when it was found changed.

Views tell no time of arrival. A look reads the days from the last sync less an overlap, and now and then much further
back; days whose fingerprint differs have late rows, or a user_id that changed in place (heap.md 3.3).
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
    """How far behind the last sync days are looked at: by every look, and by one of a longer interval."""

    overlap: timedelta = OVERLAP
    deep: timedelta = timedelta(days=90)
    deep_every: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class SeenDay:
    """A day as it last looked, and when it was found so."""

    rows: int
    fingerprint: int
    since: datetime


@dataclass(frozen=True)
class SeenTable:
    """What is known of a table; `failure` is why it could not be looked at the last time.

    Attributes
    ----------
    scheme
        How the days' fingerprints were computed; those of another scheme compare with nothing.
    """

    days: Mapping[date, SeenDay] = field(default_factory=dict)
    synced_to: datetime | None = None
    looked_at: datetime | None = None
    looked_deep_at: datetime | None = None
    failure: str | None = None
    scheme: int = FINGERPRINT_SCHEME


@dataclass(frozen=True)
class SeenExport:
    """The export as a whole: the version that was last looked at, and looks that failed since."""

    version: str | None = None
    failed_looks: int = 0
    failed_at: datetime | None = None

    def may_try(self, now: datetime) -> bool:
        """Whether a look that failed may be tried again: after 1, 2, 4, … minutes, every six hours at last."""
        if self.failed_at is None or not self.failed_looks:
            return True
        pause = timedelta(minutes=2 ** min(self.failed_looks - 1, 12))
        return now >= self.failed_at + min(pause, _LONGEST_PAUSE)


@dataclass(frozen=True)
class TableLook:
    """What one look at a table found."""

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

    What was seen of a dataset of this name in another `project` tells nothing of this one.
    """

    store: Store
    dataset: str
    project: str | None = None

    def state(self) -> SeenExport:
        found = self._load(_STATE)
        return SeenExport(
            found.get("version"), int(found.get("failed_looks", 0)), _moment(found.get("failed_at"))
        )  # fmt: skip

    def tables(self) -> list[str]:
        """Return the tables that were looked at."""
        prefix = f"{state_keys.EXPORTS}/{self.dataset}/tables/"
        return [info.key.removeprefix(prefix).removesuffix(".json") for info in self.store.list(prefix)]

    def table(self, name: str) -> SeenTable:
        found = self._load(f"tables/{name}")
        days = {
            date.fromisoformat(day): SeenDay(rows, fingerprint, datetime.fromisoformat(since))
            for day, (rows, fingerprint, since) in found.get("days", {}).items()
        }
        return SeenTable(
            days,
            synced_to=_moment(found.get("synced_to")),
            looked_at=_moment(found.get("looked_at")),
            looked_deep_at=_moment(found.get("looked_deep_at")),
            failure=found.get("failure"),
            scheme=found.get("scheme", 1 if days else FINGERPRINT_SCHEME),
        )

    def look(
        self,
        export: HeapExport,
        tables: Iterable[str],
        start: date,
        now: datetime,
        version: str,
        back: LookBack = LookBack(),
        since: date | None = None,
    ) -> list[TableLook]:
        """Look at the tables, remember what was seen, and return what has changed. One bad table stops no other.

        Parameters
        ----------
        start
            Days before it are not looked at; nor are those after today's.
        version
            Of the export, as it was before this look.
        since
            Look from this day on at every table, whatever was synced.
        """
        synced = export.synced_to()
        looks = [self._look(export, name, start, now, back, since, synced.get(name)) for name in tables]
        before, failed = self.state(), any(look.failure for look in looks)
        count = before.failed_looks + 1 if failed else 0
        seen = SeenExport(before.version if failed else version, count, now if failed else None)
        self._save(_STATE, asdict(seen))
        return looks

    def _look(
        self,
        export: HeapExport,
        name: str,
        start: date,
        now: datetime,
        back: LookBack,
        asked: date | None,
        synced_to: datetime | None,
    ) -> TableLook:
        seen = self.table(name)
        anew = seen.scheme != FINGERPRINT_SCHEME
        if anew:
            _log.warning("%s: its days are fingerprinted in a new way: those looked at are built once more", name)
        due = seen.looked_deep_at is None or now - seen.looked_deep_at >= back.deep_every
        deep = asked is None and (due or anew)
        idle = synced_to is not None and synced_to == seen.synced_to and seen.failure is None
        if idle and not deep and asked is None:
            return TableLook(name, skipped=True)
        since = max(start, asked or _from(seen, now, back, deep=deep))
        try:
            found = export.fingerprints(name, since)
        except Exception as error:  # whatever is wrong with one table stops that table
            failure = str(error) if isinstance(error, HeapAssetsError) else f"{name}: {redact_error(error)}"
            _log.error("%s could not be looked at: %s", name, failure)
            self._save_table(name, seen, failure=failure)
            return TableLook(name, since=since, failure=failure)
        days = found.days.filter(pl.col("day").is_between(since, now.date()))
        changed = changed_days(_frame(seen), days, since)
        self._save_table(
            name,
            SeenTable(_merged(seen, days, changed, since, now), synced_to, now, now if deep else seen.looked_deep_at),
        )
        billed = found.reading.bytes_billed or 0
        return TableLook(name, tuple(changed), since, int(days["rows"].sum()), billed)

    def _save_table(self, name: str, seen: SeenTable, failure: str | None = None) -> None:
        days = {str(day): [d.rows, d.fingerprint, d.since.isoformat()] for day, d in sorted(seen.days.items())}
        self._save(f"tables/{name}", {**asdict(seen), "days": days, "failure": failure})

    def _load(self, name: str) -> dict[str, Any]:
        """Return a record; a damaged one tells nothing, so that the table is looked at as one never seen."""
        key = f"{state_keys.EXPORTS}/{self.dataset}/{name}.json"
        try:
            found = json.loads(self.store.read(key))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            _log.warning("%s is damaged: what it tells of is looked at anew", self.store.uri(key))
            return {}
        if found.get("project", self.project) != self.project:
            _log.warning("%s is of project %s: what it tells of is looked at anew", key, found["project"])
            return {}
        return found

    def _save(self, name: str, document: Mapping[str, Any]) -> None:
        text = json.dumps({**document, "project": self.project}, default=lambda moment: moment.isoformat())
        self.store.write(f"{state_keys.EXPORTS}/{self.dataset}/{name}.json", text.encode())


def _from(seen: SeenTable, now: datetime, back: LookBack, *, deep: bool) -> date:
    """The first day to look at: all days for a table never seen."""
    if seen.looked_at is None:
        return date.min
    behind = back.deep if deep else back.overlap
    return (min(now, seen.synced_to or seen.looked_at) - behind).date()


def _merged(
    seen: SeenTable, days: pl.DataFrame, changed: Iterable[date], since: date, now: datetime
) -> dict[date, SeenDay]:
    news, moment = set(changed), now.astimezone(UTC)
    found = {day: (rows, fingerprint) for day, rows, fingerprint in days.rows()}
    merged = {day: known for day, known in seen.days.items() if day < since or day not in news}
    # a day that lost all its rows stays known, with none: it is built as an empty one
    return merged | {day: SeenDay(*found.get(day, (0, 0)), moment) for day in news}


def _frame(seen: SeenTable) -> pl.DataFrame:
    rows = [(day, known.rows, known.fingerprint) for day, known in seen.days.items() if known.rows]
    schema = {"day": pl.Date, "rows": pl.UInt32, "fingerprint": pl.UInt64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
