"""Columns that a function makes of rows, each row staying one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from heap_assets.functions.pool import DROPPED, REJECTED, RESULT, Pool, batches_of
from heap_assets.functions.rows import Outcome, Shape, converted, json_rows

_SPLIT = "several rows were returned, expected one object with the columns"


def enriched(
    pool: Pool,
    rows: pl.DataFrame,
    declared: Mapping[str, pl.DataType],
    as_text: frozenset[str],
    hashed: Callable[[Any], str],
    outcome: Outcome,
) -> pl.DataFrame:
    """Return the rows with the columns that a function makes of each; the first column is the key.

    A row for which the function returns null, or on which it fails, has null in them; failures are counted in `outcome`
    and shown by the hashed key.
    """
    objects: list[dict[str, Any]] = []
    rejected: dict[int, tuple[str, str]] = {}
    all_results = list(pool.run(batches_of(json_rows(rows, as_text), pool.limits)))
    for at, (kind, value, place) in enumerate(row for part in all_results for row in part.rows):
        objects.append(value if kind == RESULT and isinstance(value, dict) else {})
        if kind == REJECTED:
            rejected[at] = (str(value), place)
        elif kind not in (RESULT, DROPPED):
            rejected[at] = (_SPLIT, place)
    columns = {}
    for name, dtype in declared.items():
        columns[name], mistakes = converted(name, [one.get(name) for one in objects], dtype)
        rejected |= {at: (f"column {name[:100]}: {mistake}", "") for at, mistake in mistakes.items()}
    for one in objects:
        outcome.undeclared.update(name[:100] for name in one.keys() - declared.keys() - set(rows.columns))
    outcome.rows += len(rows)
    Shape(rows.schema, declared, rows.columns[:1], hashed).note(rows, all_results, rejected, outcome)
    failed = pl.int_range(pl.len()).is_in(list(rejected))
    return rows.with_columns(pl.DataFrame(columns).select(pl.when(~failed).then(name).alias(name) for name in declared))
