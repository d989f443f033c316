"""Options of landing: which tables and columns are loaded (patterns over names, keys always), and its limits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase

import polars as pl

from heap_assets.sources.heap_connect.avro_container import Limits

USERS = "users"
USER_MIGRATIONS = "user_migrations"

EVENT_KEYS = ("event_id", "user_id", "session_id", "time")
USER_KEYS = ("user_id", "identity", "joindate", "last_modified")
MIGRATION_KEYS = ("from_user_id", "to_user_id", "time")

OWN_COLUMNS: Mapping[str, tuple[str, ...]] = {USERS: ("migrated_to",)}
"""Columns that built tables have besides Heap's; a property of that name gets another one."""

NOT_EVENTS = ("_event_metadata",)
"""Tables that manifests list and that hold no events; their columns are documented nowhere (heap.md 2.4, 8)."""


def keys_of(table: str) -> tuple[str, ...]:
    """Return the columns that a table always has, selected or not."""
    if table == USERS:
        return USER_KEYS
    return MIGRATION_KEYS if table == USER_MIGRATIONS else EVENT_KEYS


@dataclass(frozen=True)
class Selection:
    """Shell-style patterns (`mg_*`, `click_?`) of what is loaded. An exclusion wins over an inclusion.

    Attributes
    ----------
    include, exclude
        Patterns of event tables' names; `users` and `user_migrations`, without which nobody is identified, are always
        loaded.
    columns
        Pattern of table names to patterns of column names; a leading `!` excludes. A table that no pattern matches
        is loaded with all columns. Keys are always loaded.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def takes_table(self, table: str) -> bool:
        """Return whether a table is loaded."""
        if table in (USERS, USER_MIGRATIONS):
            return True
        if table in NOT_EVENTS and table not in self.include:
            return False
        return _any(table, self.include) and not _any(table, self.exclude)

    def patterns(self, table: str) -> list[str]:
        """Return the column patterns that hold for a table."""
        return [p for tables, columns in self.columns.items() if fnmatchcase(table, tables) for p in columns]

    def chosen(self, table: str, columns: Iterable[str]) -> list[str]:
        """Return those of a table's columns that are loaded, in the order given."""
        patterns = self.patterns(table)
        if not patterns:
            return list(columns)
        excluded = [p[1:] for p in patterns if p.startswith("!")]
        included = [p for p in patterns if not p.startswith("!")] or ["*"]
        keys = keys_of(table)
        return [c for c in columns if c in keys or (_any(c, included) and not _any(c, excluded))]


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class LandingConfig:
    """Options of landing.

    Attributes
    ----------
    start_date
        First day of which event rows are kept (inclusive).
    workers
        Tables landed at the same time.
    recheck_dumps
        Number of the newest dumps that are checked for files that were changed in place (None: all).
    retry_after, retry_at_most
        A failed table is tried again after `retry_after`, then twice that, and so on up to `retry_at_most`.
    limits
        What a data file may take up once it is decompressed.
    without_erased
        Leaves the rows of erased people out, of rows of a table; None if nobody was erased.
    not_in_source
        Snapshot tables that the source is known not to have; they are built without rows.
    masked
        Applies the rules of masking to rows of a table, and counts the cells that they change. It raises SourceError
        to refuse the table.
    kept_from
        First day whose event rows are kept, if that is a later one; it moves on, and what landed is not landed again.
    """

    start_date: date
    tables: Selection = field(default_factory=Selection)
    workers: int = 2
    recheck_dumps: int | None = 30
    retry_after: timedelta = timedelta(minutes=5)
    retry_at_most: timedelta = timedelta(hours=6)
    limits: Limits = field(default_factory=Limits)
    not_in_source: Collection[str] = ()
    without_erased: Callable[[str, pl.DataFrame], pl.DataFrame] | None = None
    masked: Callable[[str, pl.DataFrame], tuple[pl.DataFrame, int]] | None = None
    kept_from: date | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def retry_at(self, attempts: int) -> datetime:
        """Return when something that failed so many times is tried again."""
        wait: timedelta = min(self.retry_after * 2 ** min(attempts - 1, 20), self.retry_at_most)
        return self.now() + wait
