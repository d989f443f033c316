"""One step that builds many tables, partition by partition, and evaluates the checks of each.

A process per table would cost more than the tables (reference: 500 assets load in a second, 40 steps start in 90), so
tables of one kind share one subsettable step. A table that fails yields no materialization and a failed `readable`
check; the others, and everything downstream of them, go on.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

# Dagster's own mark of an output that reports no materialization; it has no public name.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.orchestration.checks import LAKE, READABLE, StepChecks, asset_key, check_specs, lake_of
from heap_assets.orchestration.column_types import table_schema
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days, partition_metadata
from heap_assets.pipelines.table import UNREADABLE, VALUES_LOST_IN, Table, Task
from heap_assets.project import Project
from heap_assets.quality import Check, CheckResult, nothing_to_compare
from heap_assets.storage import Status

WAITS = "waits"
"""Metadata of an observation: what an asset waits for, in words, and until when where that is known."""


class Days:
    """Builds the days of one asset in a run.

    >>> days = Days(context, "profiles", key)                                               # doctest: +SKIP
    >>> for day in context.partition_keys:                                                  # doctest: +SKIP
    ...     days.build(day, lambda: _build(day))
    >>> yield from days.results()                                                           # doctest: +SKIP
    """

    def __init__(self, context: dg.AssetExecutionContext, path: str, key: dg.AssetKey) -> None:
        self._context = context
        self._path = path
        self._key = key
        self._built: dict[str, Mapping[str, Any]] = {}
        self._failed: dict[str, HeapAssetsError] = {}

    def build(self, day: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Build a day by `make`, which returns its metadata; a missing input or an error is noted."""
        try:
            self._built[day] = make()
        except MissingInputError as error:
            note_wait(self._context, self._key, day, str(error))
        except HeapAssetsError as error:
            self._context.log.error("%s %s: %s", self._path, day, error)  # noqa: TRY400  the message says all
            self._failed[day] = error

    def results(self) -> Iterator[Any]:
        """Yield what was built.

        Raises Failure, naming the days that could not be built for another reason than a missing input.
        """
        yield from materializations(self._context, self._key, self._built)
        if self._failed:
            reasons = "\n".join(f"{day}: {error}" for day, error in self._failed.items())
            raise dg.Failure(f"{self._path} could not be built for {len(self._failed)} days\n{reasons}")


def note_wait(context: dg.AssetExecutionContext, key: dg.AssetKey, day: str, reason: str) -> None:
    """Report that a day waits for an input: a warning in the run's log and an observation on the asset."""
    context.log.warning("%s %s waits: %s", key.to_user_string(), day, reason)
    context.log_event(dg.AssetObservation(key, partition=day, metadata={WAITS: reason}))


def materializations(
    context: dg.AssetExecutionContext, key: dg.AssetKey, built: Mapping[str, Mapping[str, Any]]
) -> Iterator[Any]:
    """Yield the output of `key`, and report a materialization for each built day of the run.

    `built`: day to metadata. A `MaterializeResult` covers all partitions of a run, so a run in which some days failed
    logs a materialization per day instead and yields a plain output, with which downstream steps go on. Without any
    built day nothing is yielded: the output must be skippable.
    """
    if len(built) == len(context.partition_keys):
        for day, metadata in built.items():
            context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
        yield dg.MaterializeResult(asset_key=key)
        return
    for day, metadata in built.items():
        context.log_event(dg.AssetMaterialization(key, partition=day, metadata=metadata))
    if built:
        name = context.assets_def.get_output_name_for_asset_key(key)
        yield dg.Output(None, output_name=name, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


_SHOWN_REASON = 500


Build = Callable[[Task], Table | None]
"""Builds one day; None if that day is kept as it is (a live source has no past)."""


@dataclass(frozen=True)
class TableAsset:
    """One table of a step."""

    path: str
    build: Build
    spec: dg.AssetSpec
    checks: Sequence[Check] = field(default=())


def table_step(name: str, tables: Sequence[TableAsset], project: Project, *, description: str) -> dg.AssetsDefinition:
    """Make the step that builds `tables`; any subset of them and any range of days is one run."""
    names = project.names
    by_key = {table.spec.key: table for table in tables}
    checks = [check for table in tables for check in table.checks]
    partitions_def = days(project.settings.first_day)

    @dg.multi_asset(
        name=names.name(name),
        specs=[table.spec.replace_attributes(skippable=True) for table in tables],
        check_specs=check_specs(checks, partitions_def, names),
        partitions_def=partitions_def,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(project.settings.run.days_per_run),
        description=description,
        pool=names.name(name),
        required_resource_keys={names.name(LAKE)},
    )
    @raising_failures
    def build_tables(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened = project.with_lake(lake_of(context, names))
        step = StepChecks(context, opened.lake, checks, names)
        # sessions first: checks of the other tables ask which sessions there are
        for key in sorted(context.selected_asset_keys, key=lambda k: (k.path[-1] != "sessions", k.path)):
            yield from _build_table(context, opened, by_key[key], step)
        for path in step.assets:
            # the button "Execute" of a check asks for its result alone: nothing is built
            if asset_key(path, names) not in context.selected_asset_keys:
                yield from step.re_evaluate(path, context.partition_keys)
        yield from step.finish()

    return build_tables


def _build_table(
    context: dg.AssetExecutionContext, project: Project, table: TableAsset, step: StepChecks
) -> Iterator[Any]:
    results: dict[str, CheckResult] = {}
    built: dict[str, dict[str, Any]] = {}
    for day in context.partition_keys:
        try:
            metadata = _build_day(project, table, day)
        except MissingInputError as error:
            note_wait(context, table.spec.key, day, str(error))
            results[day] = nothing_to_compare(f"waits: {error}"[:_SHOWN_REASON])
            continue
        except HeapAssetsError as error:
            context.log.error("%s %s: %s", table.path, day, error)  # noqa: TRY400  the message says all
            results[day] = CheckResult(False, notes={"reason": str(error)[:_SHOWN_REASON]})
            continue
        missing = metadata.get(UNREADABLE)
        results[day] = (
            CheckResult(False, notes={"reason": str(missing)[:_SHOWN_REASON]}) if missing else CheckResult(True)
        )
        built[day] = metadata
    for day, readable in results.items():
        figures = step.evaluate_and_store(table.path, day, {READABLE: readable})
        if day in built:
            built[day] |= figures
    yield from materializations(context, table.spec.key, built)
    yield from step.report(table.path, results)


def _build_day(project: Project, table: TableAsset, day: str) -> dict[str, Any]:
    started = time.monotonic()
    lake = project.lake
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        table_day = table.build(Task(project, date.fromisoformat(day), Path(scratch)))
        if table_day is None:
            stored = lake.find(table.path, day)
            return {"status": "kept"} | (partition_metadata(stored) if stored else {})
        written = lake.write(
            table.path, day, table_day.writer or table_day.frame, table_day.inputs, notes=table_day.notes
        )
    metadata: dict[str, Any] = {"status": str(written.status), "seconds": round(time.monotonic() - started, 3)}
    numbers = {name: value for name, value in table_day.notes.items() if isinstance(value, bool | int | float | str)}
    if written.status is Status.WRITTEN:
        metadata["dagster/column_schema"] = table_schema(lake.scan(table.path, day).collect_schema())
    if isinstance(lost := table_day.notes.get(VALUES_LOST_IN), Mapping):
        numbers[VALUES_LOST_IN] = ", ".join(f"{column}: {count}" for column, count in sorted(lost.items()))
    return partition_metadata(written.partition) | numbers | metadata
