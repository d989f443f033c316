"""Rows that must be there once."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from heap_assets.quality.results import SAMPLE_ROWS, Verdict


def unique_keys(rows: pl.LazyFrame, key: Sequence[str]) -> Verdict:
    """Judge that no two rows have the same key; a null in a key is for `ids_present`, not for this rule.

    Parameters
    ----------
    rows
        Holds the columns `key`.

    Returns
    -------
    Verdict
        `rows`, `repeated_keys`, `extra_rows` (rows beyond the first of each key).
    """
    columns = list(key)
    count = "rows" if "rows" not in columns else "rows_"
    repeated = rows.drop_nulls(columns).group_by(columns).agg(pl.len().alias(count)).filter(pl.col(count) > 1)
    counted, totals, sample = pl.collect_all(
        [
            rows.select(pl.len().alias("rows")),
            repeated.select(pl.len().alias("keys"), (pl.col(count).sum() - pl.len()).alias("extra")),
            repeated.sort([count, *columns], descending=[True] + [False] * len(columns)).head(SAMPLE_ROWS),
        ]
    )
    keys, extra = totals.row(0)
    return Verdict(
        passed=keys == 0,
        numbers={"rows": counted.item(), "repeated_keys": keys, "extra_rows": extra},
        offenders=sample if keys else None,
        plain=(count,),
    )
