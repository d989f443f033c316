"""Events go after `keep.event_years`, everywhere in the lake; a full resync of them brings nothing back."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heap_assets import clock
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.heap_tables import event_day
from heap_assets.pipelines.landing import land
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.pipelines.table import Task
from heap_assets.project import Project, open_project, parse_settings
from heap_assets.sources.inbox.parts import land_parts
from heap_assets_tests.privacy.canary import places_of
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, user

SETTINGS = """
start_date: 2023-01-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: heap_identity}, {type: heap_user_id}]}
run: {automation: stopped}
keep: {event_years: 2}
"""
OLD, LAST_OLD, RETENTION = date(2024, 1, 20), date(2024, 2, 29), date(2024, 3, 2)
THEN, NOW = "2024-03-07T03:00:00+00:00", "2026-03-15T03:00:00+00:00"
FIRST = date(2024, 3, 1)


def opened(tmp_path: Path) -> Project:
    file = tmp_path / "heap_assets.yaml"
    file.write_text(SETTINGS)
    (tmp_path / "heap_catalogue.yaml").write_text(
        "signup: {display_name: Signed up, columns: {note: {description: x, pii: false}}}\n"
    )
    return open_project(parse_settings(SETTINGS, file))


def built(project: Project, tmp_path: Path, *days: date) -> None:
    for day in days:
        table = event_day(Task(project, day, tmp_path), "signup")
        project.lake.write("heap/events/signup", str(day), table.frame, table.inputs, notes=table.notes)


def told(project: Project, **config: Any) -> dict[str, Any]:
    job = build_definitions(project).resolve_job_def("retention")
    ask = {"ops": {"forget_expired_days": {"config": config}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, run_config=ask)
        (output,) = [e.step_output_data for e in result.all_events if e.is_successful_output]
    return {name: value.value for name, value in output.metadata.items()}


def file_of_parts(project: Project) -> list[str]:
    return [info.key for info in project.lake.store.list("_landing/signup") if "/_seen/" not in info.key]


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "bucket")


@pytest.fixture
def project(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A lake whose events are two years old, and whose clock says so."""
    monkeypatch.setenv(clock.VARIABLE, THEN)
    project = opened(tmp_path)
    first = [event(1, f"{OLD} 10:00:00", 5, note="canary-one"), event(2, "no time", 5, note="canary-aside")]
    bucket.dump(1, "2024-01-21T02:00:00", signup=first, users=[user(5, "2024-01-20 00:00:00")])
    second = [
        event(3, f"{LAST_OLD} 23:59:59", 6, note="canary-two"),
        event(4, f"{FIRST} 00:00:00", 6, note="kept-one"),
        event(5, f"{RETENTION} 10:00:00", 6, note="kept-two"),
    ]
    bucket.dump(2, "2024-03-03T02:00:00", signup=second, users=[user(6, "2024-03-02 00:00:00")])
    for dump in (1, 2):
        report = land(project, dump).report
        assert not report.failed
        project.landing.confirm(dump, report.touched)
    built(project, tmp_path, OLD, LAST_OLD, FIRST, RETENTION)
    posted = [
        {"message_id": name, "table": table, "time": at * 1_000_000, "sent_by": "x", "body": {"v": name}}
        for name, table, at in (
            ("canary-track", "track", 1_705_744_800), ("who-it-is", "identify", 1_705_744_800),
            ("kept-track", "track", 1_709_373_600),
        )
    ]  # fmt: skip
    land_parts(
        project.lake.store, "s1", [{"received_at": "2024-03-03T00:00:00+00:00", "source": "web", "messages": posted}]
    )
    monkeypatch.setenv(clock.VARIABLE, NOW)
    return opened(tmp_path)


CANARIES = ("canary-one", "canary-two", "canary-aside", "canary-track")


def test_old_events_go_everywhere_and_a_full_resync_brings_none_back(
    project: Project, tmp_path: Path, bucket: Bucket
) -> None:
    lake = tmp_path / "lake"
    would = told(project, dry_run=True)
    assert (would["days"], would["heap/events/signup"], would["dry_run"]) == (2, 2, True)
    assert would["sources of heap/events/signup"] == 3  # rows of two days, and a file of rows set aside
    assert would["sources of inbox/track"] == 1
    assert set(places_of(lake, *CANARIES)) == set(CANARIES)

    assert told(project)["days"] == 2
    again = told(project)
    assert (again["days"], [name for name in again if "signup" in name]) == (0, [])
    assert project.lake.partitions("heap/events/signup") == [str(FIRST), str(RETENTION)]
    assert places_of(lake, *CANARIES) == {}
    assert set(places_of(lake, "kept-one", "kept-two", "who-it-is", "kept-track")) == {
        *("kept-one", "kept-two", "who-it-is", "kept-track")
    }

    bucket.dump(
        3, "2026-03-14T02:00:00", ("signup", "user_migrations"),
        signup=[
            event(1, f"{OLD} 10:00:00", 5, note="canary-one"), event(3, f"{LAST_OLD} 23:59:59", 6, note="canary-two"),
            event(5, f"{RETENTION} 10:00:00", 6, note="kept-two"),
        ],
    )  # fmt: skip
    resync = land(project, 3)
    assert project.landing.records()[3].tables["signup"].counts.before_start == 2
    assert min(resync.days) >= FIRST
    assert not [day for days in unbuilt_days(project).values() for day in days if day < FIRST]
    assert places_of(lake, *CANARIES) == {}
    with pytest.raises(MissingInputError, match=r"older events are not kept \(keep.event_years\)"):
        event_day(Task(project, OLD, tmp_path), "signup")
    built(project, tmp_path, RETENTION)
    assert project.lake.scan("heap/events/signup", str(RETENTION)).collect()["note"].to_list() == ["kept-two"]


def test_days_that_are_gone_are_no_partitions_any_more(project: Project) -> None:
    definitions = build_definitions(project)
    node = definitions.resolve_asset_graph().get(dg.AssetKey(["heap", "events", "signup"]))
    assert node.partitions_def is not None
    assert node.partitions_def.get_first_partition_key() == str(FIRST)


def test_what_a_killed_run_left_goes_with_the_next(project: Project, tmp_path: Path) -> None:
    parts = {key: project.lake.store.read(key) for key in file_of_parts(project) if "rejected" not in key}
    told(project)
    for key, data in parts.items():  # as if it had been killed before it could delete what it had replaced
        project.lake.store.write(key, data)
    assert places_of(tmp_path / "lake", "canary-one")
    told(project)
    assert places_of(tmp_path / "lake", *CANARIES) == {}
    assert not set(parts) & set(file_of_parts(project))


def test_what_landed_is_not_landed_again_because_the_first_day_moves(
    project: Project, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(project)
    assert [dump.dump_id for dump in project.landing.pending(bucket.source)] == []
    monkeypatch.setenv(clock.VARIABLE, "2026-06-15T03:00:00+00:00")
    assert [dump.dump_id for dump in opened(tmp_path).landing.pending(bucket.source)] == []


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        ("event_years: 1", "2 to 7 years, as long as Heap keeps events by plan"),
        ("event_years: 8", "2 to 7 years"),
        ("replay_days: 400", "1 to 365 days: Heap keeps replays for 90 days by default"),
        ("replay_days: 0", "1 to 365 days"),
    ],
)
def test_other_lengths_are_refused_with_the_reason(tmp_path: Path, keep: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        parse_settings(SETTINGS.replace("event_years: 2", keep), tmp_path / "heap_assets.yaml")


def test_the_first_day_is_the_first_of_a_month_on_leap_days_too(tmp_path: Path) -> None:
    keep = parse_settings(SETTINGS, tmp_path / "heap_assets.yaml").keep
    assert keep.events_from(date(2028, 2, 29)) == date(2026, 2, 1)
    assert keep.events_from(date(2026, 3, 1)) == FIRST
