"""Metadata of assets for the UI: columns with their meaning and lineage, and code references."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.column_types import declared_type
from heap_assets.orchestration.groups import owners_of
from heap_assets.pipelines import delivery, erasure
from heap_assets.pipelines.analytics import analytics_of_day
from heap_assets.pipelines.column_docs import column_docs
from heap_assets.pipelines.findings import findings
from heap_assets.pipelines.keys import key_states
from heap_assets.pipelines.labels import drift_of_labels
from heap_assets.pipelines.models import model_of_day
from heap_assets.pipelines.people import audit_of_day, identity_of_day, profiles_of_day
from heap_assets.pipelines.reports import report_day
from heap_assets.pipelines.retention import expired_events
from heap_assets.pipelines.reverse_etl import start_and_wait
from heap_assets.pipelines.reviewing import reviewed_table
from heap_assets.pipelines.signals import signal_of_day
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.unified_events import unified_day
from heap_assets.project import Project
from heap_assets.sources.heap_connect import Landing, build_event_day, build_user_migrations, build_users
from heap_assets.tables import (
    ANALYTICS,
    AUDIT,
    ERASURES,
    FINDINGS,
    GRAPH,
    HEAP,
    IDENTITY,
    KEYS,
    LABELS,
    LANDING,
    LINKS,
    MIGRATIONS,
    MODELS,
    PROFILES,
    REPORTS,
    RETENTION,
    REVERSE_ETL,
    REVIEW,
    SIGNALS,
    SYNCS,
    UNIFIED_EVENTS,
    USERS,
    WAREHOUSE,
    is_sync,
    is_warehouse_table,
    warehouse_table,
)

SCHEMA, LINEAGE, CODE = "dagster/column_schema", "dagster/column_lineage", "dagster/code_references"
ORIGINS = "where_it_comes_from"
_PERSONAL = {"personal_data": ""}
Deps = Mapping[str, list[dg.TableColumnDep]]
_CODE: Mapping[str, Callable[..., Any]] = {
    LANDING: Landing.land,
    USERS: build_users,
    MIGRATIONS: build_user_migrations,
    HEAP: build_event_day,
    WAREHOUSE: snapshot_of_day,
    REVIEW: reviewed_table,
    IDENTITY: identity_of_day,
    PROFILES: profiles_of_day,
    AUDIT: audit_of_day,
    UNIFIED_EVENTS: unified_day,
    ERASURES: erasure.run,
    FINDINGS: findings,
    KEYS: key_states,
    RETENTION: expired_events,
    SYNCS: delivery.send,
    SIGNALS: signal_of_day,
    ANALYTICS: analytics_of_day,
    MODELS: model_of_day,
    REVERSE_ETL: start_and_wait,
    REPORTS: report_day,
    LABELS: drift_of_labels,
}
"""Asset, or how its name begins, to the function that makes it; the first that fits."""
_LISTED = dict.fromkeys((SYNCS, REVERSE_ETL, SIGNALS, ANALYTICS, MODELS, REPORTS), "  {}:")
_SECTIONS = {WAREHOUSE: "    {}:", **_LISTED, PROFILES: "profiles:", IDENTITY: "identity:"}


def with_ui_metadata(
    project: Project, assets: Iterable[dg.AssetsDefinition | dg.AssetSpec]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets with owners, columns, lineage and links to code, where they do not have them already."""
    mapped: Iterable[Any] = dg.map_asset_specs(partial(_with_ui_metadata, project), list(assets))
    return list(mapped)


def _with_ui_metadata(project: Project, spec: dg.AssetSpec) -> dg.AssetSpec:
    path = project.names.path(spec.key.path)
    if path is None:
        return spec  # of another project
    metadata: dict[str, Any] = {**spec.metadata}
    if docs := column_docs(project, path):
        metadata[SCHEMA] = dg.TableSchema(
            [
                dg.TableColumn(
                    name,
                    declared_type(project, path, name),
                    description=doc.text or None,
                    tags=_PERSONAL if doc.personal else None,
                )
                for name, doc in docs.items()
            ]
        )
    if lineage := {**column_lineage(project, path), **_deps(metadata.get(LINEAGE))}:
        metadata[LINEAGE] = dg.TableColumnLineage(lineage)
    if is_sync(path) and lineage:
        metadata[ORIGINS] = _origins(project, lineage)
    if CODE not in metadata and (references := _references(project, path)):
        metadata[CODE] = dg.CodeReferencesMetadataValue(code_references=references)
    owners = list(spec.owners) or owners_of(project, path, project.names.plain_group(spec.group_name or ""))
    return spec.replace_attributes(metadata=metadata, owners=owners)


def column_lineage(project: Project, path: str) -> Deps:
    """Return the columns that identifiers come from, link by link of the chain from profiles to the source tables.

    A warehouse table's columns come from those of its `upstream`.
    """
    if path == PROFILES:
        graph = [dg.TableColumnDep(asset_key(GRAPH, project.names), "identifier")]
        return dict.fromkeys(("identifiers", "heap_identity", "heap_identities", "heap_user_ids"), graph)
    if path == GRAPH:
        ends = [dg.TableColumnDep(asset_key(LINKS, project.names), name) for name in ("value_a", "value_b")]
        return {"identifier": ends, "profile_id": ends}
    if path == LINKS:
        columns = [
            dg.TableColumnDep(asset_key(asset, project.names), column.partition(".")[0].partition("[")[0])
            for asset, table in project.sources.items()
            for column in sorted({name for mapping in table.mappings for name in mapping.columns})
        ]
        return {"value_a": columns, "value_b": columns}
    if is_warehouse_table(path) and (table := project.settings.source_tables[warehouse_table(path)]).upstream:
        documented = {*column_docs(project, path), *project.settings.columns_of_syncs(warehouse_table(path))}
        upstream = dg.AssetKey(table.upstream)
        return {name: [dg.TableColumnDep(upstream, name)] for name in sorted(documented | {*(table.columns or ())})}
    return {}


def source_columns(project: Project, asset: dg.AssetKey, column: str) -> list[str]:
    """Return the source columns (`warehouse/t.column`) that a column of `profiles` comes from, itself if it is one."""
    traits = project.settings.profiles.traits
    path = project.names.path(asset.path)
    if path == PROFILES and column in traits:
        return traits[column].sources
    return [f"{path or asset.to_user_string()}.{column}"]


def _origins(project: Project, lineage: Deps) -> dg.TableMetadataValue:
    """Return property, the column that is sent, and the source columns, as a table."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "property": prop,
                    "sent": ", ".join(f"{project.names.path(dep.asset_key.path)}.{dep.column_name}" for dep in deps),
                    "source": ", ".join(
                        source for dep in deps for source in source_columns(project, dep.asset_key, dep.column_name)
                    ),
                }
            )
            for prop, deps in lineage.items()
        ]
    )


def _deps(lineage: object) -> Deps:
    if isinstance(lineage, dg.TableColumnLineageMetadataValue):
        lineage = lineage.value
    return (
        {name: list(deps) for name, deps in lineage.deps_by_column.items()}
        if isinstance(lineage, dg.TableColumnLineage)
        else {}
    )


def _references(project: Project, path: str) -> list[dg.LocalFileCodeReference | dg.UrlCodeReference]:
    """Return the function that makes an asset, and the place in the settings that describes it."""
    references: list[dg.LocalFileCodeReference | dg.UrlCodeReference] = []
    key = f"{WAREHOUSE}{path.partition('/')[2]}" if is_warehouse_table(path) else path
    made_by = next((code for name, code in _CODE.items() if key.startswith(name)), None)
    if made_by is not None:
        file, line = _place_of(made_by)
        references.append(dg.LocalFileCodeReference(file_path=file, line_number=line, label=made_by.__qualname__))
    settings = project.file
    section = next((text for name, text in _SECTIONS.items() if key.startswith(name)), None)
    if section is not None and settings.is_file():
        line = _line_of(settings, section.format(path.rpartition("/")[2]))
        references.append(
            dg.LocalFileCodeReference(file_path=str(settings.absolute()), line_number=line, label="the settings")
        )
    return references


@cache
def _place_of(function: Callable[..., Any]) -> tuple[str, int]:
    return inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1]


def _line_of(file: Path, beginning: str) -> int:
    lines = file.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(beginning)), 1)
