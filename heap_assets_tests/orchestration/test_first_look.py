"""What a newcomer meets in the UI: what to do next, whose an asset is, why nothing runs, and what failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

# what the launchpad shows before anything is chosen; it has no public name
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

from heap_assets.config.operations import RunSettings
from heap_assets.errors import SettingsError
from heap_assets.orchestration.checks import asset_key, evaluation
from heap_assets.orchestration.column_types import UNKNOWN, type_in_words
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.next_steps import next_steps
from heap_assets.project.project import Project
from heap_assets.quality import Check, Severity, StoredResult
from heap_assets.tables import STATUS_REPORT, sync_asset
from heap_assets_tests.orchestration.company_platform import World, make_world, why

SCHEMA = "dagster/column_schema"
EMPTY_RESULT = "Sensor function returned an empty result"
SYNC = "heap_user_properties"


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> World:
    return make_world(world.company, tmp_path)


def specs(project: Project) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in build_definitions(project).resolve_all_asset_specs()}


def with_settings(project: Project, **changes: Any) -> Project:
    return replace(project, settings=project.settings.model_copy(update=changes))


def test_no_asset_is_without_an_owner_and_teams_own_what_is_theirs(world: World) -> None:
    owners = {path: list(spec.owners) for path, spec in specs(world.project).items()}
    assert [path for path, names in owners.items() if not names] == []
    assert {names[0] for names in owners.values()} == {
        "team:data", "team:engineering", "team:marketing", "team:product", "team:revops"
    }  # fmt: skip
    assert owners["heap/sessions"] == owners["heap/users"] == ["team:product"]
    assert owners["warehouse/crm_contacts"] == ["team:revops"]


def test_owners_are_chosen_by_asset_pattern_or_group_and_the_first_that_fits_counts(world: World) -> None:
    chosen = RunSettings.model_validate(
        {
            "owner": "team:all",
            "owners": {
                "audit": "a@acme.io",
                "heap/events/sign_*": ["team:y", "b@acme.io"],
                "heap_events": "team:x",
            },
        }
    )
    owners = {path: list(spec.owners) for path, spec in specs(with_settings(world.project, run=chosen)).items()}
    assert owners["audit"] == ["a@acme.io"]
    assert owners["heap/events/sign_up"] == ["team:y", "b@acme.io"]
    assert owners["heap/sessions"] == ["team:x"]
    assert owners["profiles"] == ["team:all"]
    wrong = RunSettings.model_validate({"owners": {"heap_event": "team:x"}})
    with pytest.raises(SettingsError, match=r"run\.owners names 'heap_event', which is no asset and no group: "):
        build_definitions(with_settings(world.project, run=wrong))
    with pytest.raises(ValueError, match="an email address, or team:name"):
        RunSettings.model_validate({"owners": {"sync": "marketing"}})


def test_a_group_holds_tables_of_one_kind(world: World) -> None:
    kinds: dict[str, set[str]] = {}
    for spec in specs(world.project).values():
        if kind := spec.tags.get("table_kind"):
            kinds.setdefault(spec.group_name or "", set()).add(kind)
    assert kinds == {"heap_events": {"event"}, "heap_users": {"snapshot"}, "warehouse": {"snapshot"}}


def test_every_sensor_that_requests_nothing_says_why(fresh: World) -> None:
    repository = fresh.definitions.get_repository_def()
    quiet = set()
    with dg.instance_for_test() as instance:
        for sensor in repository.sensor_defs:
            cursor = None
            for _ in range(2):
                with dg.build_sensor_context(instance, cursor=cursor, repository_def=repository) as context:
                    tick = sensor.evaluate_tick(context)
                cursor = tick.cursor
                if not tick.run_requests:
                    quiet.add(sensor.name)
                    assert tick.skip_message, sensor.name
                    assert EMPTY_RESULT not in tick.skip_message, sensor.name
    assert {"run_alerts", "standing_alerts", "waits", "heap_tables_follow_dumps"} <= quiet
    assert "publishing_follows_tables" not in {s.name for s in repository.sensor_defs}, "there is nothing to publish"


def test_the_status_page_says_what_to_do_next(fresh: World, resolved: World) -> None:
    assert any("No dump has landed yet" in step for step in next_steps(fresh.project))
    lake = resolved.project.lake
    first = date.fromisoformat(min(day for asset in resolved.event_assets for day in lake.partitions(asset)))
    too_early = with_settings(resolved.project, start_date=first - timedelta(days=40), alerts=[])
    steps = next_steps(too_early)
    assert any(f"Set `start_date: {first}`" in step and "The 40 days" in step for step in steps)
    assert any("`alerts`" in step for step in steps)
    assert not any("start_date" in step for step in next_steps(with_settings(resolved.project, start_date=first)))
    bare = resolved.project.settings.model_copy(update={"sync": {}, "warehouse": None})
    asked = " ".join(next_steps(replace(resolved.project, settings=bare)))
    assert "`warehouse.tables`" in asked
    assert "below `sync`" in asked

    job = resolved.definitions.resolve_implicit_global_asset_job_def()
    chosen = job.get_subset(asset_selection={asset_key(STATUS_REPORT)})
    result = chosen.execute_in_process(instance=resolved.instance, raise_on_error=False)
    assert result.success, why(result)
    [event] = result.asset_materializations_for_node("status__report")
    assert next(iter(event.metadata)) == "next_steps"
    assert str(event.metadata["next_steps"].value).startswith("1. ")


@pytest.mark.parametrize("job", ["dry_run_of_all_syncs", "retry_rejected_rows", "full_resend"])
def test_the_launchpad_contradicts_no_job_before_a_partition_is_chosen(world: World, job: str) -> None:
    definition = world.definitions.resolve_job_def(job)
    schema = definition.get_job_snapshot().config_schema_snapshot
    [mode] = definition.get_job_snapshot().mode_def_snaps
    shown = default_values_yaml_from_type_snap(schema, schema.get_config_snap(str(mode.root_config_key)))
    assert "false" not in shown
    assert world.project.settings.lake.url not in shown, (
        "another lake cannot be chosen, nor the options of this one read"
    )
    config = definition.get_run_config_for_partition_key(str(world.company.until))
    option = {"dry_run_of_all_syncs": "dry_run", "retry_rejected_rows": "retry_rejected"}.get(job, job)
    assert config["ops"][f"sync__{SYNC}"]["config"] == {option: True}


def test_a_failed_run_shows_its_reason_without_a_stack_trace(resolved: World) -> None:
    older = str(resolved.company.days[0])
    result = resolved.run([sync_asset(SYNC)], older)
    assert not result.success
    [failed] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failed.error is not None
    assert failed.error.message.startswith(f"Failure: {sync_asset(SYNC)} {older}: blocked: ")
    assert (list(failed.error.stack), failed.error.cause, failed.error.context) == ([], None, None)
    assert failed.user_failure_data is not None
    assert "planned" not in failed.user_failure_data.metadata, "a list of zeros is no reason"
    lines = [entry.user_message for entry in resolved.instance.all_logs(result.run_id)]
    assert not any("Stack Trace" in line for line in lines)


def test_no_run_lists_the_outputs_of_its_checks(resolved: World) -> None:
    day = str(resolved.company.until)
    result = resolved.run(["heap/users"], day)
    assert result.success, why(result)
    lines = [entry.user_message for entry in resolved.instance.all_logs(result.run_id)]
    assert len(lines) > 10
    assert not any("did not yield or return" in line for line in lines)


def stored(**numbers: float) -> StoredResult:
    at = datetime(2026, 11, 2, tzinfo=UTC)
    return StoredResult(
        asset="a", check="c", partition="2026-11-01", passed=True, severity=Severity.ERROR, blocking=False, version="v",
        judged_at=at, numbers=numbers,
    )  # fmt: skip


def test_figures_of_a_day_are_plotted_over_days_and_constants_are_not_plotted(resolved: World) -> None:
    check = Check("a", "c", "A rule.")
    of_day = evaluation(check, stored(rows=3, share=0.012422360248, allowed_share=0.01), "2026-11-01").metadata
    assert {name: value.value for name, value in of_day.items()} == {
        "rows": "3", "share": "0.0124", "allowed_share": "0.01"
    }  # fmt: skip
    of_now = evaluation(check, stored(hours_behind=9.41, allowed_hours=66.0), None).metadata
    assert (of_now["hours_behind"].value, of_now["allowed_hours"].value) == (9.41, "66.0")
    [newest] = resolved.instance.fetch_materializations(asset_key("heap/pageviews"), limit=1).records
    assert newest.asset_materialization is not None
    assert isinstance(newest.asset_materialization.metadata["unknown_share"], dg.FloatMetadataValue)


def test_types_are_words_and_known_ones_are_there_before_anything_is_built(world: World) -> None:
    types = {
        path: {column.name: column.type for column in spec.metadata[SCHEMA].columns}
        for path, spec in specs(world.project).items()
        if SCHEMA in spec.metadata
    }
    assert not {kind for columns in types.values() for kind in columns.values()} & {"string", "String", "Int64"}
    assert types["heap/sessions"]["session_id"] == "integer"
    assert types["heap/sessions"]["time"] == "timestamp (UTC)"
    assert types["identity/links"]["authoritative"] == "true or false"
    assert types["warehouse/crm_contacts"]["email"] == UNKNOWN
    frame = pl.DataFrame({"a": ["x"], "b": [1.5]}, schema={"a": pl.Categorical, "b": pl.Float32})
    assert [type_in_words(dtype) for dtype in frame.dtypes] == ["text", "number"]
