"""The checks of `sync/*`: what the destination took, and whether the newest day has reached it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.quality import recency, result_store, sync
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.results import Severity, Verdict, nothing_to_judge_by
from heap_assets.quality.thresholds import Cadence, Thresholds

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
    n = sync.report_numbers(report)

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
        "few_rejected": sync.few_rejected(
            count("sent"), count("rejected"), t.sync_rejected, _reasons(report, "rejections")
        ),
        "few_invalid": sync.few_invalid(
            count("planned"),
            count("invalid"),
            t.sync_invalid,
            _reasons(report, "invalid_reasons"),
            least=t.sync_min_rows,
        ),
        "nothing_unanswered": sync.nothing_unanswered(count("unknown")),
    }
    if ledger is not None and users is not None:
        found["no_ghost_users"] = sync.no_ghost_users(ledger, users, t.ledger_missing)
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
