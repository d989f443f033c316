"""Publishing: assets of the lake as tables of a warehouse, a day replaced whole, nothing loaded twice.

What was loaded last is remembered per table and day beside the lake (`_published/…`), with the version of the
partition. An equal version is not loaded again if the target still holds the rows of that load. Loads are put in order:
each notes its transaction or job before anybody can see its rows, and the target is asked what became of one that died.
A `heap_resolved` view says itself what it was made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from functools import partial
from hashlib import sha256

import polars as pl

from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse.base import AccessError, Permission, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.empty_columns import is_untyped
from heap_assets.sources.warehouse.names import LONGEST_IN_BIGQUERY, published_names, safe_name
from heap_assets.sources.warehouse.publish_log import Load, PublishLog
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN, ResolvedOn
from heap_assets.storage import Store


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
    own
        Names that the platform puts beside the columns, which no column may have: those of the resolved views.
    """

    table: str
    by_day: bool = True
    description: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    cluster_by: tuple[str, ...] = ()
    json_columns: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()

    def named(self, names: Mapping[str, str]) -> Publication:
        """Return this publication with columns under their published names; what was renamed says its own name."""
        told = {column: text for column, text in self.descriptions.items() if column in names}
        told |= {
            column: f"{column}: {self.descriptions[column]}" if column in self.descriptions else column
            for column, name in names.items()
            if column != name
        }
        return replace(
            self,
            descriptions={names[column]: text for column, text in told.items()},
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
        What the target calls the work it did: BigQuery's job ids, PostgreSQL's transaction.
    load
        By what the target can tell later whether its rows are still those of this load: PostgreSQL's transaction, the
        time at which BigQuery's job ended. Empty if it says nothing.
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
    """What publishing would do to a table: make it, add columns to it, widen some; `renamed` as in Published."""

    creates: bool
    added_columns: tuple[str, ...] = ()
    widened_columns: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


class Publisher(ABC):
    """Publishes to one target, and remembers in `store` what it has published."""

    longest_name = LONGEST_IN_BIGQUERY

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
        known, turn = self._log.day(publication.table, day)
        if not force and known.get("version") == version and self._stands(publication.table, day, turn):
            load = Load.of(known)
            if self._held(publication.table, [(day, load)], whole=True):
                return Published(PublishStatus.UNCHANGED, publication.table, day, load.rows)
        turns = [""]

        def begin(turn: str) -> None:
            turns.append(turn)
            self._log.begin(publication.table, day, turn, partial(self._await, publication.table))

        with made_of(f"{publication.table} {day or ''}".strip()):
            names = self._names(publication, frame)
            self._log.add_names(publication.table, names)
            rows = frame.select(pl.col(column).alias(name) for column, name in names.items())
            published = self._replace(publication.named(names), day, rows, begin)
        published = replace(published, renamed=_renamed(names))
        # a column without a type is not there yet
        typed = [column for column, dtype in frame.collect_schema().items() if not is_untyped(dtype)]
        self._log.add_columns(publication.table, [names[column] for column in typed])
        record = {"version": version, "rows": published.rows, "load": published.load}
        self._log.end(publication.table, day, turns[-1], record)
        return published

    def is_published(self, table: str, day: date | None, version: str) -> bool:
        """Whether this version was the last one loaded, by what is remembered; nothing is asked of the target."""
        known, turn = self._log.day(table, day)
        return known.get("version") == version and turn is None

    def preview(self, publication: Publication, frame: pl.LazyFrame, day: date | None) -> Preview:
        """Say what publishing a frame would do to its table, and change nothing.

        Raises
        ------
        PublishError
            If it would be refused.
        """
        names = self._names(publication, frame)
        rows = frame.select(pl.col(column).alias(name) for column, name in names.items())
        preview = self._preview(publication.named(names), with_day(rows, day))
        return replace(preview, renamed=_renamed(names))

    def newest_published(self, table: str) -> date | None:
        """Return the newest day of a table that was published; None if none was. Nothing is asked of the target."""
        return next((day for day, _ in self._log.loads(table)), None)

    def newest_held(self, table: str) -> date | None:
        """Return the newest day that was published and that the target still holds; None if there is none."""
        return next((day for day, load in self._log.loads(table) if self._held(table, [(day, load)], whole=True)), None)

    def held_days(self, table: str) -> Container[date | None]:
        """Return the days that were published and that the target still holds, by a look at one row of each."""
        return self._held(table, list(self._log.loads(table)), whole=False)

    def resolve_views(self, tables: Iterable[str], *, into: str, on: ResolvedOn) -> list[str]:
        """Create the views `<into>.<table>`: event rows with `resolved_user_id` and `profile_id`.

        The days are written into the view, so that no engine reads more than one partition of the graph.

        Returns
        -------
        list[str]
            The views that were made anew; the others stand as they should.

        Raises
        ------
        PublishError
            If one could not be made; the others are.
        """
        made: list[str] = []
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
            made.append(f"{into}.{table}")
        if failures:
            also = f" (made: {', '.join(made)})" if made else ""
            raise PublishError("; ".join(failures) + also)
        return made

    def _names(self, publication: Publication, frame: pl.LazyFrame) -> dict[str, str]:
        """Return the published name of every column; one that was published keeps its name."""
        own = publication.own | ({DAY_COLUMN} if publication.by_day else frozenset())
        known = self._log.names(publication.table)
        return published_names(frame.collect_schema().names(), own=own, known=known, longest=self.longest_name)

    def _stands(self, table: str, day: date | None, turn: str | None) -> bool:
        """Whether what is remembered is still there, although somebody may have begun to load after it and died."""
        if turn is None:
            return True
        if self._was_carried_out(table, turn):
            return False
        self._log.withdraw(table, day, turn)
        return True

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Whether the target has the table."""

    @abstractmethod
    def view_origin(self, table: str, into: str) -> str:
        """Return what the `heap_resolved` view of a table says that it was made of; empty if there is none."""

    @abstractmethod
    def preflight(self) -> list[Permission]:
        """Try what publishing needs, one by one, and say what to grant for what fails."""

    @abstractmethod
    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        """Load the frame in place of what the day holds.

        `begin` is called with the name of the transaction or job before it is carried out, and in the order in which
        those of one table are.
        """

    @abstractmethod
    def _held(self, table: str, loads: Sequence[tuple[date | None, Load]], *, whole: bool) -> set[date | None]:
        """Return the days whose rows at the target are those of the load; none if there is no such table.

        Parameters
        ----------
        whole
            Whether each row is looked at, not only whether there are any and what the first one is.
        """

    @abstractmethod
    def _was_carried_out(self, table: str, turn: str) -> bool:
        """Whether a load that has begun was, or may have been, carried out; if not, it never will be."""

    @abstractmethod
    def _await(self, table: str, turn: str) -> None:
        """Make sure that a load which has begun is over, or never comes to be."""

    @abstractmethod
    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        """Compare rows with the table; PublishError if they would be refused."""

    @abstractmethod
    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        """Make or replace one view, which from then on says its origin."""


@contextmanager
def made_of(what: str) -> Iterator[None]:
    """Turn Polars' failures while rows are made into ours, without the cells that they quote."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise PublishError(f"{what}: its rows cannot be made: {redact_error(error)}") from None


def table_name(asset: str) -> str:
    """Return the table of an asset: `heap/events/signup` is published as `heap_events_signup`."""
    return safe_name(asset.replace("/", "_"))


def table_names(assets: Iterable[str]) -> dict[str, str]:
    """Return the table of each asset of a target; no two are the same."""
    spelled = {asset: asset.replace("/", "_") for asset in assets}
    names = published_names(spelled.values())
    return {asset: names[name] for asset, name in spelled.items()}


def told_counts(counts: Mapping[str, int]) -> str:
    """Write counts by column: `note: 2, valid_to: 1`."""
    return ", ".join(f"{column}: {count}" for column, count in sorted(counts.items()))


def told_names(names: Mapping[str, str]) -> str:
    """Write renamed columns: `cart value as cart_value`."""
    return ", ".join(f"{column} as {name}" for column, name in sorted(names.items()))


def _renamed(names: Mapping[str, str]) -> dict[str, str]:
    return {column: name for column, name in names.items() if column != name}


def with_day(frame: pl.LazyFrame, day: date | None) -> pl.LazyFrame:
    """Put the day in front, if there is one."""
    return frame if day is None else frame.select(pl.lit(day, pl.Date).alias(DAY_COLUMN), pl.all())
