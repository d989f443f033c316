"""Between tables and calls: rows of a plan as destinations see them, and as the log records them.

Frames are built from columns without a query: a batch costs as little as the call it is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from heap_assets.activation.engine.canonical import EXACT, json_values
from heap_assets.activation.engine.destination import Destination, Row
from heap_assets.activation.engine.hashing import EMPTY
from heap_assets.activation.engine.log import FIELD, INTENT_SCHEMA, OUTCOME_SCHEMA
from heap_assets.activation.engine.validation import VALUE

_LEFT_OUT: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row."""

    status: str
    http_status: int | None = None
    reason: str | None = None
    attempt: int = 1


def with_facts(rows: pl.DataFrame, facts: Mapping[str, Any]) -> pl.DataFrame:
    """Add what every intent says; a failure counts on only if the very same row failed before."""
    same = pl.col("failed_hash").eq_missing(pl.col("row_hash"))
    return rows.with_columns(
        pl.when(same).then(pl.col("failures").fill_null(0)).otherwise(0).cast(pl.UInt32).alias("failures"),
        *(pl.lit(value, INTENT_SCHEMA[name]).alias(name) for name, value in facts.items()),
    )


def rows_of(batch: pl.DataFrame, destination: Destination, fence: int) -> Iterator[Row]:
    """Give the rows of a batch in the form that destinations see."""
    names = [c.removeprefix(VALUE) for c in batch.columns if c.startswith(VALUE) and FIELD + c[2:] in batch.columns]
    extras = [c for c in (*destination.required, *destination.optional, "row_hash") if c in batch.columns]
    columns = [_to_send(batch[VALUE + name], batch[FIELD + name]) for name in names]
    beside = zip(*(batch[c].to_list() for c in extras), strict=True)
    keys = batch["key"].to_list()
    persons = batch["person"].to_list() if "person" in batch.columns else keys
    values = zip(*columns, strict=True) if columns else iter([()] * len(keys))
    for key, person, sent, extra in zip(keys, persons, values, beside, strict=True):
        mapped = {name: value for name, value in zip(names, sent, strict=True) if value is not _LEFT_OUT}
        yield Row(key, person, mapped, {"fence": fence, **dict(zip(extras, extra, strict=True))})


def _to_send(values: pl.Series, sent: pl.Series) -> list[Any]:
    """Return the values of a column as they stand in requests; those that are not part of the call are left out."""
    small = values.dtype == pl.Int64 and max(-_bound(values.min()), _bound(values.max())) <= EXACT
    listed = values.to_list() if small else json_values(values)
    if sent.null_count() == 0 and sent.min() != EMPTY:
        return listed
    return [
        _LEFT_OUT if mark is None else None if mark == EMPTY else value
        for value, mark in zip(listed, sent.to_list(), strict=True)
    ]


def _repeated(value: pl.Series, count: int) -> pl.Series:
    """Repeat a single value; unlike `new_from_index` this is no query."""
    return value.extend_constant(value[0], count - 1)


def _bound(value: Any) -> int:
    return 0 if value is None else int(value)


def outcome_frame(name: str, outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Return the outcome segment of a batch."""
    count = len(outcomes)
    first = outcomes[0]
    told = [first] if all(outcome is first for outcome in outcomes) else outcomes
    columns: dict[str, list[Any]] = {
        "status": [o.status for o in told],
        "http_status": [o.http_status for o in told],
        "reason": [o.reason for o in told],
        "attempt": [o.attempt for o in told],
    }
    series = [pl.Series(c, values, OUTCOME_SCHEMA[c]) for c, values in columns.items()]
    if len(told) < count:
        series = [_repeated(s, count) for s in series]
    batch = _repeated(pl.Series("batch", [name]), count)
    at = _repeated(pl.Series("answered_at", [datetime.now(UTC)], OUTCOME_SCHEMA["answered_at"]), count)
    return pl.DataFrame([batch, pl.Series("row", np.arange(count, dtype=np.uint32)), *series, at])


def intent_frame(name: str, part: pl.DataFrame) -> pl.DataFrame:
    """Return the intent segment of some rows that :func:`with_facts` has prepared."""
    rows = len(part)
    facts = {"batch": pl.Series("batch", [name]), "at": pl.Series("at", [datetime.now(UTC)], INTENT_SCHEMA["at"])}
    columns = [_repeated(facts[c], rows) if c in facts else part[c] for c in INTENT_SCHEMA if c != "row"]
    numbers = pl.Series("row", np.arange(rows, dtype=np.uint32))
    return pl.DataFrame([numbers, *columns, *(part[c] for c in part.columns if c.startswith(FIELD))])
