"""Events by the names that definitions use, each row with the person it is of.

A name is that of a Heap table (`sign_up`), of a table of messages (`inbox/track`), of the messages of one event
(`inbox/track/Order Paid`; of pages and screens, of one name), of a signal (`signals/<name>`), or of a model that is a
source with times (`models/orders`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import assign
from heap_assets.profiles import event_table, events_by_user, events_of_profiles
from heap_assets.project import Project
from heap_assets.signals import FIRED, FIRINGS
from heap_assets.sources.heap_connect import OWN_MARK, without_own
from heap_assets.sources.inbox import message_numbers
from heap_assets.tables import (
    MODELS,
    event_asset,
    heap_asset,
    is_heap_event,
    is_inbox_table,
    is_model,
    is_signal,
    model_asset,
)
from heap_assets.values import PRIVATE, as_moment, as_text, set_apart

_TYPES: dict[str, pl.DataType] = {
    "event_id": pl.Int64(),
    "user_id": pl.Int64(),
    "session_id": pl.Int64(),
    "time": pl.Datetime("us", "UTC"),
}
_NOT_IN_EVENTS: Final = ("body", "user_id")
_WITHOUT_NAMES: Final = ("identify", "group", "alias", "delete")
_PROFILE: Final = f"{PRIVATE}profile"


@dataclass(frozen=True)
class Window:
    """The events that the profiles of a day depend on.

    Attributes
    ----------
    days
        Name of the events to the days that are built, oldest first.
    messages
        Asset of a table of messages to rows that are read in place of those of its days.
    """

    day: date
    days: dict[str, list[str]]
    messages: Mapping[str, pl.LazyFrame] = field(default_factory=dict)

    @property
    def as_of(self) -> datetime:
        """The end of the day, from which windows count back."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC) + timedelta(days=1)


def days_of(project: Project, day: date, reach: Mapping[str, int | None]) -> dict[str, list[str]]:
    """Return the built days of event tables up to a day, as many of each as `reach` says; None for all."""
    days = {}
    for table, back in reach.items():
        first = date.min if back is None else day - timedelta(days=back)
        partitions = project.lake.partitions(event_asset(table))
        days[table] = [key for key in partitions if str(first) < key <= str(day)]
        if is_model(table):  # each of its days holds all rows
            days[table] = [key for key in partitions if key <= str(day)][-1:]
    return days


def event_schema(project: Project, table: str) -> pl.Schema:
    """Return the columns of events: of Heap's, those of the newest day, else the catalogue's."""
    if is_inbox_table(table):
        columns = project.message_tables[event_asset(table)].schema
        shown = {name: dtype for name, dtype in columns.items() if name not in _NOT_IN_EVENTS}
        return pl.Schema({**shown, "event_id": pl.Int64()})
    if is_signal(table):
        keys = project.lake.partitions(table)
        stored = project.lake.scan(table, keys[-1]).collect_schema() if keys else FIRINGS
        return pl.Schema({**stored, "event_id": pl.Int64()})
    if is_model(table):
        return _rows_of_model(project, table, project.lake.partitions(table)[-1:]).collect_schema()
    keys = project.lake.partitions(heap_asset(table))
    return heap_rows(project, table, keys[-1:]).collect_schema()


def event_frames(
    project: Project, tables: Iterable[str], graph: pl.LazyFrame, events_window: Window
) -> dict[str, pl.LazyFrame]:
    """Return events by name, each with the profile of every row; of signals, what fired before the day."""
    return {table: _frame(project, table, graph, events_window) for table in tables}


def heap_events_by_user(project: Project, tables: Iterable[str], events_window: Window) -> dict[str, pl.LazyFrame]:
    """Return the rows of those that are Heap tables, as :func:`event_frames` does but without their profiles."""
    return {
        table: events_by_user(heap_rows(project, table, events_window.days.get(table, ())))
        for table in tables
        if is_heap_event(table)
    }


def _frame(project: Project, table: str, graph: pl.LazyFrame, events_window: Window) -> pl.LazyFrame:
    if is_signal(table):
        return _firings(project, table, graph, events_window.day)
    if is_inbox_table(table):
        return _messages(project, table, graph, events_window)
    if is_model(table):
        rows = _rows_of_model(project, table, events_window.days.get(table, ()))
        owned = assign(rows, project.snapshot_sources[table], graph, project.rules, under=_PROFILE)
        return _of_somebody(owned, rows)
    return events_of_profiles(heap_rows(project, table, events_window.days.get(table, ())), graph)


def _messages(project: Project, table: str, graph: pl.LazyFrame, events_window: Window) -> pl.LazyFrame:
    """Return messages of people: `event_id` is a number made of `message_id`, `user_id` is Heap's, so there is none."""
    asset = event_asset(table)
    rows = events_window.messages.get(asset)
    if rows is None:
        schema, days = project.message_tables[asset].schema, events_window.days.get(table, [])
        rows = project.lake.scan(asset, days, schema=schema) if days else pl.LazyFrame(schema=schema)
    rows = without_own(rows)
    column, event = name_of_messages(table)
    if event:
        rows = rows.filter(pl.col(column) == event)
    number = pl.col("message_id").map_batches(message_numbers, return_dtype=pl.Int64, is_elementwise=True)
    owned = assign(rows, project.event_sources[asset], graph, project.rules, under=_PROFILE)
    return _of_somebody(owned, rows).drop(_NOT_IN_EVENTS, strict=False).with_columns(event_id=number)


def _of_somebody(owned: pl.LazyFrame, rows: pl.LazyFrame) -> pl.LazyFrame:
    return (
        owned.filter(pl.col(_PROFILE).is_not_null())
        .rename(set_apart(rows.collect_schema(), ("profile_id",)))
        .rename({_PROFILE: "profile_id"})
    )


def _rows_of_model(project: Project, table: str, days: Sequence[str]) -> pl.LazyFrame:
    """Return a model's rows as events: its time is `time`, a number made of its key `event_id`."""
    settings = project.settings.models[table.removeprefix(MODELS)]
    key, moment = settings.key or "", settings.created_at or ""
    if not days:
        mapped = [column for one in project.snapshot_sources[table].mappings for column in one.columns]
        names = dict.fromkeys((key, *mapped, *_columns_of_audiences(project, table)))
        rows = pl.LazyFrame(schema={**dict.fromkeys(names, pl.String()), moment: _TYPES["time"]})
    else:
        rows = project.lake.scan(table, days[-1])
    dtype = rows.collect_schema()[moment]
    time = as_moment(pl.col(moment), dtype)
    number = as_text(pl.col(key), rows.collect_schema()[key]).map_batches(
        message_numbers, return_dtype=pl.Int64, is_elementwise=True
    )
    return rows.with_columns(time=time, event_id=number).filter(pl.col("time").is_not_null())


def messages_named(table: str) -> pl.Expr:
    """Return the name of each message of a table, as definitions call it: `inbox/track/Order Paid`."""
    column, _ = name_of_messages(table)
    named = pl.concat_str(pl.lit(f"{event_asset(table)}/"), pl.col(column))
    return pl.when(pl.col(column).is_null()).then(pl.lit(table)).otherwise(named)


def name_of_messages(table: str) -> tuple[str, str]:
    """Return the column that says what a message of a table is called, and which are asked for; empty for all."""
    column = "name" if event_asset(table).rpartition("/")[2] in ("page", "screen") else "event"
    return column, "/".join(table.split("/", 2)[2:])


def table_of_event(project: Project, event: str, where: str) -> str:
    """Return the table of an event; where no event table is known at all, the event by its own name.

    Raises SettingsError, naming the key `where`: no table holds the event.
    """
    if is_inbox_table(event):
        _check_messages(project, event, where)
        return event
    if is_model(event):
        model = project.settings.models.get(event.removeprefix(MODELS))
        if model is None or not model.is_events:
            usable = [model_asset(name) for name, one in project.settings.models.items() if one.is_events]
            raise SettingsError(
                f"{where} names {event!r}, but of models only sources with created_at and identifiers are events: "
                f"{', '.join(usable) or 'none'}"
            )
        return event
    if not project.event_tables:
        return event
    table = event_table(event, dict.fromkeys(project.event_tables))
    if table is None:
        raise SettingsError(
            f"{where} names the event {event!r}, which no table holds. "
            f"Tables: {', '.join([*project.event_tables, *project.message_tables])}"
        )
    return table


def _check_messages(project: Project, event: str, where: str) -> None:
    asset = event_asset(event)
    if asset not in project.message_tables:
        listed = ", ".join(project.message_tables) or "none: there is no `inbox:` section"
        raise SettingsError(f"{where} names {event!r}, which is no table of messages. Tables: {listed}")
    if name_of_messages(event)[1] and asset.rpartition("/")[2] in _WITHOUT_NAMES:
        raise SettingsError(f"{where} names {event!r}, but messages of {asset} have no names: expected {asset}")
    if not project.event_sources[asset].mappings:
        raise SettingsError(
            f"{where} names {event!r}, but {asset} identifies nobody: map a column in inbox.identifiers"
        )


def _firings(project: Project, asset: str, graph: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Return the firings of a signal before a day, under the profile ids of its graph."""
    keys = [key for key in project.lake.partitions(asset) if key < str(day)]
    rows = pl.concat([pl.LazyFrame(schema=FIRINGS), *project.lake.scans(asset, keys)], how="diagonal_relaxed")
    owners = graph.filter(~pl.col("shared")).select("identifier_type", "identifier", owner="profile_id")
    return (
        rows.filter(pl.col("status") == FIRED)
        .join(owners, on=["identifier_type", "identifier"], how="left")
        .with_columns(profile_id=pl.coalesce("owner", "profile_id"), event_id=pl.lit(None, pl.Int64))
        .drop("owner")
    )


def heap_rows(project: Project, table: str, days: Iterable[str]) -> pl.LazyFrame:
    """Scan days of a Heap table, without the events that we sent to Heap ourselves.

    A table without days has the catalogue's columns; one that the catalogue does not know, those that audiences name.
    """
    keys = list(days)
    if not keys:
        names = project.catalogue.columns(table) or _columns_of_audiences(project, table)
        return pl.LazyFrame(schema={name: _TYPES.get(name, pl.String()) for name in (*_TYPES, *names)})
    frames = [without_own(rows) for rows in project.lake.scans(heap_asset(table), keys)]
    return pl.concat(_alike(frames), how="diagonal")


def heap_rows_of_all(project: Project, days: Mapping[str, Iterable[str]], columns: Sequence[str]) -> list[pl.LazyFrame]:
    """Scan days of several Heap tables as few frames: `columns`, and event_type: the table; without our own events."""
    tables = {table: (heap_asset(table), keys) for table, keys in days.items()}
    frames = project.lake.scan_tables(tables, (*columns, OWN_MARK), "event_type")
    return [without_own(rows).select(*columns, "event_type") for rows in frames]


def _alike(frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Return parts of a table with columns of equal types: text where the types of a property differ by day."""
    schemas = [frame.collect_schema() for frame in frames]
    types: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            types.setdefault(name, set()).add(dtype)
    differing = {name for name, dtypes in types.items() if len(dtypes) > 1}
    return [
        frame.with_columns(
            as_text(pl.col(name), schema[name]).alias(name) for name in sorted(differing & schema.keys())
        )
        for frame, schema in zip(frames, schemas, strict=True)
    ]


def _columns_of_audiences(project: Project, event: str) -> list[str]:
    criteria = [criterion for audience in project.audiences for criterion in audience.criteria]
    return [column for criterion in criteria if criterion.type == event for column, _ in criterion.properties]
