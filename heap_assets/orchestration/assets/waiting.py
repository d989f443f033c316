"""Reports of waiting assets: on the page of each asset, and in the ticks of sensors that request nothing."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

# What a sensor's tick knows and returns; they have no public names.
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster_shared.record import copy

from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.assets.table_step import WAITS
from heap_assets.orchestration.automation import Recent
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.failures import raising_failures
from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.readiness import landing_pauses
from heap_assets.pipelines.waiting import Wait, waits
from heap_assets.project import Names, Project
from heap_assets.tables import HEAP

NAME = "waits"
UNTIL = "waits_until"
_INTERVAL_SECONDS = 60
_REMEMBERED_SECONDS = 30.0
_SHOWN = 8
_LONG_SECONDS = 4.0
_PAUSE = 9
"""After an evaluation that took long, a pause of so many times as long: a tenth of a core is enough for conditions."""
_LONGEST_PAUSE_SECONDS = 120.0


def waiting_sensor(project: Project, *, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Return the sensor that logs an observation on each asset that begins to wait, or whose reason changed."""

    @dg.sensor(
        name=project.names.name(NAME),
        description="Writes on the page of an asset what it waits for and until when, once for each reason.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=status,
    )
    @raising_failures
    def report_waits(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        reported: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        current = waits(project)
        return dg.SensorResult(
            skip_reason=summary(current) or "nothing waits",
            cursor=json.dumps({wait.asset: wait.cause for wait in current}),
            asset_events=[
                _observation(project.names, wait) for wait in current if reported.get(wait.asset) != wait.cause
            ],
        )

    return report_waits


class Reasons:
    """Reasons why the sensors of asset groups request nothing; reads the lake twice a minute at most."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._waits = Recent(lambda: waits(project), _REMEMBERED_SECONDS)

    def of(self, *prefixes: str, otherwise: str) -> Callable[[], str]:
        """Return a function of the reason why assets whose paths begin with `prefixes` wait, or `otherwise`."""

        def _why() -> str:
            try:
                return summary([wait for wait in self._waits() if wait.asset.startswith(prefixes)]) or otherwise
            except HeapAssetsError as error:
                return str(error)  # the conditions were evaluated all the same

        return _why

    def of_tables(self) -> str:
        """Return why no day of Heap's tables is built now."""
        project = self._project
        if not is_exported(project) and not landing_pauses(project):
            return "dumps are landing: the days that they touched are built when that pauses"
        return self.of(HEAP, otherwise="every day that was touched is built, being built, or failed")()


def _observation(names: Names, wait: Wait) -> dg.AssetObservation:
    until = {UNTIL: dg.MetadataValue.timestamp(wait.until)} if wait.until else {}
    metadata: dict[str, Any] = {WAITS: str(wait), **until}
    return dg.AssetObservation(asset_key(wait.asset, names), description=str(wait), metadata=metadata)


def summary(waits_shown: Sequence[Wait]) -> str:
    """Return waits in one text, the assets grouped by reason."""
    assets: dict[str, list[str]] = {}
    for wait in waits_shown:
        assets.setdefault(str(wait), []).append(wait.asset)
    texts = [f"{', '.join(waiting_assets)}: {reason}" for reason, waiting_assets in assets.items()]
    return "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


class ExplainingSensor(dg.AutomationConditionSensorDefinition):
    """A sensor of automation conditions whose tick explains why it requests nothing; Dagster says "empty result".

    While years of hundreds of tables are built, an evaluation takes seconds of the cores that build them: then it rests
    for some ticks.
    """

    def __init__(self, name: str, *, why: Callable[[], str], **options: Any) -> None:
        super().__init__(name, use_user_code_server=True, **options)
        self._why = why
        self._took = self._paused_until = 0.0

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """Evaluate the conditions; a tick without runs gets the reason."""
        begun = time.monotonic()
        if begun < self._paused_until:
            left = self._paused_until - begun
            reason = f"the last evaluation took {self._took:.0f} s; the next one follows in {left:.0f} s"
            return SensorExecutionData(skip_message=reason, cursor=context.cursor)
        data = super().evaluate_tick(context)
        self._took = time.monotonic() - begun
        if self._took > _LONG_SECONDS:
            self._paused_until = begun + self._took + min(_PAUSE * self._took, _LONGEST_PAUSE_SECONDS)
        if not data.run_requests:
            return copy(data, skip_message=self._why())
        graph = context.repository_def.asset_graph  # type: ignore[union-attr]
        return copy(data, run_requests=[_with_checks_unnamed(request, graph) for request in data.run_requests])


def _with_checks_unnamed(request: dg.RunRequest, graph: AssetGraph) -> dg.RunRequest:
    """Return a request that does not name the checks if it is for all of its assets: they come with those.

    A run's record names them otherwise, a thousand for two hundred tables, and the UI reads the records of the runs
    that go on for each of their assets.
    """
    keys = graph.get_check_keys_for_assets(set(request.asset_selection or ()))
    return copy(request, asset_check_keys=None) if keys == {*(request.asset_check_keys or ())} else request
