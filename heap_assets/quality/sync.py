"""Syncs: rejected, invalid and unanswered rows, and keys that the destination should not have; rules and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.quality import recency, result_store
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity, nothing_to_compare, share_within
from heap_assets.quality.thresholds import Cadence, Thresholds

EXPIRED = "expired"
"""Prefix of the reason of an event whose person was not known in time."""


def few_rejected(sent: int, rejected: int, allowed: float, reasons: Mapping[str, int] | None = None) -> CheckResult:
    """Check that the destination refused hardly any row; `reasons` name no values."""
    return _share("rejected", rejected, sent + rejected, allowed, reasons)


def few_invalid(
    planned: int, invalid: int, allowed: float, reasons: Mapping[str, int] | None = None, *, least: int = 0
) -> CheckResult:
    """Check that at most `allowed` of the rows were invalid.

    Events whose person was not known in time (`expired`) are counted apart. Runs of fewer than `least` rows pass.
    """
    expired = sum(count for reason, count in (reasons or {}).items() if reason.startswith(EXPIRED))
    result = _share("invalid", invalid - expired, planned + invalid, allowed, reasons)
    few = planned + invalid < least
    return replace(
        result,
        passed=result.passed or few,
        numbers={**result.numbers, **({"expired_rows": expired} if expired else {})},
        notes={"said": "too few rows to tell"} if few and not result.passed else {},
    )


def nothing_unanswered(unknown: int, populating_until: datetime | None = None) -> CheckResult:
    """Check that no row is in flight without an answer.

    `populating_until`: until then the destination takes in its first rows, which is no reason for an alarm.
    """
    notes = {"first_population_until": populating_until.isoformat()} if populating_until else {}
    passed = unknown == 0 or populating_until is not None
    return CheckResult(passed=passed, numbers={"unanswered_rows": unknown}, notes=notes)


def no_ghost_users(ledger: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> CheckResult:
    """Check that all but `allowed` of the acknowledged keys in `ledger` are identities that Heap exports.

    Heap's properties API answers 200 for an unknown identity and creates a user without events for it. Keys that were
    sent since the newest export was made are missing from it for a good reason.
    """
    identities = users.drop_nulls("identity").select(pl.col("identity").alias("key")).unique()
    total, ghosts, sample = pl.collect_all(
        [
            ledger.select(pl.len()),
            ledger.join(identities, on="key", how="anti").select(pl.len()),
            ledger.join(identities, on="key", how="anti").select("key").sort("key").head(SAMPLE_ROWS),
        ]
    )
    numbers = {"acknowledged_keys": total.item(), "keys_not_in_heap": ghosts.item()}
    return share_within(ghosts.item(), total.item(), allowed, numbers, offenders=sample if ghosts.item() else None)


def nothing_lost(lost: int) -> CheckResult:
    """Check that no row waits for somebody to decide whether it may be sent a second time."""
    return CheckResult(passed=lost == 0, numbers={"lost_rows": lost})


def api_version_lives(ends: date, today: date) -> CheckResult:
    """Check that the version of the destination's API lives for some time yet."""
    left = (ends - today).days
    return CheckResult(passed=left >= _NOTICE, numbers={"days_left": left}, notes={"ends": str(ends)})


def report_numbers(report: Any) -> dict[str, int | float]:
    """Return the figures of a sync's report (an object or a mapping) by name."""
    names = report if isinstance(report, Mapping) else getattr(report, "__dataclass_fields__", None) or vars(report)
    values = {str(name): _field(report, name) for name in names}
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _share(prefix: str, count: int, total: int, allowed: float, reasons: Mapping[str, int] | None) -> CheckResult:
    share = count / total if total else 0.0
    return CheckResult(
        passed=share <= allowed,
        numbers={f"{prefix}_rows": count, "rows": total, f"{prefix}_share": share, "allowed_share": allowed},
        offenders=pl.DataFrame({"reason": list(reasons), "rows": list(reasons.values())}) if reasons else None,
        plain=("reason", "rows"),
    )


_NOTICE = 60
"""Days before the end of an API version at which a check warns."""
NOTHING_LOST = "nothing_lost"
API_VERSION_LIVES = "api_version_lives"
DELIVERED = "delivered"
_COMPLETE = ("", "succeeded", "partial", "superseded")
"""Outcomes of a run after which the day counts as delivered; single rows have checks of their own."""


def checks_for_sync(asset: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of one sync; the step that sends gives their results (`sync_results`)."""
    t = thresholds or Thresholds()
    return [
        Check(
            asset,
            DELIVERED,
            "The day was delivered whole: the gate was open and nothing stopped the run.",
            remedy="the reason says which check shuts the gate, or what the destination answered.",
        ),
        Check(
            asset,
            "few_rejected",
            f"The destination refused at most {t.sync_rejected:.1%} of the rows.",
            remedy="`heap-assets sync rejected NAME` lists the reasons; rows are tried again with the next run.",
        ),
        Check(
            asset,
            "few_invalid",
            f"At most {t.sync_invalid:.0%} of the rows were unfit to be sent.",
            severity=Severity.WARN,
            remedy="the reasons are in the sync's table of rows: values too long, or two profiles on one key.",
        ),
        Check(
            asset,
            "nothing_unanswered",
            "Every row that was sent has an answer.",
            severity=Severity.WARN,
            remedy="the next run asks again; sending twice does no harm.",
        ),
        Check(
            asset,
            "no_ghost_users",
            f"At most {t.ledger_missing:.0%} of those we have sent to are unknown to the newest export.",
            severity=Severity.WARN,
            remedy="Heap makes a user for every identity it is sent: see which source names people Heap never saw.",
        ),
    ]


def nothing_lost_check(asset: str) -> Check:
    """Return the check of a sync whose destination would count a row twice that is sent twice."""
    return Check(
        asset,
        NOTHING_LOST,
        "No row stays without an answer that could count twice if it were sent again.",
        severity=Severity.WARN,
        remedy="`heap-assets sync rejected NAME` lists them; look there, then `sync retry NAME` sends them once more.",
    )


def api_version_check(asset: str) -> Check:
    """Return the check of a sync whose destination ends the version of its API on a known day."""
    return Check(
        asset,
        API_VERSION_LIVES,
        f"The version of the destination's API lives for {_NOTICE} days yet.",
        severity=Severity.WARN,
        remedy="set `api_version` to a newer one, after the vendor's notes on what changes.",
    )


def sync_results(
    report: Any,
    thresholds: Thresholds | None = None,
    *,
    stopped: str | None = None,
    populating_until: datetime | None = None,
    ledger: pl.LazyFrame | None = None,
    users: pl.LazyFrame | None = None,
) -> dict[str, CheckResult]:
    """Return the result of each check of a sync on one run.

    `report`: the sync's report: planned, sent, rejected, invalid, held, unknown (an object or a mapping). `stopped`:
    why the run did not send everything; without it the report's own `status` and `reason` tell. `populating_until`: as
    for :func:`nothing_unanswered`. `ledger` and `users`: acknowledged keys (key) and heap/users (identity)
    for destinations that address Heap identities.
    """
    t = thresholds or Thresholds()
    n = report_numbers(report)

    def count(name: str) -> int:
        return int(n.get(name, 0))

    stopped = stopped or _stopped(report)
    counted = ("planned", "sent", "added", "changed", "unchanged", "withdrawn", "held", "requests", "retried")
    results = {
        DELIVERED: CheckResult(
            passed=stopped is None,
            numbers={name: count(name) for name in counted if name in n},
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
        "nothing_unanswered": nothing_unanswered(count("unknown"), populating_until),
    }
    if ledger is not None and users is not None:
        results["no_ghost_users"] = no_ghost_users(ledger, users, t.ledger_missing)
    return results


def _stopped(report: Any) -> str | None:
    status = str(_field(report, "status") or "")
    return None if status in _COMPLETE else str(_field(report, "reason") or status)


def _reasons(report: Any, name: str) -> dict[str, int]:
    return dict(_field(report, name) or {})


def _field(report: Any, name: str) -> Any:
    return report.get(name) if isinstance(report, Mapping) else getattr(report, name, None)


def delivery_recency_check(
    asset: str, cadence: Cadence, populating_until: Callable[[], datetime | None] = lambda: None
) -> Check:
    """Return the hourly check of a sync that the newest complete day has been delivered.

    `populating_until`: as for :func:`nothing_unanswered`, asked when the check is made.
    """
    hours = cadence.fail_after / timedelta(hours=1)

    def evaluate(s: CheckContext) -> CheckResult:
        if not s.lake.store.list(f"{result_store.ROOT}/{asset}/{DELIVERED}"):
            return nothing_to_compare("the sync has not run yet")
        if (until := populating_until()) is not None:
            return nothing_to_compare(f"the destination takes in its first rows until {until:%Y-%m-%d %H:%M} UTC")
        return recency.newest_complete_day_delivered(newest_delivered(s, asset), clock.now(), cadence)

    return Check(
        asset,
        "newest_complete_day_delivered",
        f"The newest day that is over reaches the destination within {hours:g} hours.",
        evaluate,
        partitioned=False,
        remedy="see whether the sync's schedule runs, and which check shuts its gate.",
    )


def newest_delivered(s: CheckContext, asset: str) -> str | None:
    """Return the newest day whose `delivered` check passed, None if there is none."""
    prefix = f"{result_store.ROOT}/{asset}/{DELIVERED}"
    days = sorted((o.key.rpartition("/")[2].removesuffix(".json") for o in s.lake.store.list(prefix)), reverse=True)
    for day in days:
        result = result_store.read(s.lake.store, asset, DELIVERED, day)
        if result is not None and result.passed:
            return day
    return None
