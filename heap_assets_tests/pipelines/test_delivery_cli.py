"""`heap-assets sync`: plan, runs, rejected, retry, resend, forget."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

from heap_assets.activation import salt
from heap_assets.cli.main import _group as commands
from heap_assets.cli.sync import sync
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import DeliveryError, SettingsError
from heap_assets.orchestration.in_process import instance_of
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_checks import sent_and_exported
from heap_assets.pipelines.sync_gate import remember_shown, waits_for_confirmation
from heap_assets.pipelines.waiting import first_runs
from heap_assets.quality import result_store
from heap_assets.quality.results import Severity
from heap_assets.quality.sync import no_ghost_users
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, WRITE_KEY, calls

USERS = "heap_user_properties: {properties: {Plan: plan}}"


@pytest.fixture
def call(worlds: Worlds, monkeypatch: pytest.MonkeyPatch, segment: ServerProcess):  # type: ignore[no-untyped-def]
    world = worlds(
        f"{USERS}\n"
        f"segment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, since: beginning, columns: [plan]}}"
    )
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))

    def _call(*arguments: str, say: str = "") -> Result:
        result = CliRunner().invoke(sync, arguments, input=say)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return world, _call


def test_a_plan_shows_counts_new_names_and_hashed_keys(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    _, run = call
    shown = run("plan", "heap_user_properties").output
    assert "3 planned, 3 added, 1 held" in shown
    assert "new property names: Plan" in shown
    assert "@x.example" not in shown
    assert calls(heap) == 0
    facts = json.loads(run("plan", "segment_track", "--day", str(DAY), "--json").output)
    assert facts["planned"] == 6
    assert set(facts["tables"]) == {"signup", "pageviews"}


def test_refused_rows_are_shown_and_tried_again(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    assert "has not run yet" in run("runs", "heap_user_properties").output
    heap.fail({"kind": "refuse_rows", "match": "^bob", "status": 400})
    delivery.send(world.project, "heap_user_properties", DAY, "r1")
    heap.fail()
    shown = run("rejected", "heap_user_properties").output
    assert "1 rows stand as rejected" in shown
    assert "bob" not in shown
    assert "partial" in run("runs", "heap_user_properties").output
    assert "1 rows will be tried again" in run("retry", "heap_user_properties").output
    assert delivery.send(world.project, "heap_user_properties", DAY, "r2").report.sent == 1


def _in_clear(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(commands, ["rows", *arguments, "--json"])
    assert done.exit_code == 0, done.exception
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def test_the_hash_of_a_rejected_row_leads_to_its_profile(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    heap.fail({"kind": "refuse_rows", "match": "^bob", "status": 400})
    delivery.send(world.project, "heap_user_properties", DAY, "r1")
    heap.fail()
    shown = run("rejected", "heap_user_properties").output
    [key] = re.findall(r"^([0-9a-f]{16}) ", shown, re.MULTILINE)
    assert "heap-assets rows sync/heap_user_properties --key" in shown
    [record] = _in_clear("sync/heap_user_properties", "--key", key)
    [entry] = record["rows"]["ledger of heap_user_properties"]
    assert (entry["key"], entry["status"]) == ("bob@x.example", "rejected")
    [profile] = next(rows for place, rows in record["rows"].items() if place.startswith("profiles"))
    assert profile["heap_identities"] == ["bob@x.example"]
    everywhere = {found["asset"] for found in _in_clear("--key", key)}
    assert everywhere == {"sync/heap_user_properties", "sync/segment_track"}, "one person has one hash in all syncs"


def test_the_hash_of_a_tracked_event_leads_to_its_row(call) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    assert "hashes are of this call alone" in run("plan", "segment_track", "--day", str(DAY)).output
    salt(world.project.lake.store)  # as any run draws it
    assert "of this call alone" not in run("plan", "segment_track", "--day", str(DAY)).output
    _, planned = delivery.plan(world.project, "segment_track", DAY)
    [record] = _in_clear("sync/segment_track", "--day", str(DAY), "--key", planned["key_hash"][0])
    assert any(rows for place, rows in record["rows"].items() if place.startswith("rows of "))


def test_the_hash_of_a_ghost_leads_to_who_was_sent(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, _ = call
    lake = world.project.lake
    delivery.send(world.project, "heap_user_properties", DAY, "r1")
    everybody = lake.scan("heap/users", str(DAY)).collect()
    lake.write("heap/users", str(DAY), everybody.filter(pl.col("identity") != "bob@x.example"))
    ledger, users = sent_and_exported(world.project, "heap_user_properties")
    asset, check = "sync/heap_user_properties", "no_ghost_users"
    stored = result_store.record(
        lake.store,
        no_ghost_users(ledger, users, 0.0),
        asset=asset,
        check=check,
        partition=str(DAY),
        version=None,
        severity=Severity.WARN,
        blocking=False,
    )
    [key] = stored.hashes
    [record] = _in_clear(asset, check, "--key", key)
    assert record["offender"]["key"]["value"] == "bob@x.example"
    assert record["rows"]["profiles"][0]["heap_identities"] == ["bob@x.example"]


def test_everything_is_sent_again_only_when_confirmed(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    delivery.send(world.project, "heap_user_properties", DAY, "r1")
    assert run("resend", "heap_user_properties", say="n\n").exit_code == 1
    assert delivery.send(world.project, "heap_user_properties", DAY, "r2").report.sent == 0
    assert "3 keys will be sent again" in run("resend", "heap_user_properties", say="y\n").output
    assert delivery.send(world.project, "heap_user_properties", DAY, "r3").report.sent == 3
    with pytest.raises(DeliveryError, match="each once"):
        run("resend", "segment_track", say="y\n")


def test_a_forgotten_key_is_never_sent_to_again(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    delivery.send(world.project, "heap_user_properties", DAY, "r1")
    assert "forgotten" in run("forget", "heap_user_properties", "ann@x.example", say="y\n").output
    run("resend", "heap_user_properties", say="y\n")
    assert delivery.send(world.project, "heap_user_properties", DAY, "r2").report.sent == 2


def test_heap_is_asked_to_delete_somebody(call, heap: ServerProcess) -> None:  # type: ignore[no-untyped-def]
    world, run = call
    forget = ("forget", "heap_user_properties", "ann@x.example", "--delete-in-heap")
    with pytest.raises(SettingsError, match=r"heap\.deletion_key is not set"):
        run(*forget, say="y\n")
    settings = world.folder / "heap_assets.yaml"
    settings.write_text(settings.read_text().replace("heap:\n", "heap:\n  deletion_key: planted-key\n", 1))
    told = run(*forget, say="y\n").output
    assert "complete" in told
    assert "planted-key" not in told
    assert "ann@x.example" not in heap.state()["users"]


def test_an_unknown_sync_names_the_known(call) -> None:  # type: ignore[no-untyped-def]
    _, run = call
    with pytest.raises(SettingsError, match="Syncs: heap_user_properties, segment_track"):
        run("plan", "heap_events")


def test_a_run_by_command_sends_through_the_gate_and_a_new_vendor_is_asked_about_first(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, heap: ServerProcess
) -> None:
    monkeypatch.setenv("SEGMENT_WRITE_KEY", WRITE_KEY)
    world = worlds(USERS + "\nsegment_identify: {write_key: '${SEGMENT_WRITE_KEY}', properties: {plan: plan}}")
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))
    sent = CliRunner().invoke(sync, ["run", "heap_user_properties"])
    assert sent.exit_code == 0, sent.output
    assert "succeeded, 3 sent" in sent.output
    assert calls(heap) > 0
    asked = CliRunner().invoke(sync, ["run", "segment_identify"])
    assert asked.exit_code == 1
    assert "nothing was ever sent to this destination" in asked.output
    assert "heap-assets sync confirm segment_identify" in asked.output
    assert waits_for_confirmation(world.project, "segment_identify")
    assert not waits_for_confirmation(world.project, "heap_user_properties")
    assert first_runs(world.project) == {"sync/segment_identify": [DAY]}
    remember_shown(world.project, "segment_identify", DAY)
    assert first_runs(world.project) == {}


@pytest.mark.parametrize("refused", [False, True])
def test_dagster_and_the_gates_know_what_a_command_sent(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, heap: ServerProcess, tmp_path: Path, refused: bool
) -> None:
    world = worlds(USERS)
    home = tmp_path / "dagster"
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    home.mkdir()
    (home / "dagster.yaml").touch()
    if refused:
        heap.fail({"status": 401})
    CliRunner().invoke(sync, ["run", "heap_user_properties"])
    with instance_of(home) as instance:
        key = dg.AssetKey(["sync", "heap_user_properties"])
        materialized = [r.partition_key for r in instance.fetch_materializations(key, limit=5).records]
        observed = [r.partition_key for r in instance.fetch_observations(key, limit=5).records]
        assert (materialized, observed) == (([], [str(DAY)]) if refused else ([str(DAY)], []))
        check = dg.AssetCheckKey(key, "delivered")
        [evaluated] = instance.event_log_storage.get_asset_check_execution_history(check, limit=5)
        assert evaluated.partition == str(DAY)
    stored = result_store.read(world.project.lake.store, "sync/heap_user_properties", "delivered", str(DAY))
    assert stored is not None
    assert stored.passed != refused
    shutil.rmtree(home)
    assert "the UI is not told" in CliRunner().invoke(sync, ["run", "heap_user_properties"]).output
    assert not home.exists()
