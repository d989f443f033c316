"""What Heap's plan allows (features.md G22 to G25): destinations, SQL, the API, and how often data leaves.

Nothing but the fastest cadence is asked about unless the settings name the plan: the default only stands for a quota.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from croniter import croniter  # type: ignore[import-untyped]

from heap_assets.activation import built_in_kinds
from heap_assets.config import ExportedSource, Settings
from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect import FASTEST, Plan

_TICKS = 400
"""Ticks of a cron that are compared: more than a year of days, a day of those every four minutes."""
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def check_plan(settings: Settings) -> None:
    """Hold the settings against the plan of the contract.

    Raises
    ------
    SettingsError
        Naming the first key that the plan does not allow, why, and how to say that the contract allows it.
    """
    heap = settings.heap
    if timedelta(hours=heap.cadence_hours) < (fastest := FASTEST[Plan(heap.plan)]):
        raise SettingsError(
            f"heap.cadence_hours is {heap.cadence_hours}, but the {heap.plan} plan exports at most every "
            f"{fastest // timedelta(hours=1)} hours"
        )
    if "plan" not in heap.model_fields_set:
        return
    for beyond, refusal in _refusals(settings, Plan(heap.plan)):
        if beyond not in heap.beyond_plan:
            raise SettingsError(f"{refusal}. If the contract allows it: heap.beyond_plan: [{beyond}]")


def _refusals(settings: Settings, plan: Plan) -> Iterator[tuple[str, str]]:
    if plan is Plan.GROWTH and isinstance(settings.heap.source, ExportedSource):
        yield (
            "sql",
            f"heap.source.kind is {settings.heap.source.kind!r}, but the growth plan has no Heap Connect SQL; "
            "expected: s3 or folder",
        )
    for name, sync in settings.sync.items():
        is_custom = sync.is_custom or sync.kind not in built_in_kinds()
        if plan is Plan.GROWTH and not (is_custom or sync.in_every_plan):
            vendors = sorted({kind.kind_name().partition("_")[0] for kind in settings.sync_kinds if kind.in_every_plan})
            reason = f"the growth plan has limited integrations: {', '.join(vendors)}"
            yield "destinations", f"sync.{name} sends to {sync.vendor}, but {reason}"
        if plan is not Plan.PREMIER and is_custom:
            reason = f"the {plan} plan has no custom integrations: they need premier"
            yield "custom", f"sync.{name} sends to a destination of your own, but {reason}"
        if plan is Plan.GROWTH and sync.needs_full_api:
            reason = "the growth plan has basic API access: events, user properties and identify"
            yield "api", f"sync.{name} is of kind {sync.kind}, but {reason}"
    for key, cron in _crons(settings):
        if (gap := shortest_gap(cron)) < FASTEST[plan]:
            reason = f"the {plan} plan exports once {_words(FASTEST[plan])}"
            yield "frequency", f"{key} is {cron!r}: some of its ticks are {_words(gap)} apart, but {reason}"


def _crons(settings: Settings) -> Iterator[tuple[str, str]]:
    written = {f"sync.{name}": settings.sync_schedule(name) for name in settings.sync}
    written |= {f"publish.{name}": target.schedule for name, target in settings.publish.items()}
    written |= {f"reverse_etl.{name}": chosen.schedule for name, chosen in settings.reverse_etl.items()}
    yield from ((f"{key}.schedule", cron) for key, cron in written.items() if cron is not None)


def shortest_gap(cron: str) -> timedelta:
    """Return the shortest time between two ticks of a schedule."""
    ticks = islice(croniter(cron, _MONDAY).all_next(datetime), _TICKS)
    gaps: Iterator[timedelta] = (later - earlier for earlier, later in pairwise(ticks))
    return min(gaps)


def _words(time: timedelta) -> str:
    names = {24 * _HOUR: "a day", _HOUR: "an hour", _MINUTE: "a minute"}
    return names.get(time) or (
        f"{time // _HOUR} hours" if time % _HOUR == timedelta() else f"{time // _MINUTE} minutes"
    )
