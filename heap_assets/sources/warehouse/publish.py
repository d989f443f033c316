"""Publishing: assets of the lake as tables of a warehouse, a day replaced whole, nothing loaded twice.

What was loaded last is remembered per table and day beside the lake (`_published/…`), with the version of the
partition. An equal version is not loaded again if the target still holds the rows of that load. Loads are put in order:
each notes its transaction or job before anybody can see its rows, and the target is asked what became of one that died.
A `heap_resolved` view says itself what it was made of.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from hashlib import sha256

import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse.base import AccessError, Permission, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.empty_columns import is_untyped
from heap_assets.sources.warehouse.names import LONGEST_IN_BIGQUERY, published_names, safe_name
from heap_assets.storage import Store, state_keys

DAY_COLUMN = "partition_day"
"""First column of every table published by day: the partition of the lake that a row comes from."""

RESOLVED_COLUMNS = frozenset({"resolved_user_id", "profile_id"})
"""Columns that a `heap_resolved` view puts beside those of its table."""

_WHOLE = "all"
_TURN = "loading"
"""In the record of a day: the transaction or job that is loading it, or did and died before it could say so."""


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
class Load:
    """A load as it is remembered: how many rows, and `load` as in Published (empty for one of an earlier release)."""

    rows: int
    load: str = ""


@dataclass(frozen=True)
class Preview:
    """What publishing would do to a table: make it, add columns to it, widen some; `renamed` as in Published."""

    creates: bool
    added_columns: tuple[str, ...] = ()
    widened_columns: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ResolvedOn:
    """The published days of `heap_user_migrations` and `identity_graph` that the views resolve with."""

    migrations: date
    graph: date


class Publisher(ABC):
    """Publishes to one target, and remembers in `store` what it has published."""

    longest_name = LONGEST_IN_BIGQUERY

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
            Of the partition. The version that was loaded last is not loaded again unless `force`, or unless the target
            does not hold its rows any more, as after a restore.

        Raises
        ------
        PublishError
            If a name, a type, or a change of type cannot be published, or the rows cannot be made.
        """
        if publication.by_day != (day is not None):
            raise PublishError(f"{publication.table} is {'' if publication.by_day else 'not '}published by day")
        key = self._key(publication.table, day)
        known = self._remembered(key)
        if not force and known.get("version") == version and self._stands(key, publication.table, known.get(_TURN)):
            load = _load(known)
            if self._held(publication.table, [(day, load)], whole=True):
                return Published(PublishStatus.UNCHANGED, publication.table, day, load.rows)
        turns = [""]

        def begin(turn: str) -> None:
            turns.append(turn)
            self._begin(key, publication.table, turn)

        with made_of(f"{publication.table} {day or ''}".strip()):
            names = self._names(publication, frame)
            self._remember_names(publication.table, names)
            rows = frame.select(pl.col(column).alias(name) for column, name in names.items())
            published = self._replace(publication.named(names), day, rows, begin)
        published = replace(published, renamed=_renamed(names))
        # a column without a type is not there yet
        typed = [column for column, dtype in frame.collect_schema().items() if not is_untyped(dtype)]
        self._remember_columns(publication.table, [names[column] for column in typed])
        self._end(key, turns[-1], {"version": version, "rows": published.rows, "load": published.load})
        return published

    def is_published(self, table: str, day: date | None, version: str) -> bool:
        """Whether this version was the last one loaded, by what is remembered; nothing is asked of the target."""
        return (known := self._remembered(self._key(table, day))).get("version") == version and _TURN not in known

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
        return next((day for day, _ in self._loads(table)), None)

    def newest_held(self, table: str) -> date | None:
        """Return the newest day that was published and that the target still holds; None if there is none."""
        return next((day for day, load in self._loads(table) if self._held(table, [(day, load)], whole=True)), None)

    def held_days(self, table: str) -> Container[date | None]:
        """Return the days that were published and that the target still holds, by a look at one row of each."""
        return self._held(table, list(self._loads(table)), whole=False)

    def _loads(self, table: str) -> Iterator[tuple[date, Load]]:
        """Yield the days of a table that were published, newest first, and what is remembered of each."""
        prefix = f"{state_keys.PUBLISHED}/{self.target}/{table}/"
        names = [info.key.removeprefix(prefix).removesuffix(".json") for info in self._store.list(prefix)]
        for day in sorted((date.fromisoformat(name) for name in names if name != _WHOLE), reverse=True):
            known = self._remembered(self._key(table, day))
            if "rows" in known:
                yield day, _load(known)

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
            columns = "\n".join(sorted(self._remembered(self._columns_key(table))))
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

    def _remember_columns(self, table: str, names: Iterable[str]) -> None:
        """Keep which columns a table was given, before the version of the day: who dies in between does both again."""
        key, given = self._columns_key(table), dict.fromkeys(names, "")
        if not given.keys() <= self._remembered(key).keys():
            self._store.update(key, lambda data: json.dumps({**self._record(key, data or b"{}"), **given}).encode())

    def _names(self, publication: Publication, frame: pl.LazyFrame) -> dict[str, str]:
        """Return the published name of every column; one that was published keeps its name."""
        own = publication.own | ({DAY_COLUMN} if publication.by_day else frozenset())
        known = {str(k): str(v) for k, v in self._remembered(self._names_key(publication.table)).items()}
        names = frame.collect_schema().names()
        return published_names(names, own=own, known=known, longest=self.longest_name)

    def _remember_names(self, table: str, names: Mapping[str, str]) -> None:
        """Keep names that differ, and those of their table with them: none of them may be given away later."""
        key = self._names_key(table)
        if names.items() <= self._remembered(key).items():
            return
        # What another publisher gave away meanwhile stays given.
        self._store.update(key, lambda data: json.dumps({**names, **self._record(key, data or b"{}")}).encode())

    def _columns_key(self, table: str) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/_columns/{table}.json"

    def _names_key(self, table: str) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/_names/{table}.json"

    def _key(self, table: str, day: date | None) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/{table}/{day or _WHOLE}.json"

    def _remembered(self, key: str) -> dict[str, str]:
        try:
            data = self._store.read(key)
        except FileNotFoundError:
            return {}
        return self._record(key, data)

    def _record(self, key: str, data: bytes) -> dict[str, str]:
        try:
            return {str(name): value for name, value in json.loads(data).items()}
        except (ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"{self._store.uri(key)} is damaged: delete it, and what it tells of is published again"
            ) from error

    def _stands(self, key: str, table: str, turn: str | None) -> bool:
        """Whether what is remembered is still there, although somebody may have begun to load after it and died."""
        if turn is None:
            return True
        if self._was_carried_out(table, turn):
            return False

        def forgotten(data: bytes | None) -> bytes | None:
            known = self._record(key, data or b"{}")
            return json.dumps(known).encode() if known.pop(_TURN, None) == turn else None

        self._store.update(key, forgotten)
        return True

    def _begin(self, key: str, table: str, turn: str) -> None:
        """Note who loads a day from now on; of what others have begun to load nobody remembers a version any more."""
        begun = False

        def noted(data: bytes | None) -> bytes | None:
            nonlocal begun
            known = self._record(key, data or b"{}")
            begun = known.get(_TURN) in (before, turn)
            version = {} if before is None else {"version": ""}
            return json.dumps({**known, **version, _TURN: turn}).encode() if begun else None

        while not begun:
            before = self._remembered(key).get(_TURN)
            if before is not None:
                self._await(table, before)
            self._store.update(key, noted)

    def _end(self, key: str, turn: str, record: Mapping[str, object]) -> None:
        """Remember what was loaded, unless somebody else has begun since: then what they load is what is there."""

        def ended(data: bytes | None) -> bytes | None:
            if self._record(key, data or b"{}").get(_TURN) != turn:
                return None
            return json.dumps({**record, "at": datetime.now(UTC).isoformat()}).encode()

        self._store.update(key, ended)

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


def _load(known: Mapping[str, str]) -> Load:
    return Load(int(known["rows"]), known.get("load", ""))


def _renamed(names: Mapping[str, str]) -> dict[str, str]:
    return {column: name for column, name in names.items() if column != name}


def with_day(frame: pl.LazyFrame, day: date | None) -> pl.LazyFrame:
    """Put the day in front, if there is one."""
    return frame if day is None else frame.select(pl.lit(day, pl.Date).alias(DAY_COLUMN), pl.all())


RESOLVED_VIEW = """\
SELECT COALESCE(m.resolved_to, {user}) AS resolved_user_id, g.profile_id, e.*
FROM {events} AS e
LEFT JOIN (
  SELECT from_user_id, resolved_to FROM {migrations} WHERE {day} = DATE '{migrations_day}'
) AS m ON m.from_user_id = {user}
LEFT JOIN (
  SELECT identifier, profile_id FROM {graph}
  WHERE {day} = DATE '{graph_day}' AND identifier_type = 'heap_user_id'
) AS g ON g.identifier = CAST(COALESCE(m.resolved_to, {user}) AS {text})
"""
"""Event rows with today's user and profile: old partitions keep `user_id` as exported (design: heap tables).

Its own columns come first: a column that the table gains is then the view's last one, which PostgreSQL can add.
"""


def resolved_view(events: str, migrations: str, graph: str, on: ResolvedOn, *, user: str, text: str) -> str:
    """Write the query of a `heap_resolved` view.

    Parameters
    ----------
    events, migrations, graph
        Quoted table names.
    user
        The event's user_id as an integer, from `e`.
    text
        The dialect's text type.
    """
    return RESOLVED_VIEW.format(
        events=events, migrations=migrations, graph=graph, user=user, text=text, day=DAY_COLUMN,
        migrations_day=on.migrations, graph_day=on.graph,
    )  # fmt: skip
