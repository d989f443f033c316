"""The two alert sensors: one over finished runs, and an hourly one over what no run reports.

Keep them small: open-source Dagster does not report a sensor that fails. Failures of channels are kept by the outbox
and never raised.
"""

import json
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.scheduler.instigation import InstigatorStatus, SensorInstigatorData, TickStatus

from heap_assets.alerts import Alarm, Channel, Kind, Message, Outbox
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.run_alarms import EVERYTHING, RECENCY_CHECKS, GroupOf, Own, finished_messages
from heap_assets.project import PLAIN_NAMES, Names
from heap_assets.quality import ALL_PARTITIONS, StoredResult, result_store
from heap_assets.storage import Store

_EVALUATED_WITHIN = timedelta(hours=3)
_TICKS_MISSED = 10
_LEAST_SILENCE = timedelta(minutes=15)


def recency_alarms(
    store: Store, watched: Iterable[tuple[str, str]], now: datetime, group_of: GroupOf, names: Names = PLAIN_NAMES
) -> Iterator[Alarm]:
    """Yield an alarm, failed or recovered, for each stored result of the hourly recency checks.

    `watched`: (lake asset, check name). One more alarm lists the assets without a result of the last three hours.
    """
    silent: list[str] = []
    for asset, check in watched:
        result = result_store.read(store, asset, check, ALL_PARTITIONS)
        if result is None or now - result.judged_at > _EVALUATED_WITHIN:
            silent.append(asset)
        if result is not None and (result.failed or not result.not_judged):
            yield _recency_alarm(result, group_of, names)
    yield Alarm(
        Kind.NOT_TICKING,
        names.name("recency_hourly"),
        "recency_not_judged",
        rule=f"Every table is asked for its newest row within {_EVALUATED_WITHIN / timedelta(hours=1):g} hours.",
        numbers={"assets": len(silent)} if silent else {},
        recovered=not silent,
    )


def freshness_alarms(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], group_of: GroupOf) -> Iterator[Alarm]:
    """Yield an alarm, failed or recovered, for each asset whose freshness policy the freshness daemon evaluated."""
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
    """Yield alarms about sensors and schedules in `names` that fail or no longer tick, and about daemons."""
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


def _recency_alarm(result: StoredResult, group_of: GroupOf, names: Names) -> Alarm:
    key = asset_key(result.asset, names)
    return Alarm(
        Kind.STALE,
        key.to_user_string(),
        result.check,
        rule=result.rule,
        group=group_of(key),
        numbers=result.numbers,
        detail="; ".join(f"{name}: {note}" for name, note in result.notes.items()),
        recovered=result.passed,
    )


def watched_checks(graph: BaseAssetGraph[Any], own: Own = EVERYTHING) -> list[tuple[str, str]]:
    """Return (lake asset, check) of the recency checks among the definitions."""
    checks = [key for key in graph.asset_check_keys if key.name in RECENCY_CHECKS and own.has(key.asset_key)]
    return sorted((path, key.name) for key in checks if (path := own.names.path(key.asset_key.path)) is not None)


_RUNS_PER_TICK = 20
_FIRST_LOOK_BACK = timedelta(hours=24)
_REMEMBERED_RUNS = 500
_OVERLAP = timedelta(minutes=2)


def alert_sensors(
    store: Store,
    channels: Sequence[Channel],
    base_url: str,
    own: Own = EVERYTHING,
    *,
    status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
    standing_interval_seconds: int = 3600,
    run_interval_seconds: int = 30,
    allowed: AllowedHosts = ANYWHERE,
) -> list[dg.SensorDefinition]:
    """Return the sensors that alert `channels`, by the results and with the outbox of `store`.

    Links in messages lead to `base_url`, the address of the UI. Only `allowed` hosts are called.
    """
    names = own.names

    @dg.sensor(
        name=names.name("run_alerts"),
        minimum_interval_seconds=run_interval_seconds,
        default_status=status,
        description="Tells of failed runs, and failed or warned checks of finished runs: once, and when they recover.",
    )
    @raising_failures
    def run_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        outbox = Outbox(store, channels, os.environ, allowed=allowed)
        cursor = _Cursor.parse(context.cursor)
        records = _finished(context.instance, cursor)
        runs = [record.dagster_run for record in records]
        messages = finished_messages(
            context.instance, runs, base_url, _groups(context, names), outbox.open_alarms(), own
        )
        sent = sum(outbox.send_if_new(message) for message in messages)
        for record in records:
            cursor.passed(record)
        context.update_cursor(cursor.dump())
        outbox.deliver()
        return _tick(f"{len(runs)} runs finished", channels, sent, outbox)

    @dg.sensor(
        name=names.name("standing_alerts"),
        minimum_interval_seconds=standing_interval_seconds,
        default_status=status,
        description="Tells hourly what no run tells: stale tables, sensors and daemons that stand still.",
    )
    @raising_failures
    def standing_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        outbox = Outbox(store, channels, os.environ, allowed=allowed)
        alarms = _hourly_alarms(context, outbox, own)
        sent = outbox.send_if_new(
            Message("Something needs a look, though nothing failed", tuple(alarms), link=base_url)
        )
        alive = Alarm(Kind.ALIVE, names.name("heap_assets"), "alive", rule="The alert sensors tick.")
        outbox.send_if_new(Message("heap_assets is alive", (alive,), link=base_url))
        return _tick("what stands still was looked for", channels, sent, outbox)

    return [run_alerts, standing_alerts]


def _tick(action: str, channels: Sequence[Channel], sent: int, outbox: Outbox) -> dg.SkipReason:
    """Return what a tick that requests no run has done."""
    if not channels:
        return dg.SkipReason(f"{action}; nobody is told: `alerts` in the settings names no channel")
    return dg.SkipReason(f"{action}; {sent} alerts sent, {outbox.waiting()} wait for a channel that is down")


def _hourly_alarms(context: dg.SensorEvaluationContext, outbox: Outbox, own: Own) -> list[Alarm]:
    now, group_of, graph = datetime.now(UTC), _groups(context, own.names), _graph(context)
    keys = sorted(filter(own.has, graph.materializable_asset_keys)) if graph is not None else []
    watched = watched_checks(graph, own) if graph is not None else []
    return [
        *recency_alarms(outbox.store, watched, now, group_of, own.names),
        *freshness_alarms(context.instance, keys, group_of),
        *ticking_alarms(context.instance, now, {*filter(own.has_name, _instigators(context))}),
    ]


def _graph(context: dg.SensorEvaluationContext) -> Any:
    return context.repository_def.asset_graph if context.repository_def else None


def _instigators(context: dg.SensorEvaluationContext) -> set[str]:
    """Return the sensors and schedules that are defined now; Dagster's storage also has those of older definitions."""
    defined = context.repository_def
    if defined is None:
        return set()
    return {sensor.name for sensor in defined.sensor_defs} | {schedule.name for schedule in defined.schedule_defs}


def _groups(context: dg.SensorEvaluationContext, names: Names) -> GroupOf:
    graph = _graph(context)

    def group_of(key: dg.AssetKey) -> str:
        return names.plain_group(graph.get(key).group_name or "") if graph is not None and graph.has(key) else ""

    return group_of


class _Cursor:
    """The position up to which runs have been reported: a time, and the runs near it, because times are not unique."""

    def __init__(self, after: datetime, run_ids: list[str]) -> None:
        self.after = after
        self.run_ids = run_ids

    @classmethod
    def parse(cls, text: str | None) -> "_Cursor":
        if not text:
            return cls(datetime.now(UTC) - _FIRST_LOOK_BACK, [])
        fields = json.loads(text)
        return cls(datetime.fromisoformat(fields["after"]), fields["seen"])

    def dump(self) -> str:
        return json.dumps({"after": self.after.isoformat(), "seen": self.run_ids[-_REMEMBERED_RUNS:]})

    def passed(self, record: dg.RunRecord) -> None:
        self.after = max(self.after, _aware(record.update_timestamp))
        self.run_ids.append(record.dagster_run.run_id)


def _finished(instance: dg.DagsterInstance, cursor: _Cursor) -> list[dg.RunRecord]:
    """Return finished runs that have not been reported yet, oldest first.

    Runs of the last two minutes are read again: rows of parallel writers may appear after newer ones.
    """
    finished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], updated_after=cursor.after - _OVERLAP
    )
    records = instance.get_run_records(
        finished, limit=_RUNS_PER_TICK + len(cursor.run_ids), order_by="update_timestamp", ascending=True
    )
    return [record for record in records if record.dagster_run.run_id not in cursor.run_ids][:_RUNS_PER_TICK]


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
