"""Ordered sequences of events: chains of steps, each after the one before it, that end within a span of time.

For each event that may be the last of a chain, the chain that begins latest is taken: if any chain to that event is
short enough, this one is. So one pass over the events of a person, in the order of time, step by step, is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial, reduce

import polars as pl

from heap_assets.profiles.definitions import EventCriterion

_HANDED_ON = ("user_id", "event_id", "session_id")
_ORDER = ("time", "table", "event_id")
Matching = Callable[[EventCriterion], tuple[str, pl.LazyFrame, pl.Expr]]
"""Returns the table of a step, its rows (profile_id, time, …) and which of them meet the step."""


def chains(steps: Sequence[EventCriterion], matching: Matching) -> pl.LazyFrame:
    """Return the events that end a chain of steps.

    Events of one person are taken by time, of equal time by table and event_id; one event is one step only.

    Returns profile_id, time (of the last step), started (of the first), user_id, event_id, session_id of the last event
    and first_event_id; the rows of a person beside each other, by time. Columns that the tables do not have are null.
    """
    tables: dict[str, tuple[pl.LazyFrame, dict[int, pl.Expr]]] = {}
    for position, step in enumerate(steps):
        table, rows, meets = matching(step)
        tables.setdefault(table, (rows, {}))[1][position] = meets
    frames = []
    for number, (_, (rows, expressions)) in enumerate(sorted(tables.items())):
        flags = [
            expressions.get(position, pl.lit(value=False)).alias(f"step_{position}") for position in range(len(steps))
        ]
        schema = rows.collect_schema()
        handed_on = [
            (pl.col(name) if name in schema else pl.lit(None)).cast(pl.Int64, strict=False).alias(name)
            for name in _HANDED_ON
        ]
        frames.append(
            rows.select("profile_id", "time", *handed_on, *flags, table=pl.lit(number, pl.UInt32)).filter(
                reduce(lambda a, b: a | b, [pl.col(f"step_{position}") for position in range(len(steps))])
            )
        )
    rows = pl.concat(frames)
    schema = pl.Schema({name: rows.collect_schema()[name] for name in ("profile_id", "time", *_HANDED_ON)})
    schema |= {"started": schema["time"], "first_event_id": pl.Int64()}
    return rows.map_batches(partial(_linked, count=len(steps)), schema=schema)


def _linked(rows: pl.DataFrame, *, count: int) -> pl.DataFrame:
    """Return the rows that end a chain, with where it began; the frame is needed as a whole, in order."""
    rows = _by_person(rows).with_row_index("row")
    begins = pl.when(_differs("profile_id")).then("row").forward_fill()
    rows = rows.with_columns(person_begins=begins, start=pl.when("step_0").then("row"))
    for position in range(1, count):
        before = pl.col("start").forward_fill().shift(1)
        continues = pl.col(f"step_{position}") & (before >= pl.col("person_begins"))
        rows = rows.with_columns(start=pl.when(continues).then(before))
    ends = rows.filter(pl.col("start").is_not_null())
    first = rows.select("time", "event_id")[ends["start"]]
    return ends.select("profile_id", "time", *_HANDED_ON).with_columns(
        started=first["time"], first_event_id=first["event_id"]
    )


def _by_person(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows by person and in the order of their events; numbers are sorted several times faster than texts."""
    rows = rows.with_columns(person=_hashed(pl.col("profile_id"))).sort("person", *_ORDER)
    if rows.select(_differs("profile_id").sum() != _differs("person").sum()).item():  # two people share a hash
        rows = rows.sort("person", "profile_id", *_ORDER)
    return rows


def _hashed(profile_id: pl.Expr) -> pl.Expr:
    return profile_id.hash()


def _differs(column: str) -> pl.Expr:
    return pl.col(column).ne_missing(pl.col(column).shift(1))


def within_span(ends: pl.LazyFrame, span_days: float | None) -> pl.LazyFrame:
    """Return the chains that last at most a span of `span_days` × 24 hours; all of them without one."""
    if span_days is None:
        return ends
    return ends.filter(pl.col("time") - pl.col("started") <= timedelta(days=span_days))
