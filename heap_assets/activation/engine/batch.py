"""Batches of planned rows: as destinations take them, and as segments of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from heap_assets.activation.engine.canonical import EXACT, json_values
from heap_assets.activation.engine.destination import Destination, Row
from heap_assets.activation.engine.hashing import EMPTY, UNKNOWN
from heap_assets.activation.engine.log import FIELD, FOUND_SCHEMA, INTENT_SCHEMA, OUTCOME_SCHEMA
from heap_assets.activation.engine.prepare import VALUE
from heap_assets.activation.engine.spec import Mode

LEAVES = "withdraw"
"""Operation of a row that leaves a set: none but such are in its batch."""
_OMITTED: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one row."""

    status: str
    http_status: int | None = None
    reason: str | None = None
    attempt: int = 1
    until: datetime | None = None
    remote_id: str | None = None


def with_facts(rows: pl.DataFrame, facts: Mapping[str, Any]) -> pl.DataFrame:
    """Add the columns of an intent; failures are counted on only if the same values failed before."""
    same = pl.col("failed_hash").eq_missing(pl.col("row_hash"))
    return rows.with_columns(
        pl.when(same).then(pl.col("failures").fill_null(0)).otherwise(0).cast(pl.UInt32).alias("failures"),
        *(pl.lit(value, INTENT_SCHEMA[name]).alias(name) for name, value in facts.items()),
    )


def rows_of(batch: pl.DataFrame, destination: Destination, fence: int) -> Iterator[Row]:
    """Yield the rows of a batch as destinations take them."""
    names = [c.removeprefix(VALUE) for c in batch.columns if c.startswith(VALUE) and FIELD + c[2:] in batch.columns]
    extras = [c for c in (*destination.required, *destination.optional, "row_hash") if c in batch.columns]
    leave = batch["op"] == LEAVES if destination.mode is Mode.SET else None
    null = destination.values.null
    columns = [_to_send(batch[VALUE + name], batch[FIELD + name], leave, null) for name in names]
    beside = zip(*(batch[c].to_list() for c in extras), strict=True)
    keys = batch["key"].to_list()
    persons = batch["person"].to_list() if "person" in batch.columns else keys
    recipe = destination.key_recipe
    identifiers = batch.select(key=recipe.applied(pl.col("key")))["key"].to_list() if recipe else keys
    remote_ids = batch["remote_id"].to_list() if "remote_id" in batch.columns else [None] * len(keys)
    values = zip(*columns, strict=True) if columns else iter([()] * len(keys))
    removed = [False] * len(keys) if leave is None else leave.to_list()
    facts = zip(keys, identifiers, persons, remote_ids, removed, values, beside, strict=True)
    for key, identifier, person, remote_id, leaves, sent, context in facts:
        mapped = {name: value for name, value in zip(names, sent, strict=True) if value is not _OMITTED}
        extra = {"fence": fence, **dict(zip(extras, context, strict=True))}
        yield Row(key, person, mapped, extra, leaves, remote_id, identifier or "")


def _to_send(values: pl.Series, sent: pl.Series, leave: pl.Series | None, null: Any) -> list[Any]:
    """Return the values of a column as sent; those that are not part of the call are `_OMITTED`.

    `leave`: rows that leave their set, of which all that is known is given. `null`: stands for a cleared value.
    """
    small = values.dtype == pl.Int64 and max(-_bound(values.min()), _bound(values.max())) <= EXACT
    listed = values.to_list() if small else json_values(values)
    if sent.null_count() == 0 and sent.min() != EMPTY:
        return listed
    if leave is not None:
        sent = sent.set(leave & values.is_not_null(), UNKNOWN).set(leave & values.is_null(), None)
    return [
        _OMITTED if mark is None else null if mark == EMPTY else value
        for value, mark in zip(listed, sent.to_list(), strict=True)
    ]


def _repeated(value: pl.Series, count: int) -> pl.Series:
    """Repeat a single value; `new_from_index` would run a query."""
    return value.extend_constant(value[0], count - 1)


def _bound(value: Any) -> int:
    return 0 if value is None else int(value)


def outcome_frame(name: str, outcomes: Mapping[int, Outcome]) -> pl.DataFrame:
    """Return the outcome segment of a batch, by row of its intent segment.

    `until` and `remote_id` are columns only if some row has one.
    """
    count = len(outcomes)
    first, *further = outcomes.values()
    distinct = [first] if all(outcome is first for outcome in further) else [first, *further]
    columns: dict[str, list[Any]] = {
        "status": [o.status for o in distinct],
        "http_status": [o.http_status for o in distinct],
        "reason": [o.reason for o in distinct],
        "attempt": [o.attempt for o in distinct],
    }
    series = [pl.Series(c, values, OUTCOME_SCHEMA[c]) for c, values in columns.items()]
    optional: dict[str, list[Any]] = {
        "until": [o.until for o in distinct],
        "remote_id": [o.remote_id for o in distinct],
    }
    series += [pl.Series(c, values, FOUND_SCHEMA[c]) for c, values in optional.items() if any(values)]
    if len(distinct) < count:
        series = [_repeated(s, count) for s in series]
    batch = _repeated(pl.Series("batch", [name]), count)
    at = _repeated(pl.Series("answered_at", [datetime.now(UTC)], OUTCOME_SCHEMA["answered_at"]), count)
    return pl.DataFrame([batch, pl.Series("row", list(outcomes), OUTCOME_SCHEMA["row"]), *series, at])


def intent_frame(name: str, part: pl.DataFrame) -> pl.DataFrame:
    """Return the intent segment of some rows that :func:`with_facts` has prepared."""
    rows = len(part)
    facts = {"batch": pl.Series("batch", [name]), "at": pl.Series("at", [datetime.now(UTC)], INTENT_SCHEMA["at"])}
    columns = [_repeated(facts[c], rows) if c in facts else part[c] for c in INTENT_SCHEMA if c != "row"]
    numbers = pl.Series("row", np.arange(rows, dtype=np.uint32))
    return pl.DataFrame([numbers, *columns, *(part[c] for c in part.columns if c.startswith(FIELD))])


@dataclass(slots=True)
class Item:
    """One row of a batch, encoded."""

    row: Row
    element: bytes
    position: int
    """In the intent segment of its batch."""
    unwritable: str | None = None


def grouped(items: Sequence[Item], most: int | None) -> Iterator[list[Item]]:
    """Cut a batch so that every request stays below the byte limit."""
    group: list[Item] = []
    size = 0
    for item in items:
        if group and most is not None and size + len(item.element) + 1 > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item.element) + 1
    if group:
        yield group
