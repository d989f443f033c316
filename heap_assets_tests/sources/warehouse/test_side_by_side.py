"""A CRM in PostgreSQL beside a warehouse in DuckDB: read, checked, resolved into profiles, sent, shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from adbc_driver_postgresql import dbapi
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.cli.rows import rows
from heap_assets.cli.setup import check
from heap_assets.cli.sources import browse, preflight
from heap_assets.cli.status import status
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines import delivery
from heap_assets.pipelines.publishing import publishable
from heap_assets.pipelines.suites import profile_checks
from heap_assets.pipelines.waiting import unread_tables, waits
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, World, events, migrations, users, why

TABLES = ["warehouse/customers", "crm/customers"]
SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap: {{app_id: "11", source: {{kind: folder, path: ./bucket}}}}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables: {{customers: {{relation: billing.customers, key: customer_id, identifiers: {{email: email}}}}}}
sources:
  crm:
    kind: postgres
    dsn: {uri}
    schedule: "0 1 * * *"
    tables:
      customers:
        relation: crm.people
        key: person_id
        updated_at: updated_at
        identifiers: {{email: email, person_id: crm_id}}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: crm_id, max_per_profile: 1}}
    - {{type: email, max_per_profile: 3, normalise: email}}
    - {{type: heap_user_id, shared_above: 1}}
profiles:
  traits:
    plan: {{from: [crm/customers.plan]}}
    mrr: {{from: [customers.mrr], choose: sum}}
sync:
  hook: {{kind: webhook, url: "http://127.0.0.1:9", source: crm/customers, key: person_id, properties: {{plan: plan}}}}
"""


@dataclass
class TwoSystems(World):
    """The world whose settings are those above."""

    def choose(self, syncs: str) -> World:
        path = self.folder / "heap_assets.yaml"
        path.write_text(SETTINGS.format(uri=self.more))
        settings = parse_settings(path.read_text(), path)
        self.project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url))
        self._job: dg.JobDefinition | None = None
        return self


@pytest.fixture
def world(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv(clock.VARIABLE, NOW)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "heap_assets.yaml"))
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("CREATE SCHEMA billing")
        connection.execute(
            "CREATE TABLE billing.customers AS SELECT * FROM (VALUES ('k1', 'ann@x.example', 10), "
            "('k2', 'bob@x.example', 20)) AS t(customer_id, email, mrr)"
        )
    with dbapi.connect(postgres, autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE SCHEMA crm")
        cursor.execute("CREATE TABLE crm.people (person_id text, email text, plan text, updated_at timestamptz)")
        cursor.execute(
            "INSERT INTO crm.people VALUES ('c1', 'Ann@x.example', 'pro', '2026-11-19 10:00+00'), "
            "('c2', 'bob@x.example', 'free', '2026-11-20 10:00+00'), "
            "('c3', 'eve@x.example', 'pro', '2026-11-20 11:00+00')"
        )
        made = TwoSystems(tmp_path, "", more=postgres)
        made.write("heap/users", DAY, users())
        made.write("heap/user_migrations", DAY, migrations())
        made.write("heap/pageviews", DAY, events(DAY, "pageviews", (1, 1)))
        made.write("heap/events/signup", DAY, events(DAY, "signup", (2, 2)))
        yield made


def test_both_are_read_and_make_one_profile(world: World) -> None:
    assert unread_tables(world.project) == {table: [DAY] for table in TABLES}
    read = world.run(TABLES, DAY)
    assert read.success, why(read)
    assert unread_tables(world.project) == {}
    world.resolve(DAY)
    profiles = world.lake.scan("profiles", str(DAY)).collect()
    people = {row["heap_identity"]: row for row in profiles.to_dicts()}
    assert {name: (people[name]["plan"], people[name]["mrr"]) for name in ("ann@x.example", "bob@x.example")} == {
        "ann@x.example": ("pro", 10),
        "bob@x.example": ("free", 20),
    }
    assert people["ann@x.example"]["plan__source"] == "crm/customers.plan"
    assert people["ann@x.example"]["mrr__source"] == "customers.mrr"
    links = world.lake.scan("identity/links", str(DAY)).collect()
    assert {"crm/customers", "customers"} <= set(links["source"].explode().to_list())
    planned, rows = delivery.plan(world.project, "hook", DAY)
    assert (planned.report.planned, len(rows)) == (3, 3)


def test_a_system_that_is_away_keeps_only_its_own_tables_from_being_read(world: World, postgres: str) -> None:
    world.more = f"{postgres.rpartition('/')[0]}/nothing_here"
    world.choose("")
    result = world.run(TABLES, DAY)
    assert world.lake.partitions("warehouse/customers") == [str(DAY)]
    assert world.lake.partitions("crm/customers") == []
    verdicts = {(e.asset_key.path[0], e.check_name): e.passed for e in result.get_asset_check_evaluations()}
    assert (verdicts["warehouse", "readable"], verdicts["crm", "readable"]) == (True, False)


def test_each_has_assets_a_schedule_and_a_job_of_its_own(world: World) -> None:
    definitions = build_definitions(world.project)
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert {table: (specs[table].group_name, specs[table].kinds) for table in TABLES} == {
        "warehouse/customers": ("warehouse", {"duckdb", "parquet"}),
        "crm/customers": ("crm", {"postgres", "parquet"}),
    }
    schedules = {schedule.name: schedule.cron_schedule for schedule in definitions.schedules or ()}
    assert (schedules["read_warehouse"], schedules["read_crm"]) == ("30 2 * * *", "0 1 * * *")
    jobs = {job.name for job in definitions.jobs or ()}
    assert {"read_the_warehouse_again", "read_crm_again"} <= jobs
    names = {check.name for check in profile_checks(world.project)}
    assert {"one_profile_per_customers_key", "one_profile_per_crm__customers_key"} <= names
    assert set(TABLES) <= set(publishable(world.project))


def test_a_day_that_is_over_is_carried_from_the_day_before_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.run(["crm/customers"], DAY).success
    monkeypatch.setenv(clock.VARIABLE, "2026-11-24T00:30:00+00:00")
    missed = DAY + timedelta(days=1)
    assert world.run(["crm/customers"], missed).success
    carried = world.lake.find("crm/customers", str(missed))
    assert carried is not None
    assert carried.notes["carried_from"] == str(DAY)
    [wait] = [wait for wait in waits(world.project) if wait.asset == "crm/customers"]
    assert "the schedule read_crm reads 2026-11-23" in wait.reason
    world.run(["crm/customers"], BEFORE)
    assert str(BEFORE) not in world.lake.partitions("crm/customers")


def test_the_command_line_shows_both(world: World) -> None:
    run = CliRunner().invoke
    understood = run(check, [])
    assert understood.exit_code == 0, understood.output
    assert "Warehouse     duckdb, 1 tables" in understood.output
    assert "Source        crm: postgres, 1 tables; read at 0 1 * * * UTC" in understood.output
    tried = run(preflight, [])
    assert "ok     warehouse: customers" in tried.output
    assert "ok     crm: customers" in tried.output
    assert "crm.people" in run(browse, ["--source", "crm", "crm"]).output
    proposed = run(browse, ["--source", "crm", "crm.people"]).output
    assert "below sources.crm.tables" in proposed
    assert "billing.customers" in run(browse, ["billing"]).output
    with pytest.raises(SettingsError, match=r"no source 'erp'; --source is one of warehouse, crm"):
        run(browse, ["--source", "erp"], catch_exceptions=False)
    assert world.run(TABLES, DAY).success
    shown = run(status, ["--all"]).output
    groups = [line.split()[0] for line in shown.splitlines() if line.startswith(("warehouse ", "crm "))]
    assert groups == ["warehouse", "crm"]
    assert "crm/customers" in shown


def test_a_table_that_there_is_not_has_no_checks(world: World) -> None:
    for asset in ("crm/nothing", "erp/customers", "warehouse/nothing"):
        with pytest.raises(SettingsError, match=f"{asset} has no check 'unique_keys'"):
            CliRunner().invoke(rows, [asset, "unique_keys"], catch_exceptions=False)


def test_a_column_that_is_not_there_is_named_with_its_section(world: World) -> None:
    path = world.folder / "heap_assets.yaml"
    path.write_text(path.read_text().replace("person_id: crm_id", "nobody: crm_id"))
    with pytest.raises(SettingsError, match=r"sources\.crm\.tables\.customers: .*no column 'nobody'"):
        CliRunner().invoke(check, [], catch_exceptions=False)
