"""Identity, profiles and audit as assets, and what makes them run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.pipelines import readiness
from heap_assets.pipelines.readiness import graph_is_due, identity_inputs, unbuilt_days
from heap_assets.pipelines.reviewing import review_of_day
from heap_assets.quality import result_store
from heap_assets_tests.orchestration.company_platform import IDENTITY, World, make_world, why


def test_a_day_is_resolved_with_profiles_checks_and_audit(resolved: World) -> None:
    newest = str(resolved.company.until)
    for asset in (*IDENTITY, "profiles", "audit", "identity/review"):
        assert newest in resolved.materialized(asset)
    profiles = resolved.project.lake.scan("profiles", newest).collect()
    assert profiles["profile_id"].n_unique() == profiles.height > 0
    assert {"plan", "plan__source", "heap_identities"} <= set(profiles.columns)


def test_the_audit_has_words_sizes_and_figures_that_make_a_line_over_time(resolved: World) -> None:
    [record] = resolved.instance.fetch_materializations(asset_key("audit"), limit=1).records
    assert record.asset_materialization is not None
    told = {name: entry.value for name, entry in record.asset_materialization.metadata.items()}
    assert "known to Heap" in str(told["in_words"])
    sizes = record.asset_materialization.metadata["profile_sizes"]
    assert isinstance(sizes, dg.TableMetadataValue)
    profiles = resolved.project.lake.scan("profiles", str(resolved.company.until)).collect().height
    assert sum(int(str(row.data["profiles"])) for row in sizes.records) == profiles
    for name in ("matched_crm_contacts", "naive_missed_billing_customers", "profiles_in_heap_share"):
        assert isinstance(told[name], float), name
        assert 0 < told[name] < 1
    assert told["at_limit_heap_identity"] > 0
    assert not any("crm_accounts" in name for name in told), "a table that identifies nobody is not matched"


def test_the_queue_of_decisions_shows_counts_and_no_values(resolved: World) -> None:
    [record] = resolved.instance.fetch_materializations(asset_key("identity/review"), limit=1).records
    assert record.asset_materialization is not None
    metadata = {name: entry.value for name, entry in record.asset_materialization.metadata.items()}
    entries = resolved.project.lake.scan("identity/review", str(resolved.company.until)).collect()
    assert metadata["entries"] == entries.height > 0
    counts = {kind: metadata[kind] for kind in entries["kind"].unique()}
    assert sum(int(str(count)) for count in counts.values()) == entries.height
    assert not any(name in str(metadata) for names in entries["identifiers"] for name in names)
    shown = review_of_day(resolved.project, resolved.company.until)
    assert shown.drop("syncs", "money").equals(entries.drop("syncs", "money"))


def test_values_that_are_no_identifiers_are_counted_by_column_and_reason(resolved: World) -> None:
    [record] = resolved.instance.fetch_materializations(asset_key("identity/links"), limit=1).records
    assert record.asset_materialization is not None
    told = record.asset_materialization.metadata
    table = told["no_identifiers"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [dict(row.data) for row in table.records]
    named = {(row["source"], row["column"], row["identifier_type"], row["reason"]) for row in rows}
    assert ("heap/users", "identity", "email", "pattern") in named, "an identity that is no email address"
    assert told["refused_pattern"].value == sum(int(row["rows"]) for row in rows if row["reason"] == "pattern") > 0
    assert not any("@" in str(value) for row in rows for value in row.values()), "counts and names, never values"


def test_a_second_run_changes_nothing(resolved: World) -> None:
    newest = str(resolved.company.until)
    before = {asset: resolved.project.lake.versions(asset)[newest] for asset in (*IDENTITY, "profiles")}
    result = resolved.run([*IDENTITY, "profiles"], newest)
    assert result.success
    assert {asset: resolved.project.lake.versions(asset)[newest] for asset in before} == before


def test_blocking_checks_keep_a_verdict_for_the_partition(resolved: World) -> None:
    newest = str(resolved.company.until)
    result = resolved.run(["profiles"], newest)
    for check in ("unique_keys", "one_profile_per_identity", "one_identity_per_profile"):
        assert resolved.checked(result, "profiles", check) == {newest: True}


def test_identity_for_a_range_resolves_what_it_can_and_names_what_the_others_wait_for(resolved: World) -> None:
    older, newest = str(resolved.company.days[-3]), str(resolved.company.until)
    result = resolved.run(IDENTITY, older, newest)
    assert result.success, why(result)
    observed = [e.asset_observation_data.asset_observation for e in result.all_events if e.is_asset_observation]
    waits = {one.partition: str(one.metadata["waits"].value) for one in observed if one.asset_key.path[-1] == "graph"}
    assert set(waits) == {older, str(resolved.company.days[-2])}
    assert "is not built" in waits[older]
    made = {(e.asset_key.path[-1], e.partition) for e in result.all_events if e.is_step_materialization and e.asset_key}
    assert made == {(asset.rpartition("/")[2], newest) for asset in IDENTITY}


def waits_of(result: dg.ExecuteInProcessResult, asset: str) -> set[str | None]:
    """Return the days that a run says an asset waits with."""
    observed = [e.asset_observation_data.asset_observation for e in result.all_events if e.is_asset_observation]
    return {one.partition for one in observed if one.asset_key == asset_key(asset) and "waits" in one.metadata}


@pytest.mark.parametrize("assets", [["profiles", "audit"], [*IDENTITY, "profiles", "audit"]], ids=["alone", "together"])
def test_a_range_of_profiles_builds_the_days_whose_graph_is_there(resolved: World, assets: list[str]) -> None:
    older, newest = str(resolved.company.days[-3]), str(resolved.company.until)
    result = resolved.run(assets, older, newest)
    assert result.success, why(result)
    made = {(e.asset_key.path[-1], e.partition) for e in result.all_events if e.is_step_materialization and e.asset_key}
    assert made == {(asset.rpartition("/")[2], newest) for asset in assets}
    without_graph = {older, str(resolved.company.days[-2])}
    assert waits_of(result, "profiles") == waits_of(result, "audit") == without_graph
    assert resolved.checked(result, "profiles", "unique_keys") == {newest: True}


def test_a_range_of_the_warehouse_names_the_days_that_were_never_observed(resolved: World) -> None:
    older, newest = str(resolved.company.days[-2]), str(resolved.company.until)
    result = resolved.run(["warehouse/crm_contacts"], older, newest)
    assert result.success, why(result)
    assert waits_of(result, "warehouse/crm_contacts") == {older}
    kept = result_store.read(resolved.project.lake.store, "warehouse/crm_contacts", "readable", older)
    assert kept is not None
    assert not kept.failed, "that there is no past is no fault"
    assert "never observed" in kept.not_judged


def test_a_range_of_dumps_lands_those_that_are_there_and_names_the_others(resolved: World) -> None:
    newest = str(resolved.company.dump_ids[resolved.company.until])
    gone = str(int(newest) + 1)
    resolved.instance.add_dynamic_partitions(str(DUMPS.name), [gone])
    result = resolved.run(["heap_connect/dumps"], newest, gone)
    assert f"has no dump {gone}" in why(result)
    [made] = {e.partition for e in result.all_events if e.is_step_materialization and e.asset_key.path[-1] == "dumps"}
    assert made == newest


def test_the_newest_graph_is_due_until_it_is_built(resolved: World) -> None:
    assert graph_is_due(resolved.project) is None
    resolved.project.lake.delete("identity/graph", str(resolved.company.until))
    assert graph_is_due(resolved.project) == resolved.company.until
    resolved.run(IDENTITY, str(resolved.company.until))
    assert graph_is_due(resolved.project) is None


def test_identity_waits_while_a_touched_day_is_not_built(resolved: World, tmp_path: Any) -> None:
    fresh = make_world(resolved.company, tmp_path)
    for dump in resolved.company.dump_ids.values():
        fresh.land(dump)
    assert unbuilt_days(fresh.project)
    assert identity_inputs(fresh.project, resolved.company.until).waiting_for


def test_a_dump_asks_for_exactly_the_days_it_touched(
    resolved: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also days that landed before anybody watched, such as those of a table that is new to the catalogue."""
    monkeypatch.setattr(readiness, "_PAUSE", timedelta(0))
    world, tables = make_world(resolved.company, tmp_path), ["heap/pageviews", "heap/events/feature_used"]
    for dump in list(resolved.company.dump_ids.values())[:-1]:
        world.land(dump)
    days = {str(day) for day in resolved.company.days[:-1]}
    assert _requested(world, tables) == dict.fromkeys(tables, days)
    for day in sorted(days):
        world.run(tables, day)
    assert _requested(world, tables) == {table: set() for table in tables}
    newest = resolved.company.dump_ids[resolved.company.until]
    world.land(newest)
    touched = {
        table: {
            str(day) for day in replace(world.project).landing.records()[newest].tables[table.rpartition("/")[2]].days
        }
        for table in tables
    }
    assert _requested(world, tables) == touched
    assert str(resolved.company.until) in touched["heap/pageviews"]


def _requested(world: World, tables: list[str]) -> dict[str, set[str]]:
    """Return what automation asks for on its first look."""
    result = dg.evaluate_automation_conditions(
        defs=build_definitions(replace(world.project)),  # with nothing remembered
        instance=dg.DagsterInstance.ephemeral(),
        asset_selection=dg.AssetSelection.assets(*map(asset_key, tables)),
    )
    return {
        one.key.to_user_string(): set(one.true_subset.expensively_compute_partition_keys()) for one in result.results
    }


def test_profiles_wait_for_their_graph(resolved: World) -> None:
    """Users and warehouse tables of a day are there before its graph: that alone asks for nothing."""
    instance = dg.DagsterInstance.ephemeral()
    newest = str(resolved.company.until)
    profiles = dg.AssetSelection.assets(asset_key("profiles"))
    first = dg.evaluate_automation_conditions(defs=resolved.definitions, instance=instance, asset_selection=profiles)

    def asked(*updated: str) -> set[str]:
        nonlocal first
        for asset in updated:
            instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(asset), partition=newest))
        first = dg.evaluate_automation_conditions(
            defs=resolved.definitions, instance=instance, asset_selection=profiles, cursor=first.cursor
        )
        [result] = first.results
        return set(result.true_subset.expensively_compute_partition_keys())

    assert asked("heap/users", "warehouse/crm_contacts") == set()
    assert asked("identity/graph") == {newest}


def test_every_published_asset_is_described_owned_and_checked(resolved: World) -> None:
    specs = {spec.key.to_user_string(): spec for spec in resolved.definitions.resolve_all_asset_specs()}
    checks = {key.asset_key.to_user_string() for key in resolved.definitions.resolve_asset_graph().asset_check_keys}
    for path, spec in specs.items():
        assert spec.description, path
        assert spec.owners, path
        assert spec.group_name != "default", path
        assert spec.kinds, path
    unchecked = {"heap_connect/landed", "identity/links", "identity/review", "audit", "status/report"}
    of_users = {path for path in specs if path.startswith(("models/", "privacy/"))}
    assert set(specs) - checks <= unchecked | of_users
