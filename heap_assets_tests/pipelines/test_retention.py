"""Old days of snapshot-sized tables go; month ends, the newest day, and what identity still needs stay."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.cli.tables import prune
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.pipelines.readiness import identity_inputs
from heap_assets.pipelines.retention import Expired, delete_results, expired, expired_results, forget
from heap_assets.quality import result_store
from heap_assets.quality.result_store import record
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.tables import AUDIT, CHANGES, PROFILES, USERS
from heap_assets_tests.pipelines.delivery_world import DAY, LONG_AGO, World, at, next_day

ROWS = pl.DataFrame({"rows": [1]})


@pytest.fixture
def world(base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A lake whose clock stands 50 days after its newest day."""
    monkeypatch.setenv(clock.VARIABLE, at(next_day(50)).isoformat())
    return base.copy(tmp_path / "world", "{}", "http://127.0.0.1:9")


def test_old_days_go_and_the_newest_and_month_ends_stay(world: World) -> None:
    end = date(2026, 10, 31)
    world.lake.write(AUDIT, str(end), ROWS)
    days = expired(world.project)
    assert Expired(PROFILES, str(LONG_AGO)) in days
    assert not {Expired(PROFILES, str(DAY)), Expired(AUDIT, str(end)), Expired(USERS, str(DAY))} & set(days)
    assert not [day for day in days if day.asset in (CHANGES, "heap/pageviews", "heap/events/signup")]

    gone = forget(world.project, days)

    assert sum(gone.values()) == len(days) > 0
    assert world.lake.partitions(PROFILES) == [str(DAY)]
    assert result_store.read(world.lake.store, PROFILES, "one_profile_per_identity", str(LONG_AGO)) is None
    assert result_store.read(world.lake.store, PROFILES, "one_profile_per_identity", str(DAY)) is not None
    assert expired(world.project) == []


def test_what_identity_reads_does_not_change(world: World) -> None:
    before = identity_inputs(world.project, DAY).provenance.versions
    forget(world.project, expired(world.project))
    assert identity_inputs(world.project, DAY).provenance.versions == before
    # `moves` has no record time: how old its links are is told by the days that it stood on
    assert str(LONG_AGO) in world.lake.partitions("warehouse/moves")
    assert str(LONG_AGO) not in world.lake.partitions("warehouse/contacts")


def test_a_shorter_keep_is_the_users_choice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, at(DAY + timedelta(days=16)).isoformat())
    assert expired(world.project) == []
    settings = world.folder / "heap_assets.yaml"
    settings.write_text(settings.read_text() + "\nkeep: {snapshot_days: 20}\n")
    monkeypatch.setenv(PATH_VARIABLE, str(settings))
    said = CliRunner().invoke(prune, ["--dry-run"], catch_exceptions=False).output
    assert f"from {LONG_AGO}" in said
    assert "would go" in said
    assert str(LONG_AGO) in world.lake.partitions(PROFILES)
    assert "are gone" in CliRunner().invoke(prune, catch_exceptions=False).output
    assert str(LONG_AGO) not in world.lake.partitions(PROFILES)


def test_the_job_deletes_and_its_dry_run_does_not(world: World) -> None:
    from heap_assets.orchestration.definitions import build_definitions

    job = build_definitions(world.project).resolve_job_def("retention")
    ask = {"ops": {"forget_expired_days": {"config": {"dry_run": True}}}}
    assert job.execute_in_process(instance=world.instance, run_config=ask).success
    assert str(LONG_AGO) in world.lake.partitions(PROFILES)
    assert job.execute_in_process(instance=world.instance).success
    assert str(LONG_AGO) not in world.lake.partitions(PROFILES)


def test_old_check_results_go_but_those_that_a_day_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = world.lake.store
    told = {"version": None, "severity": Severity.ERROR, "blocking": False}
    table = next(iter(world.project.event_sources))
    for check in ("volume_as_usual", "readable", "unique_keys"):
        record(store, CheckResult(True), asset=table, check=check, partition=str(DAY), **told)  # type: ignore[arg-type]
    assert expired_results(world.project) == []
    monkeypatch.setenv(clock.VARIABLE, at(DAY + timedelta(days=200)).isoformat())
    old = expired_results(world.project)
    delete_results(world.project, old)
    left = {
        check
        for check in ("volume_as_usual", "readable", "unique_keys")
        if result_store.read(store, table, check, str(DAY))
    }
    assert left == {"readable", "unique_keys"}, "whether it was tried, and whether anything may be sent from it"
    assert result_store.read(store, PROFILES, "one_profile_per_identity", str(DAY)) is not None
    assert expired_results(world.project) == []
