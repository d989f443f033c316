"""Syncs: what a destination took, refused, and holds that it should not; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.quality import recency, result_store
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.results import SAMPLE_ROWS, Severity, Verdict, nothing_to_judge_by
from heap_assets.quality.thresholds import Cadence, Thresholds

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


DELIVERED = "delivered"
_WHOLE = ("", "succeeded", "partial", "superseded")
"""Outcomes of a run after which the day is with the destination; single rows have checks of their own."""


def checks_for_sync(asset: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of one sync; the step that sends gives their verdicts (`sync_verdicts`)."""
    t = thresholds or Thresholds()
    return [
        Check(
            asset,
            DELIVERED,
            "The day was delivered whole: the gate was open and nothing stopped the run.",
            mend="the reason says which check shuts the gate, or what the destination answered.",
        ),
        Check(
            asset,
            "few_rejected",
            f"The destination refused at most {t.sync_rejected:.1%} of the rows.",
            mend="`heap-assets sync rejected NAME` lists the reasons; rows are tried again with the next run.",
        ),
        Check(
            asset,
            "few_invalid",
            f"At most {t.sync_invalid:.0%} of the rows were unfit to be sent.",
            severity=Severity.WARN,
            mend="the reasons are in the sync's table of rows: values too long, or two profiles on one key.",
        ),
        Check(
            asset,
            "nothing_unanswered",
            "Every row that was sent has an answer.",
            severity=Severity.WARN,
            mend="the next run asks again; sending twice does no harm.",
        ),
        Check(
            asset,
            "no_ghost_users",
            f"At most {t.ledger_missing:.0%} of those we have sent to are unknown to the newest export.",
            severity=Severity.WARN,
            mend="Heap makes a user for every identity it is sent: see which source names people Heap never saw.",
        ),
    ]


def sync_verdicts(
    report: Any,
    thresholds: Thresholds | None = None,
    *,
    stopped: str | None = None,
    ledger: pl.LazyFrame | None = None,
    users: pl.LazyFrame | None = None,
) -> dict[str, Verdict]:
    """Judge one run of a sync.

    Parameters
    ----------
    report
        The sync's report: planned, sent, rejected, invalid, held, unknown (an object or a mapping).
    stopped
        Why the run did not send everything; without it the report's own `status` and `reason` tell.
    ledger, users
        Acknowledged keys (key) and heap/users (identity) for destinations that address Heap identities.
    """
    t = thresholds or Thresholds()
    n = report_numbers(report)

    def count(name: str) -> int:
        return int(n.get(name, 0))

    stopped = stopped or _stopped(report)
    told = ("planned", "sent", "added", "changed", "unchanged", "withdrawn", "held", "requests", "retried")
    found = {
        DELIVERED: Verdict(
            passed=stopped is None,
            numbers={name: count(name) for name in told if name in n},
            notes={"reason": stopped} if stopped else {},
        ),
        "few_rejected": few_rejected(count("sent"), count("rejected"), t.sync_rejected, _reasons(report, "rejections")),
        "few_invalid": few_invalid(
            count("planned"),
            count("invalid"),
            t.sync_invalid,
            _reasons(report, "invalid_reasons"),
            least=t.sync_min_rows,
        ),
        "nothing_unanswered": nothing_unanswered(count("unknown")),
    }
    if ledger is not None and users is not None:
        found["no_ghost_users"] = no_ghost_users(ledger, users, t.ledger_missing)
    return found


def _stopped(report: Any) -> str | None:
    status = str(_field(report, "status") or "")
    return None if status in _WHOLE else str(_field(report, "reason") or status)


def _reasons(report: Any, name: str) -> dict[str, int]:
    return dict(_field(report, name) or {})


def _field(report: Any, name: str) -> Any:
    return report.get(name) if isinstance(report, Mapping) else getattr(report, name, None)


def delivery_recency_check(asset: str, cadence: Cadence) -> Check:
    """Return the hourly check of a sync: is the newest day that is over with the destination?"""
    hours = cadence.fail_after / timedelta(hours=1)

    def judge(s: Subject) -> Verdict:
        if not s.lake.store.list(f"{result_store.ROOT}/{asset}/{DELIVERED}"):
            return nothing_to_judge_by("the sync has not run yet")
        return recency.newest_complete_day_delivered(newest_delivered(s, asset), clock.now(), cadence)

    return Check(
        asset,
        "newest_complete_day_delivered",
        f"The newest day that is over reaches the destination within {hours:g} hours.",
        judge,
        partitioned=False,
        mend="see whether the sync's schedule runs, and which check shuts its gate.",
    )


def newest_delivered(s: Subject, asset: str) -> str | None:
    """Return the newest day whose `delivered` check passed, None if there is none."""
    prefix = f"{result_store.ROOT}/{asset}/{DELIVERED}"
    days = sorted((o.key.rpartition("/")[2].removesuffix(".json") for o in s.lake.store.list(prefix)), reverse=True)
    for day in days:
        found = result_store.read(s.lake.store, asset, DELIVERED, day)
        if found is not None and found.passed:
            return day
    return None
