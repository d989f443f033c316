"""What a newcomer sees of every asset: what it is, who owns it, its columns, where they come from, and the code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.cli import execute_query

from heap_assets.config import settings_path
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.ui_metadata import CODE, LINEAGE, ORIGINS, SCHEMA
from heap_assets.project.project import Project, open_project

GROUPS = {
    "heap_connect",
    "heap_events",
    "heap_users",
    "warehouse",
    "identity",
    "profiles",
    "sync",
    "publish",
    "status",
} | {"privacy", "signals", "analytics", "models"}
WITHOUT_COLUMNS = ("heap_connect/", "status/", "publish/")


@pytest.fixture(scope="module")
def project() -> Project:
    return open_project()


@pytest.fixture(scope="module")
def definitions(project: Project) -> dg.Definitions:
    return build_definitions(project)


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_every_asset_says_what_it_is_who_owns_it_and_where_its_code_is(specs: dict[str, dg.AssetSpec]) -> None:
    for path, spec in specs.items():
        first = (spec.description or "").partition("\n")[0]
        assert first.endswith("."), path
        assert spec.owners, path
        assert spec.kinds, path
        assert spec.group_name in GROUPS, path
        if not path.startswith(("status/", "publish/", "audiences")):
            assert isinstance(spec.metadata[CODE], dg.CodeReferencesMetadataValue), path


def test_columns_are_described_and_personal_data_is_marked(specs: dict[str, dg.AssetSpec]) -> None:
    for path, spec in specs.items():
        if path.startswith(WITHOUT_COLUMNS):
            continue
        schema: dg.TableSchema = spec.metadata[SCHEMA]
        assert schema.columns, path
    marked = {
        (path, column.name)
        for path, spec in specs.items()
        if SCHEMA in spec.metadata
        for column in spec.metadata[SCHEMA].columns
        if "personal_data" in (column.tags or {})
    }
    assert {
        ("warehouse/crm_contacts", "email"),
        ("heap/users", "identity"),
        ("profiles", "heap_identities"),
        ("identity/graph", "identifier"),
    } <= marked


def test_every_property_that_is_sent_leads_back_to_columns_of_a_source(
    project: Project, specs: dict[str, dg.AssetSpec]
) -> None:
    lineage = {path: spec.metadata[LINEAGE].deps_by_column for path, spec in specs.items() if LINEAGE in spec.metadata}
    for name, sync in project.settings.sync.items():
        for prop in sync.properties:
            ends = _followed(lineage, f"sync/{name}", prop)
            assert ends, (name, prop)
            assert all(path.startswith(("warehouse/", "heap/")) for path, _ in ends), (name, prop, ends)
            shown = specs[f"sync/{name}"].metadata[ORIGINS].records
            assert any(record.data["property"] == prop and record.data["source"] for record in shown)


def test_identifiers_of_a_profile_lead_back_to_the_columns_that_name_people(specs: dict[str, dg.AssetSpec]) -> None:
    lineage = {path: spec.metadata[LINEAGE].deps_by_column for path, spec in specs.items() if LINEAGE in spec.metadata}
    ends = _followed(lineage, "profiles", "heap_identities")
    assert ("heap/users", "identity") in ends
    assert ("warehouse/crm_contacts", "email") in ends


def test_everything_that_runs_by_itself_or_by_hand_says_what_it_does(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    named = [
        *repository.sensor_defs,
        *repository.schedule_defs,
        *(job for job in repository.get_all_jobs() if not job.name.startswith("__")),
    ]
    assert len(named) > 10
    for definition in named:
        assert (definition.description or "").strip().endswith("."), definition.name


def test_links_to_code_lead_to_lines_that_are_there(specs: dict[str, dg.AssetSpec]) -> None:
    references = specs["sync/heap_user_properties"].metadata[CODE].code_references
    code, settings = references
    assert "def send(" in _line(code)
    assert _line(settings).strip().startswith("heap_user_properties:")
    assert settings.file_path == str(settings_path().absolute())


def _line(reference: dg.LocalFileCodeReference) -> str:
    return Path(reference.file_path).read_text().splitlines()[(reference.line_number or 1) - 1]


def _followed(lineage: dict[str, dict[str, list[dg.TableColumnDep]]], path: str, column: str) -> set[tuple[str, str]]:
    deps = lineage.get(path, {}).get(column, [])
    if not deps:
        return {(path, column)}
    return {end for dep in deps for end in _followed(lineage, dep.asset_key.to_user_string(), dep.column_name)}


def test_the_ui_is_told_of_the_lineage_too() -> None:
    """Ask as the UI does: sync to profiles to the source table, column by column, over GraphQL."""
    with dg.instance_for_test() as instance, _web(instance) as web:
        sync = _lineage_of(web, ["sync", "heap_user_properties"])
        assert sync["Deal Stage"] == [(["profiles"], "deal_stage")]
        profiles = _lineage_of(web, ["profiles"])
        assert profiles["deal_stage"] == [(["warehouse", "crm_contacts"], "stage")]


@contextmanager
def _web(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    target = ModuleTarget("heap_assets.definitions", None, str(settings_path().parent), "heap_assets")
    with WorkspaceProcessContext(instance, target) as process:
        yield process


def _lineage_of(web: WorkspaceProcessContext, path: list[str]) -> dict[str, list[tuple[list[str], str]]]:
    query = """query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode { metadataEntries {
        label ... on TableColumnLineageMetadataEntry {
            lineage { columnName columnDeps { assetKey { path } columnName } } } } } } }"""
    answer = execute_query(web, query, {"k": {"path": path}})
    entries = answer["data"]["assetNodeOrError"]["metadataEntries"]
    told = next(entry["lineage"] for entry in entries if entry["label"] == LINEAGE)
    return {
        column["columnName"]: [(dep["assetKey"]["path"], dep["columnName"]) for dep in column["columnDeps"]]
        for column in told
    }
