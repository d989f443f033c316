"""One step that builds many tables, partition by partition, and judges each as it goes.

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

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.orchestration.assets.days import materializations, note_wait
from heap_assets.orchestration.checks import StepChecks, asset_key, check_specs
from heap_assets.orchestration.resources import LakeResource, partition_metadata, table_schema
from heap_assets.pipelines.table import UNREADABLE, VALUES_LOST_IN, Table, Task
from heap_assets.project import Project
from heap_assets.quality import Check, Verdict, nothing_to_judge_by
from heap_assets.redaction import redacting
from heap_assets.storage import Status

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


def table_step(
    name: str,
    tables: Sequence[TableAsset],
    project: Callable[[LakeResource], Project],
    partitions_def: dg.DailyPartitionsDefinition,
    *,
    days_per_run: int,
    description: str,
) -> dg.AssetsDefinition:
    """Make the step that builds `tables`; any subset of them and any range of days is one run."""
    by_key = {asset_key(table.path): table for table in tables}
    checks = [check for table in tables for check in table.checks]

    @dg.multi_asset(
        name=name,
        specs=[table.spec.replace_attributes(skippable=True) for table in tables],
        check_specs=check_specs(checks, partitions_def),
        partitions_def=partitions_def,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(days_per_run),
        description=description,
        pool=name,
    )
    @redacting
    def build_tables(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        there = project(lake)
        step = StepChecks(context, there.lake, checks)
        # sessions first: checks of the other tables ask which sessions there are
        for key in sorted(context.selected_asset_keys, key=lambda k: (k.path[-1] != "sessions", k.path)):
            yield from _build_table(context, there, by_key[key], step)
        for path in step.assets:
            # the button "Execute" of a check asks for its result alone: nothing is built
            if asset_key(path) not in context.selected_asset_keys:
                yield from step.judge_again(path, context.partition_keys)
        yield from step.finish()

    return build_tables


def _build_table(
    context: dg.AssetExecutionContext, project: Project, table: TableAsset, step: StepChecks
) -> Iterator[Any]:
    verdicts: dict[str, Verdict] = {}
    built: dict[str, dict[str, Any]] = {}
    for day in context.partition_keys:
        try:
            metadata = _build_day(project, table, day)
        except MissingInputError as error:
            note_wait(context, table.path, day, str(error))
            verdicts[day] = nothing_to_judge_by(f"waits: {error}"[:_SHOWN_REASON])
            continue
        except HeapAssetsError as error:
            context.log.error("%s %s: %s", table.path, day, error)  # noqa: TRY400  the message says all
            verdicts[day] = Verdict(False, notes={"reason": str(error)[:_SHOWN_REASON]})
            continue
        missing = metadata.get(UNREADABLE)
        verdicts[day] = Verdict(False, notes={"reason": str(missing)[:_SHOWN_REASON]}) if missing else Verdict(True)
        built[day] = metadata
    yield from materializations(context, asset_key(table.path), built)
    for day, readable in verdicts.items():
        yield from step.judge(table.path, day, {"readable": readable})


def _build_day(project: Project, table: TableAsset, day: str) -> dict[str, Any]:
    started = time.monotonic()
    lake = project.lake
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        made = table.build(Task(project, date.fromisoformat(day), Path(scratch)))
        if made is None:
            kept = lake.find(table.path, day)
            return {"status": "kept"} | (partition_metadata(kept) if kept else {})
        written = lake.write(table.path, day, made.writer or made.frame, made.inputs, notes=made.notes)
    metadata: dict[str, Any] = {"status": str(written.status), "seconds": round(time.monotonic() - started, 3)}
    numbers = {name: value for name, value in made.notes.items() if isinstance(value, bool | int | float | str)}
    if written.status is Status.WRITTEN:
        metadata["dagster/column_schema"] = table_schema(lake.scan(table.path, day).collect_schema())
    if isinstance(lost := made.notes.get(VALUES_LOST_IN), Mapping):
        numbers[VALUES_LOST_IN] = ", ".join(f"{column}: {count}" for column, count in sorted(lost.items()))
    return metadata | numbers | partition_metadata(written.partition)
