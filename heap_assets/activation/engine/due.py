"""Which planned rows are due: those that the destination refused wait, each for its own reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from heap_assets.activation.engine.destination import Dedupe
from heap_assets.activation.engine.log import FOUND_SCHEMA, with_nulls
from heap_assets.activation.engine.spec import SyncSpec

_LONGEST_PAUSE = 32
_FACTS = ("failures", "failed_hash", "failed_fence", "failed_at", "status", *FOUND_SCHEMA)
WAITS = ("waiting", "no_match", "invalid", "deferred", "lost")
"""Why a row is not due, as :func:`waits` says it."""


def facts(ledger: pl.DataFrame, *columns: str | pl.Expr) -> pl.DataFrame:
    """Return what the ledger knows about earlier answers: `key`, the columns that :func:`waits` needs, and others."""
    return with_nulls(ledger, FOUND_SCHEMA, FOUND_SCHEMA).select("key", *_FACTS, *columns)


def waits(rows: pl.DataFrame, fence: int, spec: SyncSpec, dedupe: Dedupe) -> pl.Series:
    """Return for each row why it is not due, as one of :data:`WAITS`; null if it is.

    Repeated equal refusals back off (design.md, Sync: Rows). Rows without a record there, and those that cannot be
    meant, are tried again when they change or after `spec.unmatched_for`. Rows without an answer are sent again only if
    the destination tells them from new ones. `sync retry` makes them due.

    `rows`: planned ones with `row_hash` and the columns of :func:`facts`.
    """
    unrefused = rows["status"].is_in(["acknowledged", "sent"]).fill_null(value=True)
    if unrefused.all() and not (rows["failures"].fill_null(0) > 0).any():
        return pl.Series("waits", [None], dtype=pl.String).new_from_index(0, len(rows))
    now = datetime.now(UTC)
    same = (pl.col("failed_hash") == pl.col("row_hash")).fill_null(value=False)
    allowed = (pl.col("until") >= pl.col("failed_at")).fill_null(value=False)
    failures = pl.col("failures").fill_null(0).cast(pl.Int64)
    exponent = (failures - spec.unchanged_failures + 1).clip(0, 5)
    pause = pl.lit(2).pow(exponent).clip(1, _LONGEST_PAUSE)
    is_patient = same & (failures >= spec.unchanged_failures) & (pl.lit(fence) - pl.col("failed_fence") < pause)
    is_recent = (pl.col("failed_at") > now - spec.unmatched_for).fill_null(value=False)
    status = pl.col("status")
    reason = (
        pl.when((status == "deferred") & (pl.col("until") > now))
        .then(pl.lit("deferred"))
        .when(status.is_in(["no_match", "invalid"]) & same & is_recent & ~allowed)
        .then(status)
        .when((status == "unknown") & _is_lost(dedupe, now) & ~allowed)
        .then(pl.lit("lost"))
        .when(is_patient)
        .then(pl.lit("waiting"))
    )
    return rows.select(waits=reason)["waits"]


def _is_lost(dedupe: Dedupe, now: datetime) -> pl.Expr:
    if dedupe.kind == "window":
        return (pl.col("failed_at") <= now - timedelta(seconds=dedupe.seconds)).fill_null(value=True)
    return pl.lit(dedupe.kind == "none")
