"""A destination that cannot be made stops its own sync only, and each account has its own beginning."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation import connector_of
from heap_assets.cli.setup import check
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_checks import unknown_destinations
from heap_assets.pipelines.waiting import first_runs
from heap_assets.project import load_settings
from heap_assets.project.project import open_project
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, WRITE_KEY


def test_a_destination_that_no_package_has_stops_nothing_else(
    worlds: Worlds, heap: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(
        "acme: {kind: custom, destination: acme_crm, properties: {plan: plan}, schedule: '0 5 * * *'}\n"
        "heap_user_properties: {properties: {Plan: plan}, schedule: '0 5 * * *'}"
    )  # its definitions load
    reason = "sync.acme: sync kind 'acme_crm' is not known"
    assert unknown_destinations(world.project)["acme"].startswith(reason)
    assert first_runs(world.project) == {"sync/heap_user_properties": [DAY]}
    assert delivery.send(world.project, "heap_user_properties", DAY, "r1").report.sent == 3
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))
    monkeypatch.setattr("heap_assets.project.project.Project.check_columns", lambda _: None)  # of no warehouse here
    checked = CliRunner().invoke(check)
    assert isinstance(checked.exception, SettingsError)
    assert str(checked.exception).startswith(reason)
    assert "heap_user_properties: Plan" in checked.output


def test_events_are_sent_since_the_account_was_first_sent_to(
    worlds: Worlds, segment: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(f"segment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, columns: ['*']}}")
    delivery.send(world.project, "segment_track", DAY, "r1")
    first = connector_of(world.project, "segment_track").since()
    settings = world.folder / "heap_assets.yaml"
    settings.write_text(settings.read_text().replace(WRITE_KEY, "wk-another-account"))
    other = open_project(load_settings(settings))
    for now in ("2026-11-24T03:00:00+00:00", "2026-11-29T03:00:00+00:00"):
        monkeypatch.setenv(clock.VARIABLE, now)
        connector_of(other, "segment_track").remember_enabled()
        assert connector_of(other, "segment_track").since() == datetime(2026, 11, 24, tzinfo=UTC)
        assert connector_of(world.project, "segment_track").since() == first
