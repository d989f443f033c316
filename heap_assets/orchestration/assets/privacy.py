"""Group `privacy`: erasures. Run configuration and metadata hold ids of requests, counts and hashes, and no values."""

from typing import Any

import dagster as dg
from pydantic import Field

from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.pipelines.erasure import run
from heap_assets.pipelines.erasure_requests import sweep, take_in_from_tables, write_request_table
from heap_assets.pipelines.person_export import write_sharing_log
from heap_assets.project import Names, Project
from heap_assets.tables import ERASURES

GROUP = "privacy"
_EVERY_HOUR = "25 * * * *"


class ErasureConfig(dg.Config):
    """Options of one run: ids of requests and nothing of a person, because Dagster keeps the configuration of runs."""

    requests: list[str] = Field(default=[], description="Ids of confirmed requests; all that are confirmed if empty")


def erasures(project: Project) -> dg.AssetsDefinition:
    """Return the asset of erasures, without partitions: a row per request, with its state and counts."""
    names = project.names

    @dg.asset(
        key=asset_key(ERASURES, names),
        group_name=names.group(GROUP),
        required_resource_keys={names.name(LAKE)},
        pool=names.name("erasure"),
        kinds={"parquet"},
        description="Takes in requests from tables, erases the people of all confirmed requests from every place, asks "
        "destinations to, polls those that take days, removes what came back, and writes proofs. Confirm requests by "
        "`heap-assets erase confirm`; the proof of one: `heap-assets erase proof`.",
    )
    @raising_failures
    def erase(context: dg.AssetExecutionContext, config: ErasureConfig) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake_of(context, names))
        new = take_in_from_tables(opened)
        result = run(opened, context.run.run_id, config.requests)
        came_back = sweep(opened)
        table = write_request_table(opened)
        shared = write_sharing_log(opened)
        states = dict(table["state"].value_counts(sort=True).iter_rows())
        for where, why in sorted(result.unsettled.items()):
            context.log.warning("not erased yet: %s: %s", where, why)
        return dg.MaterializeResult(
            metadata={
                "new_requests": len(new),
                "rows_erased": result.rows,
                "cells_erased": result.cells,
                "objects": result.objects,
                "unsettled": len(result.unsettled),
                "rows_that_came_back": came_back,
                "dagster/row_count": table.height,
                "fields_shared": shared.select("sync", "field").n_unique(),
                **{f"requests_{state}": count for state, count in sorted(states.items())},
            }
        )

    return erase


def erasure_job(names: Names) -> Any:
    """Return the job that erases, with ids of requests in its configuration."""
    return dg.define_asset_job(
        names.name("erase_people"),
        selection=dg.AssetSelection.assets(asset_key(ERASURES, names)),
        description="Erases the people of confirmed requests, all of them or those whose ids the configuration has.",
    )


def erasure_schedule(names: Names, job: Any, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule of erasures: each hour, which also asks destinations how far they are."""
    return dg.ScheduleDefinition(
        name=names.name("erase_and_poll"),
        job=job,
        cron_schedule=_EVERY_HOUR,
        execution_timezone="UTC",
        default_status=status,
        description="Takes in requests of erasure, erases those that are confirmed, and polls destinations.",
    )
