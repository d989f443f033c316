"""Age of credentials, findings of personal data and what retention leaves, as assets with checks in Dagster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.cli.main import _group as commands
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.keys import key_states
from heap_assets.tables import FINDINGS, KEYS, RETENTION
from heap_assets_tests.pipelines.delivery_world import DAY, World, events
from heap_assets_tests.privacy.canary import CANARIES, copied, places_of

MORE = """
privacy:
  keys:
    CRM_KEY_OF_TESTS: {issued: 2026-08-01}
    GOOGLE_KEY_OF_TESTS: {issued: 2026-11-01, expires: 2026-11-25}
    AZURE_TOKEN_OF_TESTS: {}
  rules:
    - {action: mask, columns: [sent_by], tables: [signup]}
  personal: {contacts: [email], "orders": ["*"]}
keep: {event_years: 2}
"""
SECRET = "sv=2024&st=2026-11-01T00:00:00Z&se=2027-11-01T00:00:00Z&sig=canary-signature"


@pytest.fixture
def world(canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AZURE_TOKEN_OF_TESTS", SECRET)
    world = copied(canary_base, tmp_path / "world", more=MORE)
    signup = events(DAY, "signup", (1, 1), (2, 2), sent_by="somebody")
    world.write("heap/events/signup", DAY, signup.with_columns(plan=pl.Series(["ann@y.example", "pro"])))
    return world


def run(world: World, home: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dg.AssetCheckEvaluation]]:
    """Run the job in an instance on disk; returns metadata by asset, and evaluations by check."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        definitions = build_definitions(world.project)
        dg.Definitions.validate_loadable(definitions)
        result = definitions.resolve_job_def("look_after_privacy").execute_in_process(instance=instance)
        assert result.success
        stored = {
            event.asset_key.to_user_string(): {
                name: value.value for name, value in event.materialization.metadata.items()
            }
            for event in result.get_asset_materialization_events()
            if event.asset_key
        }
        return stored, {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_the_job_writes_counts_and_its_checks_judge_them(world: World, tmp_path: Path) -> None:
    metadata, checks = run(world, tmp_path / "home")
    assert set(metadata) == {KEYS, FINDINGS, RETENTION}
    keys = {row["key"]: row for row in world.lake.scan(KEYS).collect().to_dicts()}
    assert {name: (row["age_days"], row["days_left"]) for name, row in keys.items()} == {
        "CRM_KEY_OF_TESTS": (112, -22),
        "GOOGLE_KEY_OF_TESTS": (20, 4),
        "AZURE_TOKEN_OF_TESTS": (20, 70),  # made on the day that it tells: 90 days
    }
    overdue, soon = checks["keys_are_replaced_in_time"], checks["no_key_ends_soon"]
    assert (overdue.passed, overdue.severity, overdue.metadata["overdue_keys"].value) == (
        *(False, dg.AssetCheckSeverity.ERROR, 1),
    )
    assert (soon.passed, soon.severity, soon.metadata["ending_keys"].value) == (False, dg.AssetCheckSeverity.WARN, 1)

    found = world.lake.scan(FINDINGS).collect()
    rows = {(row["table"], row["column"], row["rule"]): row for row in found.to_dicts()}
    plan = rows["heap/events/signup", "plan", "by value"]
    assert (plan["kind"], plan["values"], plan["rows_searched"], plan["settled_by"]) == ("email", 1, 2, "")
    assert rows["heap/events/signup", "sent_by", "privacy.rules[0]"]["values"] == 2
    assert rows["heap/events/signup", "contact_mail", "by value"]["settled_by"] == "catalogue"
    assert rows["warehouse/contacts", "email", "by value"]["settled_by"] == "identifier"
    assert rows["heap/users", "identity", "by value"]["settled_by"] == "identifier"
    settled = checks["findings_are_settled"]
    assert not settled.passed
    assert settled.metadata["open_findings"].value == found.filter(settled_by="").height
    assert checks["nothing_is_older"].passed

    secrets = ("canary-signature", "ann@y.example", "somebody", *CANARIES)
    assert places_of(tmp_path / "home", *secrets) == {}, "Dagster's storage has counts and names"
    assert places_of(world.folder / "lake" / "privacy", *secrets) == {}


def test_settled_findings_and_young_keys_pass_and_overdue_ones_may_only_warn(world: World, tmp_path: Path) -> None:
    world.more = MORE.replace("  keys:", "  overdue_keys: warn\n  keys:").replace(
        "personal: {", 'personal: {"heap/*": ["*"], '
    ).replace("columns: [sent_by]", "columns: [nothing]")  # fmt: skip
    world.choose("{}")
    _, checks = run(world, tmp_path / "home")
    assert checks["findings_are_settled"].passed
    assert checks["keys_are_replaced_in_time"].severity is dg.AssetCheckSeverity.WARN
    world.more = MORE.replace("2026-08-01", "2026-11-01").replace(", expires: 2026-11-25", "")
    _, checks = run(world.choose("{}"), tmp_path / "young")
    assert checks["no_key_ends_soon"].passed
    assert checks["keys_are_replaced_in_time"].passed


def test_days_that_retention_has_not_deleted_fail_a_check(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.VARIABLE, "2028-12-02T03:00:00+00:00")
    metadata, checks = run(world.choose("{}"), tmp_path / "home")
    assert not checks["nothing_is_older"].passed
    assert checks["nothing_is_older"].metadata["expired_days"].value > 0
    assert metadata[RETENTION]["dagster/row_count"] > 0
    kept = {row["table"]: row for row in world.lake.scan(RETENTION).collect().to_dicts()}
    assert kept["heap/events/signup"]["expired_sources"] > 0
    with dg.DagsterInstance.ephemeral() as instance:
        build_definitions(world.project).resolve_job_def("retention").execute_in_process(instance=instance)
    _, checks = run(world, tmp_path / "again")
    assert checks["nothing_is_older"].passed


def test_a_search_by_command_finds_the_same_and_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))
    before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    said = CliRunner().invoke(commands, ["findings", "--json"], catch_exceptions=False)
    rows = json.loads(said.stdout)
    assert [row for row in rows if row["column"] == "plan" and row["settled_by"] == ""]
    assert "@" not in said.stdout
    masked = json.loads(CliRunner().invoke(commands, ["mask", "--json"], catch_exceptions=False).stdout)
    assert [(row["table"], row["column"], row["cells"]) for row in masked] == [("signup", "sent_by", 2)]
    assert {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()} == before


def test_what_a_credential_tells_of_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, left in (
        (f"https://acc.blob.example/c?{SECRET}", 70),
        (SECRET.replace("2027", "2026"), -20),
        ("sv=2024&se=no-day&sig=x", None),
        ("a.b.c", None),
        ("", None),
    ):
        monkeypatch.setenv("AZURE_TOKEN_OF_TESTS", value)
        states = {one.name: one.left for one in key_states(world.project)}
        assert states["AZURE_TOKEN_OF_TESTS"] == left, value
