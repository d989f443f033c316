"""Publishing: assets of the lake as tables of a warehouse, a day replaced whole, nothing loaded twice.

What was loaded last is remembered per table and day beside the lake (`_published/…`), with the version of the
partition. An equal version is not loaded again.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum

import polars as pl

from heap_assets.lake import Store
from heap_assets.warehouse.model import WarehouseError

DAY_COLUMN = "partition_day"
"""First column of every table published by day: the partition of the lake that a row comes from."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")


class PublishError(WarehouseError):
    """A table cannot be published as it is; nothing of it was."""


class PublishStatus(StrEnum):
    """What became of a publication."""

    LOADED = "loaded"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Publication:
    """A table to publish.

    Attributes
    ----------
    table
        Its name at the target, such as `heap_events_signup`.
    by_day
        Whether it holds one partition per day; otherwise each publication replaces all rows.
    descriptions
        Column to what it means.
    cluster_by
        Columns to cluster or index by, most selective first.
    json_columns
        String columns whose text is JSON, published as such.
    """

    table: str
    by_day: bool = True
    description: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    cluster_by: tuple[str, ...] = ()
    json_columns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Published:
    """The outcome of one publication."""

    status: PublishStatus
    table: str
    day: date | None
    rows: int
    added_columns: tuple[str, ...] = ()
    seconds: float = 0.0


class Publisher(ABC):
    """Publishes to one target, and remembers in `store` what it has published."""

    def __init__(self, store: Store, target: str) -> None:
        self._store = store
        self.target = target

    def publish(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, version: str, *, force: bool = False
    ) -> Published:
        """Replace one day of a table, or the whole table if it is not kept by day.

        Readers see the old rows or the new ones, never a part; killed at any moment, the old ones stay.

        Parameters
        ----------
        version
            Of the partition. The version that was loaded last is not loaded again unless `force`.

        Raises
        ------
        PublishError
            If a name, a type, or a change of type cannot be published.
        """
        if publication.by_day != (day is not None):
            raise PublishError(f"{publication.table} is {'' if publication.by_day else 'not '}published by day")
        key = f"_published/{self.target}/{publication.table}/{day or 'all'}.json"
        known = self._remembered(key)
        if not force and known.get("version") == version and self.exists(publication.table):
            return Published(PublishStatus.UNCHANGED, publication.table, day, int(known["rows"]))
        check_names(publication.table, frame.collect_schema())
        published = self._replace(publication, day, frame)
        record = {"version": version, "rows": published.rows, "at": datetime.now(UTC).isoformat()}
        self._store.write(key, json.dumps(record).encode())
        return published

    def _remembered(self, key: str) -> dict[str, str]:
        try:
            record: dict[str, str] = json.loads(self._store.read(key))
        except FileNotFoundError:
            return {}
        return record

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Whether the target has the table."""

    @abstractmethod
    def _replace(self, publication: Publication, day: date | None, frame: pl.LazyFrame) -> Published:
        """Load the frame in place of what the day holds."""


def table_name(asset: str) -> str:
    """Return the table of an asset: `heap/events/signup` is published as `heap_events_signup`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", asset)


def check_names(table: str, schema: pl.Schema) -> None:
    """PublishError for column names that warehouses refuse or that differ in case only."""
    folded: dict[str, str] = {}
    for name in schema.names():
        if not _NAME.match(name):
            raise PublishError(
                f"{table}: column {name!r} cannot be published: names have letters, digits and _ only, "
                "begin with no digit, and at most 255 characters: leave it out or rename it"
            )
        if name.casefold() in folded:
            raise PublishError(f"{table}: columns {folded[name.casefold()]!r} and {name!r} differ in case only")
        folded[name.casefold()] = name


def with_day(frame: pl.LazyFrame, day: date | None) -> pl.LazyFrame:
    """Put the day in front, if there is one."""
    return frame if day is None else frame.select(pl.lit(day, pl.Date).alias(DAY_COLUMN), pl.all())


RESOLVED_VIEW = """\
SELECT e.*, COALESCE(m.resolved_to, e.user_id) AS resolved_user_id, g.profile_id
FROM {events} AS e
LEFT JOIN (
  SELECT from_user_id, resolved_to FROM {migrations}
  WHERE {day} = (SELECT MAX({day}) FROM {migrations})
) AS m ON m.from_user_id = e.user_id
LEFT JOIN (
  SELECT identifier, profile_id FROM {graph}
  WHERE identifier_type = 'heap_user_id' AND {day} = (SELECT MAX({day}) FROM {graph})
) AS g ON g.identifier = CAST(COALESCE(m.resolved_to, e.user_id) AS {text})
"""
"""Event rows with today's user and profile: old partitions keep `user_id` as exported (design: heap tables)."""


def resolved_view(events: str, migrations: str, graph: str, *, text: str) -> str:
    """Write the query of a `heap_resolved` view; arguments are quoted table names and the dialect's text type."""
    return RESOLVED_VIEW.format(events=events, migrations=migrations, graph=graph, day=DAY_COLUMN, text=text)
