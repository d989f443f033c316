"""Judges of syncs: what a destination took, refused, and holds that it should not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from heap_assets.quality.results import SAMPLE_ROWS, Verdict

EXPIRED = "expired"
"""How the reason of an event begins that nobody could be found for in time."""


def few_rejected(sent: int, rejected: int, allowed: float, reasons: Mapping[str, int] | None = None) -> Verdict:
    """Judge that the destination refused hardly any row; `reasons` name no values."""
    return _share("rejected", rejected, sent + rejected, allowed, reasons)


def few_invalid(
    planned: int, invalid: int, allowed: float, reasons: Mapping[str, int] | None = None, *, least: int = 0
) -> Verdict:
    """Judge that hardly any row was unfit to be sent.

    An event that waited for its person in vain is nobody's mistake: `expired` is counted apart. Runs of fewer than
    `least` rows are too small for a share.
    """
    expired = sum(count for reason, count in (reasons or {}).items() if reason.startswith(EXPIRED))
    judged = _share("invalid", invalid - expired, planned + invalid, allowed, reasons)
    few = planned + invalid < least
    return replace(
        judged,
        passed=judged.passed or few,
        numbers={**judged.numbers, **({"expired_rows": expired} if expired else {})},
        notes={"said": "too few rows to tell"} if few and not judged.passed else {},
    )


def nothing_unanswered(unknown: int) -> Verdict:
    """Judge that no row is in flight without an answer."""
    return Verdict(passed=unknown == 0, numbers={"unanswered_rows": unknown})


def one_row_per_key(rows: pl.LazyFrame, key: str = "key") -> Verdict:
    """Judge that no two profiles write to one key of the destination.

    Parameters
    ----------
    rows
        What would be sent: `key` String, profile_id String.
    """
    repeated = rows.drop_nulls(key).group_by(key).agg(pl.len().alias("rows")).filter(pl.col("rows") > 1)
    total, clashes, sample = pl.collect_all(
        [rows.select(pl.len()), repeated.select(pl.len()), repeated.sort("rows", descending=True).head(SAMPLE_ROWS)]
    )
    return Verdict(
        passed=clashes.item() == 0,
        numbers={"rows": total.item(), "keys_written_twice": clashes.item()},
        offenders=sample if clashes.item() else None,
        plain=("rows",),
    )


def no_ghost_users(ledger: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> Verdict:
    """Judge that everybody we have sent properties to is a user that Heap exports.

    Heap's properties API answers 200 for an identity it has never seen and makes a user without events of it.

    Parameters
    ----------
    ledger
        Acknowledged keys: key String.
    users
        heap/users: identity String.
    allowed
        Share of the ledger that the newest export may lack (sent since it was made).
    """
    known = users.drop_nulls("identity").select(pl.col("identity").alias("key")).unique()
    total, ghosts, sample = pl.collect_all(
        [
            ledger.select(pl.len()),
            ledger.join(known, on="key", how="anti").select(pl.len()),
            ledger.join(known, on="key", how="anti").select("key").sort("key").head(SAMPLE_ROWS),
        ]
    )
    share = ghosts.item() / total.item() if total.item() else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={
            "acknowledged_keys": total.item(),
            "keys_not_in_heap": ghosts.item(),
            "share": share,
            "allowed_share": allowed,
        },
        offenders=sample if ghosts.item() else None,
    )


def report_numbers(report: Any) -> dict[str, int | float]:
    """Return the figures of a sync's report (an object or a mapping) by name."""
    found = report if isinstance(report, Mapping) else {name: getattr(report, name) for name in _fields(report)}
    return {
        str(name): value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _fields(report: Any) -> list[str]:
    return list(getattr(report, "__dataclass_fields__", {}) or vars(report))


def _share(word: str, count: int, total: int, allowed: float, reasons: Mapping[str, int] | None) -> Verdict:
    share = count / total if total else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={f"{word}_rows": count, "rows": total, f"{word}_share": share, "allowed_share": allowed},
        offenders=pl.DataFrame({"reason": list(reasons), "rows": list(reasons.values())}) if reasons else None,
        plain=("reason", "rows"),
    )
