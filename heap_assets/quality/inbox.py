"""Tables of the inbox: rejected and unnamed content, keys; rules and checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import facts_of, readable_check, rejected_rows, shrink_check, unique_key_check
from heap_assets.quality.results import CheckResult, Severity, nothing_to_compare
from heap_assets.quality.thresholds import Thresholds


def messages_accepted(rows: int, notes: Mapping[str, Any], allowed: float) -> CheckResult:
    """Check that at most `allowed` of the messages have values that are not of their column's type."""
    reasons = {f"not of the type of {name}": int(count) for name, count in (notes.get("rejected_by") or {}).items()}
    return rejected_rows(rows, int(notes.get("rejected") or 0), reasons, allowed)


def names_declared(notes: Mapping[str, Any]) -> CheckResult:
    """Check that every name in traits or properties is a column of the settings."""
    undeclared = {str(name): int(count) for name, count in (notes.get("undeclared") or {}).items()}
    listed = ", ".join(f"{name}: {count}" for name, count in undeclared.items())
    return CheckResult(
        passed=not undeclared,
        numbers={"undeclared_names": len(undeclared)},
        notes={"names": listed} if undeclared else {},
    )


def checks_for_message_table(asset: str, *, key: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of a table of messages."""
    t = thresholds or Thresholds()
    table = asset.rpartition("/")[2]

    def accepted(s: CheckContext) -> CheckResult:
        return messages_accepted(facts_of(s).rows, s.notes(), t.rejected_rows)

    return [
        readable_check(asset),
        Check(
            asset,
            "rejected_rows",
            f"At most {t.rejected_rows:.2%} of the messages have a value that is not of its column's type.",
            accepted,
            remedy=f"correct who posts, or the type below inbox.tables.{table}.columns; the messages are kept.",
        ),
        Check(
            asset,
            "names_declared",
            "Every name in traits or properties is a column of the settings.",
            lambda s: names_declared(s.notes()),
            Severity.WARN,
            remedy=f"add wanted ones below inbox.tables.{table}.columns and materialize the days again: `body` has all",
            plotted=("undeclared_names",),
        ),
        unique_key_check(asset, key, "materialize the partition again."),
    ]


def messages_keep_coming(hours: Mapping[datetime, int], now: datetime) -> CheckResult:
    """Check that messages came within the last hour, if they came at this hour on most of the last seven days.

    `hours`: hour (UTC) to the messages that came in it.
    """
    current = now.replace(minute=0, second=0, microsecond=0)
    last_hour = hours.get(current, 0) + hours.get(current - timedelta(hours=1), 0)
    usual = sum(
        hours.get(current - timedelta(days=day), 0) + hours.get(current - timedelta(days=day, hours=1), 0) > 0
        for day in range(1, _DAYS + 1)
    )
    numbers = {"messages_of_two_hours": last_hour, "days_with_messages_at_this_hour": usual}
    return CheckResult(passed=bool(last_hour) or usual < _USUAL_DAYS, numbers=numbers)


def followed(services: Sequence[Mapping[str, Any]], now: datetime, behind: int, seconds: float) -> CheckResult:
    """Check that services which let profiles follow are alive, and neither behind nor slow."""
    silent = [one for one in services if now - datetime.fromisoformat(one["at"]) > _SILENT]
    queue = max((float(one.get("queue_length", 0)) for one in services), default=0.0)
    slowest = max((float(one.get("latency_seconds_p95", 0)) for one in services), default=0.0)
    return CheckResult(
        passed=not silent and queue <= behind and slowest <= seconds,
        numbers={
            "services": len(services),
            "silent_services": len(silent),
            "people_waiting": queue,
            "seconds_p95": slowest,
        },
    )


_DAYS, _USUAL_DAYS = 7, 5
_SILENT = timedelta(minutes=5)


def coming_check(asset: str) -> Check:
    """Return the hourly check that messages of a table have not stopped coming."""

    def evaluate(s: CheckContext) -> CheckResult:
        first = str((clock.now() - timedelta(days=_DAYS + 1)).date())
        days = [day for day in s.lake.partitions(asset) if day >= first]
        if not days:
            return nothing_to_compare("no message has come yet")
        hour = pl.col("received_at").dt.truncate("1h").alias("hour")
        counted = s.lake.scan(asset, days).group_by(hour).agg(pl.len()).collect()
        return messages_keep_coming(dict(counted.iter_rows()), clock.now())

    return Check(
        asset,
        "messages_keep_coming",
        "A message came within the last hours, if there were some at this hour on five of the last seven days.",
        evaluate,
        Severity.WARN,
        partitioned=False,
        remedy="see whether `heap-assets live` runs and who posts to it; its /metrics count answers by status.",
    )


def followed_check(asset: str, folder: str, thresholds: Thresholds | None = None) -> Check:
    """Return the hourly check of a live sync that the services which feed it are alive and keep up.

    `folder`: of the objects in which services say how they do.
    """
    t = thresholds or Thresholds()

    def evaluate(s: CheckContext) -> CheckResult:
        services = [json.loads(s.lake.store.read(info.key)) for info in s.lake.store.list(folder)]
        return followed(services, clock.now(), t.live_waiting, t.live_seconds)

    return Check(
        asset,
        "live_follows",
        f"Services that let profiles follow report every five minutes, with at most {t.live_waiting:,} people waiting "
        f"and 95 % of changes sent within {t.live_seconds:g} s.",
        evaluate,
        Severity.WARN,
        partitioned=False,
        remedy="the service's /healthz and page say why changes wait; a silent one was killed: start it again.",
        plotted=("people_waiting", "seconds_p95"),
    )


def checks_for_folded_table(asset: str, *, key: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of what is folded from messages: users and accounts."""
    t = thresholds or Thresholds()
    return [
        readable_check(asset),
        shrink_check(asset, t),
        unique_key_check(asset, key, "materialize the partition again."),
    ]
