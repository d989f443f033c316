"""What every asset shows in the UI beside its data: columns with their meaning, where they come from, and the code.

Column lineage is kept as Dagster has it (`dagster/column_lineage`). The open-source UI draws no picture of it, so it is
told in words too: in the description of each column, and for a sync in a table from property to source columns.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.config import settings_path
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.column_docs import words_for
from heap_assets.pipelines import delivery
from heap_assets.pipelines.golden import audit_of_day, profiles_of_day
from heap_assets.pipelines.resolve import identity_of_day
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.project import Project
from heap_assets.sources.heap_connect import Landing, build_event_day, build_user_migrations, build_users
from heap_assets.tables import (
    AUDIT,
    GRAPH,
    HEAP,
    IDENTITY,
    LANDING,
    LINKS,
    MIGRATIONS,
    PROFILES,
    SYNCS,
    USERS,
    WAREHOUSE,
    is_sync,
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
    IDENTITY: identity_of_day,
    PROFILES: profiles_of_day,
    AUDIT: audit_of_day,
    SYNCS: delivery.send,
}
"""Asset, or how its name begins, to the function that makes it; the first that fits."""
_SECTIONS = {WAREHOUSE: "    {}:", SYNCS: "  {}:", PROFILES: "profiles:", IDENTITY: "identity:"}


def presented(
    loaded: Project, assets: Iterable[dg.AssetsDefinition | dg.AssetSpec]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets with columns, lineage and links to code, where they do not have them already."""
    mapped: Iterable[Any] = dg.map_asset_specs(partial(_presented, loaded), list(assets))
    return list(mapped)


def _presented(loaded: Project, spec: dg.AssetSpec) -> dg.AssetSpec:
    path = spec.key.to_user_string()
    metadata: dict[str, Any] = {**spec.metadata}
    if words := words_for(loaded, path):
        metadata[SCHEMA] = dg.TableSchema(
            [
                dg.TableColumn(name, description=told.text or None, tags=_PERSONAL if told.personal else None)
                for name, told in words.items()
            ]
        )
    if lineage := {**column_lineage(loaded, path), **_deps(metadata.get(LINEAGE))}:
        metadata[LINEAGE] = dg.TableColumnLineage(lineage)
    if is_sync(path) and lineage:
        metadata[ORIGINS] = _origins(loaded, lineage)
    if CODE not in metadata and (references := _references(path)):
        metadata[CODE] = dg.CodeReferencesMetadataValue(code_references=references)
    return spec.replace_attributes(metadata=metadata)


def column_lineage(loaded: Project, path: str) -> Deps:
    """Return the columns that identifiers come from, link by link of the chain from profiles to the source tables."""
    if path == PROFILES:
        graph = [dg.TableColumnDep(asset_key(GRAPH), "identifier")]
        return dict.fromkeys(("identifiers", "heap_identity", "heap_identities", "heap_user_ids"), graph)
    if path == GRAPH:
        ends = [dg.TableColumnDep(asset_key(LINKS), name) for name in ("value_a", "value_b")]
        return {"identifier": ends, "profile_id": ends}
    if path == LINKS:
        named = [
            dg.TableColumnDep(asset_key(asset), column.partition(".")[0].partition("[")[0])
            for asset, table in loaded.sources.items()
            for column in sorted({name for mapping in table.mappings for name in mapping.columns})
        ]
        return {"value_a": named, "value_b": named}
    return {}


def source_columns(loaded: Project, asset: dg.AssetKey, column: str) -> list[str]:
    """Return the source columns (`warehouse/t.column`) that a column of `profiles` comes from, itself if it is one."""
    traits = loaded.settings.profiles.traits
    if asset.to_user_string() == PROFILES and column in traits:
        return traits[column].sources
    return [f"{asset.to_user_string()}.{column}"]


def _origins(loaded: Project, lineage: Deps) -> dg.TableMetadataValue:
    """Return property, the column that is sent, and the source columns, as a table."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "property": prop,
                    "sent": ", ".join(f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps),
                    "source": ", ".join(
                        source for dep in deps for source in source_columns(loaded, dep.asset_key, dep.column_name)
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


def _references(path: str) -> list[dg.LocalFileCodeReference | dg.UrlCodeReference]:
    """Return the function that makes an asset, and the place in the settings that describes it."""
    found: list[dg.LocalFileCodeReference | dg.UrlCodeReference] = []
    made_by = next((code for name, code in _CODE.items() if path == name or path.startswith(name)), None)
    if made_by is not None:
        file, line = _place_of(made_by)
        found.append(dg.LocalFileCodeReference(file_path=file, line_number=line, label=made_by.__qualname__))
    settings = settings_path()
    section = next((text for name, text in _SECTIONS.items() if path == name or path.startswith(name)), None)
    if section is not None and settings.is_file():
        line = _line_of(settings, section.format(path.rpartition("/")[2]))
        found.append(
            dg.LocalFileCodeReference(file_path=str(settings.absolute()), line_number=line, label="the settings")
        )
    return found


@cache
def _place_of(function: Callable[..., Any]) -> tuple[str, int]:
    return inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1]


def _line_of(file: Path, beginning: str) -> int:
    lines = file.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(beginning)), 1)
