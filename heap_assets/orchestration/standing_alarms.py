"""What no run tells: tables that went stale because nothing ran, sensors that fail or stand still, silent daemons."""

from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.scheduler.instigation import InstigatorStatus, SensorInstigatorData, TickStatus

from heap_assets.alerts import Alarm, Kind
from heap_assets.orchestration.run_alarms import RECENCY_CHECKS, GroupOf
from heap_assets.quality import WHOLE, StoredVerdict, result_store
from heap_assets.storage import Store

_JUDGED_WITHIN = timedelta(hours=3)
_TICKS_MISSED = 10
_LEAST_SILENCE = timedelta(minutes=15)


def recency_alarms(
    store: Store, watched: Iterable[tuple[str, str]], now: datetime, group_of: GroupOf
) -> Iterator[Alarm]:
    """Read the stored verdicts of the hourly recency checks; a verdict that was not renewed is an alarm of its own.

    Parameters
    ----------
    watched
        (asset, check) of the recency checks.
    """
    silent: list[str] = []
    for asset, check in watched:
        verdict = result_store.read(store, asset, check, WHOLE)
        if verdict is None or now - verdict.judged_at > _JUDGED_WITHIN:
            silent.append(asset)
        if verdict is not None and (verdict.failed or not verdict.not_judged):
            yield _recency_alarm(verdict, group_of)
    yield Alarm(
        Kind.NOT_TICKING,
        "recency_hourly",
        "recency_not_judged",
        rule=f"Every table is asked for its newest row within {_JUDGED_WITHIN / timedelta(hours=1):g} hours.",
        numbers={"assets": len(silent)} if silent else {},
        recovered=not silent,
    )


def freshness_alarms(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], group_of: GroupOf) -> Iterator[Alarm]:
    """Read the freshness daemon's states: an asset that has a policy and was not run in time."""
    for key, record in instance.get_freshness_state_records(keys).items():
        if record.freshness_state in (FreshnessState.FAIL, FreshnessState.PASS):
            yield Alarm(
                Kind.STALE,
                key.to_user_string(),
                "freshness_policy",
                rule="The asset is materialized within its freshness window.",
                group=group_of(key),
                recovered=record.freshness_state == FreshnessState.PASS,
            )


def ticking_alarms(instance: dg.DagsterInstance, now: datetime, names: Container[str]) -> Iterator[Alarm]:
    """Look at the running sensors and schedules in `names`, and at the daemons, as far as open source lets one see."""
    for state in instance.all_instigator_state():
        if state.status == InstigatorStatus.STOPPED or state.instigator_name not in names:
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        failed = bool(ticks) and ticks[0].status == TickStatus.FAILURE
        yield Alarm(
            Kind.NOT_TICKING,
            state.instigator_name,
            "tick_failed",
            rule="Every tick of a sensor or schedule succeeds.",
            detail="see its ticks in the UI" if failed else "",
            recovered=not failed,
        )
        yield _silence(state.instigator_name, state.instigator_data, now)
    for name, daemon in instance.get_daemon_statuses().items():
        if daemon.required and daemon.last_heartbeat is not None:
            yield Alarm(
                Kind.NOT_TICKING,
                f"{name.lower()} daemon",
                "no_heartbeat",
                rule="Every daemon that the instance needs gives a sign of life.",
                recovered=bool(daemon.healthy),
            )


def _silence(name: str, data: object, now: datetime) -> Alarm:
    silent = False
    if isinstance(data, SensorInstigatorData) and data.last_tick_timestamp:
        interval = timedelta(seconds=data.min_interval or 30)
        since = now - datetime.fromtimestamp(data.last_tick_timestamp, UTC)
        silent = since > max(interval * _TICKS_MISSED, _LEAST_SILENCE + interval)
    return Alarm(Kind.NOT_TICKING, name, "silent", rule="A running sensor ticks at its interval.", recovered=not silent)


def _recency_alarm(verdict: StoredVerdict, group_of: GroupOf) -> Alarm:
    return Alarm(
        Kind.STALE,
        verdict.asset,
        verdict.check,
        rule=verdict.rule,
        group=group_of(dg.AssetKey(verdict.asset.split("/"))),
        numbers=verdict.numbers,
        detail="; ".join(f"{name}: {told}" for name, told in verdict.notes.items()),
        recovered=verdict.passed,
    )


def watched_checks(graph: BaseAssetGraph[Any]) -> list[tuple[str, str]]:
    """Return (asset, check) of the recency checks among the definitions."""
    return sorted(
        (key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys if key.name in RECENCY_CHECKS
    )
