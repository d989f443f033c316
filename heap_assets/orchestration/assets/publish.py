"""Group `publish`: assets of the lake as tables of a warehouse, one partition a day, nothing loaded twice."""

from collections.abc import Iterable, Iterator
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.orchestration.assets.table_step import materializations, note_wait
from heap_assets.orchestration.automation import PUBLISHED_DAYS, PUBLISHED_VIEWS
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.publishing import (
    PublishedTable,
    make_views,
    open_publisher,
    publish_day,
    published_tables,
    resolvable,
)
from heap_assets.pipelines.suites import loaded_cadence
from heap_assets.project import Project, remember_environment
from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse import (
    AccessError,
    Published,
    Publisher,
    PublishError,
    WarehouseBusyError,
    WarehouseError,
    format_counts,
    format_renames,
)
from heap_assets.tables import GRAPH, MIGRATIONS, publish_asset

GROUP = "publish"
GRAPH_TABLE = "identity_graph"
_LATER = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For a quota that is used up or a server that is away; what is wrong stays wrong and is not tried again."""


def publishing(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Yield, for each target, the step that publishes its tables and the asset of its `heap_resolved` views."""
    for target in project.settings.publish:
        yield _tables(project, target)
        if resolvable(project, target):
            yield _views(project, target)


def _tables(
    project: Project,
    target: str,
) -> dg.AssetsDefinition:
    names = project.names
    tables = {asset_key(table.asset, names): table for table in published_tables(project, target)}

    @dg.multi_asset(
        name=names.name(f"publish_{target}"),
        specs=[_spec(project, target, table) for table in tables.values()],
        partitions_def=days(project.settings.first_day),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(project.settings.run.days_per_run),
        retry_policy=_LATER,
        pool=names.name(f"publish_{target}"),
        required_resource_keys={names.name(LAKE)},
        description=f"Publishes days to {target}; any subset of tables in one step, each for itself.",
    )
    @partial(raising_failures, retried=True)
    def publish_tables(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened = project.with_lake(lake_of(context, names))
        remember_environment(opened, target)
        publisher = _publisher(opened, target)
        failures: dict[str, HeapAssetsError] = {}
        for key in sorted(context.selected_asset_keys):
            yield from _publish(context, opened, publisher, tables[key], failures)
        if failures:
            reasons = "\n".join(str(error) for error in failures.values())
            raise dg.Failure(f"{', '.join(failures)}\n{reasons}", allow_retries=_passes(failures.values()))

    return publish_tables


def _publisher(project: Project, target: str) -> Publisher:
    """Open a target; a host that is not allowed or a connection string nobody can read is not tried again."""
    try:
        return open_publisher(project, target)
    except HeapAssetsError as error:
        raise dg.Failure(str(error), allow_retries=_passes([error])) from None


def _passes(failures: Iterable[HeapAssetsError]) -> bool:
    return all(isinstance(error, WarehouseBusyError) for error in failures)


def _publish(
    context: dg.AssetExecutionContext,
    project: Project,
    publisher: Publisher,
    table: PublishedTable,
    failures: dict[str, HeapAssetsError],
) -> Iterator[Any]:
    """Publish a table's days, each for itself; a refusal by the target ends the table, one of access or quota all."""
    if any(isinstance(error, AccessError | WarehouseBusyError) for error in failures.values()):
        return
    published: dict[str, dict[str, Any]] = {}
    for day in context.partition_keys:
        try:
            published[day] = _metadata(publish_day(project, publisher, table, date.fromisoformat(day)))
        except MissingInputError as error:
            note_wait(context, asset_key(table.asset, project.names), day, str(error))
        except Exception as error:  # whatever is wrong with one table stops that table
            reported = (
                error if isinstance(error, HeapAssetsError) else PublishError(f"{table.asset}: {redact_error(error)}")
            )
            context.log.error("%s %s: %s", table.asset, day, reported)  # noqa: TRY400  the message says all
            failures[f"{table.asset} {day}"] = reported
            if isinstance(reported, WarehouseError):
                break
    yield from materializations(context, asset_key(table.asset, project.names), published)


def _views(project: Project, target: str) -> dg.AssetsDefinition:
    names, settings = project.names, project.settings.publish[target]
    into = str(settings.resolved_views)

    @dg.asset(
        key=asset_key(publish_asset(target, into), names),
        deps=[asset_key(table.asset, names) for table in [*resolvable(project, target), *_resolving(project, target)]],
        group_name=project.names.group(GROUP),
        kinds={settings.kind, "view"},
        metadata={"dagster/table_name": into},
        automation_condition=PUBLISHED_VIEWS,
        freshness_policy=policy_for("sync", loaded_cadence(project)),
        retry_policy=_LATER,
        pool=names.name(f"publish_{target}"),
        required_resource_keys={names.name(LAKE)},
        description="Views of the published event tables with today's `resolved_user_id` and `profile_id`.\n\n"
        "Published events keep `user_id` as Heap exported it; the views resolve it with the newest published day of "
        f"{MIGRATIONS} and {GRAPH}, and read no other.",
    )
    @partial(raising_failures, retried=True)
    def build(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake_of(context, names))
        publisher = _publisher(opened, target)
        try:
            publisher.exists(GRAPH_TABLE)  # views that are remembered say nothing of a target that is away
            remade = make_views(opened, publisher, target)
        except HeapAssetsError as error:
            raise dg.Failure(str(error), allow_retries=_passes([error])) from None
        views = (
            "none: nothing to resolve with was published yet"
            if remade is None
            else ", ".join(remade) or "all unchanged"
        )
        return dg.MaterializeResult(metadata={"views_made": len(remade or ()), "views": views})

    return build


def _resolving(project: Project, target: str) -> list[PublishedTable]:
    names = ("heap_user_migrations", GRAPH_TABLE)
    return [table for table in published_tables(project, target) if table.publication.table in names]


def _spec(project: Project, target: str, table: PublishedTable) -> dg.AssetSpec:
    settings = project.settings.publish[target]
    return dg.AssetSpec(
        asset_key(table.asset, project.names),
        deps=[asset_key(source, project.names) for source in table.sources],
        skippable=True,
        description=f"{table.publication.description}.\n\n{'The table' if table.of else 'A day'} is replaced whole; a "
        "version that was loaded is not loaded again.",
        group_name=project.names.group(GROUP),
        kinds={settings.kind},
        tags={"target": target},
        metadata={"dagster/table_name": f"{settings.container}.{table.publication.table}"},
        automation_condition=None if settings.schedule or table.of else PUBLISHED_DAYS,
        freshness_policy=policy_for("sync", loaded_cadence(project)),
    )


def _metadata(published: Published) -> dict[str, Any]:
    return {
        "status": str(published.status),
        "dagster/partition_row_count": published.rows,
        "bytes": published.bytes,
        "seconds": round(published.seconds, 3),
        "jobs": ", ".join(published.jobs) or "none",
        "added_columns": ", ".join(published.added_columns) or "none",
        "renamed_columns": format_renames(published.renamed) or "none",
        "values_lost": sum(published.lost.values()),
        "values_lost_in": format_counts(published.lost) or "none",
    }
