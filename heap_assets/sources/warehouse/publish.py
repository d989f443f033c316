"""Publishing: assets of the lake as tables of a warehouse, a day replaced whole, nothing loaded twice.

The last load of each table and day is recorded beside the lake (`_published/…`) with the version of the partition. An
equal version is not loaded again while the target still holds the rows of that load. Loads of one day are ordered: each
records the id of its transaction or job before its rows become visible, and the next publisher asks the target for the
outcome of a load that did not finish. A `heap_resolved` view carries its inputs as a comment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import ClassVar

import polars as pl

from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse.base import AccessError, Permission, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.empty_columns import is_untyped
from heap_assets.sources.warehouse.names import LONGEST, published_names, safe_name
from heap_assets.sources.warehouse.publish_log import Load, PublishLog
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN, ResolvedOn
from heap_assets.storage import Store


class PublishError(WarehouseError):
    """A table cannot be published as it is; nothing of it was loaded."""


class PublishStatus(StrEnum):
    """The outcome of a publication."""

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
    reserved
        Names that no column may have, because the platform adds such columns: those of the resolved views.
    """

    table: str
    by_day: bool = True
    description: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    cluster_by: tuple[str, ...] = ()
    json_columns: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()

    def with_names(self, names: Mapping[str, str]) -> Publication:
        """Return this publication with columns renamed; the description of a renamed one begins with its old name."""
        descriptions = {column: text for column, text in self.descriptions.items() if column in names}
        descriptions |= {
            column: f"{column}: {self.descriptions[column]}" if column in self.descriptions else column
            for column, name in names.items()
            if column != name
        }
        return replace(
            self,
            descriptions={names[column]: text for column, text in descriptions.items()},
            cluster_by=tuple(names.get(column, column) for column in self.cluster_by),
            json_columns=frozenset(names.get(column, column) for column in self.json_columns),
        )


@dataclass(frozen=True)
class Published:
    """The outcome of one publication.

    Attributes
    ----------
    bytes
        Of the file that was loaded, compressed.
    jobs
        BigQuery's job ids, or PostgreSQL's transaction.
    load
        Identifies the load at the target, to check later whether its rows are still there: PostgreSQL's transaction id,
        or the end time of BigQuery's job. Empty if the target gave none.
    lost
        Column to the number of values that the target cannot hold (docs/values.md).
    renamed
        Column to its name at the target, where they differ (docs/warehouse.md).
    """

    status: PublishStatus
    table: str
    day: date | None
    rows: int
    added_columns: tuple[str, ...] = ()
    seconds: float = 0.0
    bytes: int = 0
    jobs: tuple[str, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    load: str = ""


@dataclass(frozen=True)
class Preview:
    """The changes that publishing would make to a table: create it, add or widen columns; `renamed` as in Published."""

    creates: bool
    added_columns: tuple[str, ...] = ()
    widened_columns: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


class Publisher(ABC):
    """Publishes to one target, and records in `store` what it has published."""

    longest_name = LONGEST
    system_columns: ClassVar[frozenset[str]] = frozenset()
    """Names that the engine keeps for columns of its own in every table."""

    def __init__(self, store: Store, target: str) -> None:
        self.target = target
        self._log = PublishLog(store, target)

    def publish(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, version: str, *, force: bool = False
    ) -> Published:
        """Replace one day of a table, or the whole table if it is not kept by day.

        Readers see the old rows or the new ones, never a part; killed at any moment, the old ones stay.

        Parameters
        ----------
        version
            Of the partition. The version that was loaded last is not loaded again unless `force`, or unless the target
            does not hold its rows any more, as after a restore.

        Raises
        ------
        PublishError
            If a name, a type, or a change of type cannot be published, or the rows cannot be made.
        """
        if publication.by_day != (day is not None):
            raise PublishError(f"{publication.table} is {'' if publication.by_day else 'not '}published by day")
        last, pending = self._log.day(publication.table, day)
        if not force and last.get("version") == version and self._is_current(publication.table, day, pending):
            load = Load.of(last)
            if self._intact(publication.table, [(day, load)], every_row=True):
                return Published(PublishStatus.UNCHANGED, publication.table, day, load.rows)
        load_ids = [""]

        def begin(load_id: str) -> None:
            load_ids.append(load_id)
            self._log.begin(publication.table, day, load_id, partial(self._await, publication.table))

        with publish_errors(f"{publication.table} {day or ''}".strip()):
            names = self._names(publication, frame)
            self._log.add_names(publication.table, names)
            rows = frame.select(pl.col(column).alias(name) for column, name in names.items())
            published = self._replace(publication.with_names(names), day, rows, begin)
        published = replace(published, renamed=_renamed(names))
        # a column without a type is not there yet
        typed = [column for column, dtype in frame.collect_schema().items() if not is_untyped(dtype)]
        self._log.add_columns(publication.table, [names[column] for column in typed])
        record = {"version": version, "rows": published.rows, "load": published.load}
        self._log.end(publication.table, day, load_ids[-1], record)
        return published

    def is_published(self, table: str, day: date | None, version: str) -> bool:
        """Whether this version was the last one loaded, by the records in the lake; the target is not queried."""
        record, pending = self._log.day(table, day)
        return record.get("version") == version and pending is None

    def preview(self, publication: Publication, frame: pl.LazyFrame, day: date | None) -> Preview:
        """Say what publishing a frame would do to its table, and change nothing.

        Raises
        ------
        PublishError
            If it would be refused.
        """
        names = self._names(publication, frame)
        rows = frame.select(pl.col(column).alias(name) for column, name in names.items())
        preview = self._preview(publication.with_names(names), with_day(rows, day))
        return replace(preview, renamed=_renamed(names))

    def column_names(self, publication: Publication, frame: pl.LazyFrame) -> dict[str, str]:
        """Return the published name of every column that has a type yet; the target is not queried."""
        names = self._names(publication, frame)
        return {name: names[name] for name, dtype in frame.collect_schema().items() if not is_untyped(dtype)}

    def newest_published(self, table: str) -> date | None:
        """Return the newest day of a table that was published, None if none was; the target is not queried."""
        return next((day for day, _ in self._log.loads(table)), None)

    def published_at(self, table: str, day: date | None) -> datetime | None:
        """Return when a day was last loaded (UTC), by the records in the lake; None if it never was."""
        record, _ = self._log.day(table, day)
        return datetime.fromisoformat(record["at"]) if "at" in record else None

    def newest_intact(self, table: str) -> date | None:
        """Return the newest day that was published and that the target still holds; None if there is none."""
        return next(
            (day for day, load in self._log.loads(table) if self._intact(table, [(day, load)], every_row=True)), None
        )

    def intact_days(self, table: str) -> Container[date | None]:
        """Return the days that were published and that the target still holds; checks one row of each."""
        return self._intact(table, list(self._log.loads(table)), every_row=False)

    def is_intact(self, table: str, day: date | None) -> bool:
        """Whether the target still holds what was published of a day, or of a table that is not kept by day."""
        record, _ = self._log.day(table, day)
        return "rows" in record and day in self._intact(table, [(day, Load.of(record))], every_row=False)

    def published_days(self, table: str) -> set[date]:
        """Return the days that were published, as the log of publishing has them; queries no target."""
        return {day for day, _ in self._log.loads(table)}

    def resolve_views(self, tables: Iterable[str], *, into: str, on: ResolvedOn) -> list[str]:
        """Create the views `<into>.<table>`: event rows with `resolved_user_id` and `profile_id`.

        The days are written into the view, so that no engine reads more than one partition of the graph.

        Returns
        -------
        list[str]
            The views that were created or replaced; the others are up to date.

        Raises
        ------
        PublishError
            If one could not be created; the others were.
        """
        created: list[str] = []
        failures: list[str] = []
        for table in tables:
            # a view has the columns that its table had when it was made
            columns = "\n".join(self._log.columns(table))
            digest = sha256(columns.encode()).hexdigest()[:16]
            origin = f"migrations of {on.migrations}, graph of {on.graph}, columns {digest}"
            if self.view_origin(table, into) == origin:
                continue
            try:
                self._create_view(table, into, on, origin)
            except (AccessError, WarehouseBusyError):
                raise
            except WarehouseError as error:
                failures.append(f"{into}.{table}: {error}")
                continue
            created.append(f"{into}.{table}")
        if failures:
            also = f" (made: {', '.join(created)})" if created else ""
            raise PublishError("; ".join(failures) + also)
        return created

    def _names(self, publication: Publication, frame: pl.LazyFrame) -> dict[str, str]:
        """Return the published name of every column; a column that was published before keeps its name."""
        reserved = publication.reserved | self.system_columns | ({DAY_COLUMN} if publication.by_day else frozenset())
        published = self._log.names(publication.table)
        return published_names(
            frame.collect_schema().names(), reserved=reserved, published=published, longest=self.longest_name
        )

    def _is_current(self, table: str, day: date | None, load_id: str | None) -> bool:
        """Whether the recorded load is the last one, although a later load may have begun and not finished."""
        if load_id is None:
            return True
        if self._is_committed(table, load_id):
            return False
        self._log.withdraw(table, day, load_id)
        return True

    def read_only_role(self, role: str, views: str | None, *, execute: bool) -> list[str]:
        """Return the statements that let a role read what is published, and nothing else; run them if asked to.

        Parameters
        ----------
        views
            Schema of the `heap_resolved` views, if there are any.

        Raises
        ------
        PublishError
            If the engine has no such statements here, or the role would have more rights.
        """
        del role, views, execute
        raise PublishError(f"{self.target}: who may read is granted in its console; roles are written for PostgreSQL")

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Whether the target has the table."""

    @abstractmethod
    def view_origin(self, table: str, into: str) -> str:
        """Return the inputs that the `heap_resolved` view of a table records; empty if there is no view."""

    @abstractmethod
    def preflight(self) -> list[Permission]:
        """Try each permission that publishing needs; the result of a failed one says what to grant."""

    @abstractmethod
    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        """Load the frame in place of the rows of the day.

        `begin` is called with the id of the transaction or job before it is committed or started; calls for one table
        come in the order of their commits.
        """

    @abstractmethod
    def _intact(self, table: str, loads: Sequence[tuple[date | None, Load]], *, every_row: bool) -> set[date | None]:
        """Return the days whose rows at the target are those of the load; none if there is no such table.

        Parameters
        ----------
        every_row
            Whether every row is checked, or only the first one.
        """

    @abstractmethod
    def _is_committed(self, table: str, load_id: str) -> bool:
        """Whether a load that has begun was, or may have been, committed; after False it never will be."""

    @abstractmethod
    def _await(self, table: str, load_id: str) -> None:
        """Wait until a load that has begun has ended, or make sure that it never starts."""

    @abstractmethod
    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        """Compare rows with the table; PublishError if they would be refused."""

    @abstractmethod
    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        """Create or replace one view, and store its origin with it."""


@contextmanager
def publish_errors(subject: str) -> Iterator[None]:
    """Turn Polars' errors into PublishError, without the values that they quote."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise PublishError(f"{subject}: its rows cannot be made: {redact_error(error)}") from None


def table_name(asset: str) -> str:
    """Return the table of an asset: `heap/events/signup` is published as `heap_events_signup`."""
    return safe_name(asset.replace("/", "_"))


def table_names(assets: Iterable[str]) -> dict[str, str]:
    """Return the table of each asset of a target; no two are the same."""
    unsafe_names = {asset: asset.replace("/", "_") for asset in assets}
    names = published_names(unsafe_names.values())
    return {asset: names[name] for asset, name in unsafe_names.items()}


def format_counts(counts: Mapping[str, int]) -> str:
    """Write counts by column: `note: 2, valid_to: 1`."""
    return ", ".join(f"{column}: {count}" for column, count in sorted(counts.items()))


def format_renames(names: Mapping[str, str]) -> str:
    """Write renamed columns: `cart value as cart_value`."""
    return ", ".join(f"{column} as {name}" for column, name in sorted(names.items()))


def _renamed(names: Mapping[str, str]) -> dict[str, str]:
    return {column: name for column, name in names.items() if column != name}


def with_day(frame: pl.LazyFrame, day: date | None) -> pl.LazyFrame:
    """Add the day as the first column; None adds none."""
    return frame if day is None else frame.select(pl.lit(day, pl.Date).alias(DAY_COLUMN), pl.all())
