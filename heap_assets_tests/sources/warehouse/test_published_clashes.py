"""Properties called like columns of the platform's views, published as the settings say and read through the views."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
import servers
from adbc_driver_postgresql import dbapi
from click.testing import CliRunner

from heap_assets.cli.publish import publish
from heap_assets.project import load_settings
from heap_assets.project.project import Project, open_project
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount

DAY = "2026-11-20"
_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_CLASHING = {
    "profile_id": "theirs",
    "Resolved_User_ID": "x",
    "partition_day": "d",
    "property_profile_id": "p",
    "plan": "pro",
}
_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: heap_identity}}, {{type: heap_user_id, shared_above: 1}}]}}
publish:
  there: {target}
"""
_SHOWN = "profile_id, resolved_user_id, plan, property_profile_id, property_profile_id_ce3b03"
"""Ours keep their names; what was called so already keeps its own, and the third gets digits of a hash."""
_READ = ("ours", 2, "pro", "p", "theirs")


def _platform(folder: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    (folder / "heap_assets.yaml").write_text(_SETTINGS.format(target=target))
    columns = ", ".join(f"{name}: {{}}" for name in _CLASHING)
    (folder / "heap_catalogue.yaml").write_text(f"signup: {{display_name: Signed up, columns: {{{columns}}}}}\n")
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(folder / "heap_assets.yaml"))
    made = open_project(load_settings())
    event = {"event_id": [7], "user_id": [1], "session_id": [1], "time": [_NOON]}
    made.lake.write("heap/events/signup", DAY, pl.DataFrame({**event, **{k: [v] for k, v in _CLASHING.items()}}))
    made.lake.write("heap/user_migrations", DAY, pl.DataFrame({"from_user_id": [1], "resolved_to": [2]}))
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["ours"]}
    made.lake.write("identity/graph", DAY, pl.DataFrame(graph))
    return made


def _publish() -> str:
    done = CliRunner().invoke(publish, [])
    assert done.exit_code == 0, done.output
    return done.output


def test_in_postgres(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = "[heap/events/signup, heap/user_migrations, identity/graph]"
    _platform(tmp_path, f"{{kind: postgres, dsn: '{postgres}', schema: pub, assets: {assets}}}", monkeypatch)
    assert "profile_id as property_profile_id_ce3b03" in _publish()
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {_SHOWN} FROM heap_resolved.heap_events_signup")
        assert cursor.fetchall() == [_READ]
    assert "unchanged" in _publish()


def test_events_are_called_what_people_call_them_and_are_loaded_again_when_that_changes(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _platform(tmp_path, f"{{kind: postgres, dsn: '{postgres}', schema: pub, assets: [events]}}", monkeypatch)
    catalogue = tmp_path / "heap_catalogue.yaml"
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        for name in ("Signed up", "Signup Started"):
            catalogue.write_text(catalogue.read_text().replace("Signed up", name))
            assert "loaded" in _publish()
            cursor.execute("SELECT event_type, event_table FROM pub.events")
            assert cursor.fetchall() == [(name, "signup")]
            assert "unchanged" in _publish()


def test_in_bigquery(bigquery_emulator: servers.Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, into = f"pub_{uuid4().hex[:8]}", f"resolved_{uuid4().hex[:8]}"
    target = (
        f"{{kind: bigquery, project: demo, dataset: {dataset}, endpoint: '{bigquery_emulator.rest}', "
        f"resolved_views: {into}, assets: [heap/events/signup, heap/user_migrations, identity/graph]}}"
    )
    _platform(tmp_path, target, monkeypatch)
    with BigQueryAccount("demo", endpoint=bigquery_emulator.rest).client() as client:
        client.create_dataset(dataset)
        client.create_dataset(into, exists_ok=True)
        _publish()
        query = f"SELECT {_SHOWN} FROM `{into}.heap_events_signup`"
        assert [tuple(row.values()) for row in client.query(query).result()] == [_READ]
