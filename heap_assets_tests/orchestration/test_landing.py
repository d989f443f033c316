"""The manifest sensor and the dumps it lands: quota, news, and days that rows came ahead of."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heap_assets.errors import SettingsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake, LakeSql
from heap_assets.tables import heap_asset
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

_SETTINGS = """
start_date: 2026-01-01
lake: ./lake
heap:
  app_id: "1"
  plan: growth
  source: {{kind: folder, path: ./bucket}}
  quota: {quota}
  tables: {tables}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: heap_user_id, shared_above: 1}}
"""


class Landing:
    """A bucket, and Dagster over it as on a given day."""

    def __init__(self, folder: Path, quota: str = "{}") -> None:
        self.folder, self.quota, self.tables = folder, quota, "{}"
        self.bucket = Bucket(folder / "bucket")
        self.instance = dg.DagsterInstance.ephemeral()
        self.catalogue = Catalogue({})

    def project(self) -> Project:
        settings = parse_settings(
            _SETTINGS.format(quota=self.quota, tables=self.tables), self.folder / "heap_assets.yaml"
        )
        return Project(settings, self.catalogue, Lake.open(str(self.folder / "lake")))

    def definitions(self) -> dg.Definitions:
        return build_definitions(self.project())

    def accept_news(self) -> None:
        self.catalogue = self.catalogue.accept(self.catalogue.missing(self.project().landing))

    def tick(self, cursor: str | None = None) -> dg.SensorResult:
        sensor = self.definitions().resolve_sensor_def("heap_manifests")
        found = sensor(dg.build_sensor_context(instance=self.instance, cursor=cursor))
        assert isinstance(found, dg.SensorResult)
        return found

    def told(self) -> dict[str, Any]:
        """The metadata of the newest dump that landed."""
        [record] = self.instance.fetch_materializations(asset_key("heap_connect/dumps"), limit=1).records
        assert record.asset_materialization is not None
        return {
            name: entry if isinstance(entry, dg.TableMetadataValue) else entry.value
            for name, entry in record.asset_materialization.metadata.items()
        }

    def build(self, table: str, day: str) -> dict[str, Any]:
        """Build a day of an event table; return what the UI shows of it."""
        key = asset_key(f"heap/events/{table}")
        job = self.definitions().resolve_implicit_global_asset_job_def().get_subset(asset_selection={key})
        job.execute_in_process(instance=self.instance, partition_key=day)
        [record] = self.instance.fetch_materializations(key, limit=1).records
        assert record.asset_materialization is not None
        return {name: entry.value for name, entry in record.asset_materialization.metadata.items()}

    def land(self, dump: int) -> dict[str, Any]:
        """Land a dump as the sensor's run would; return check name to its evaluation."""
        self.instance.add_dynamic_partitions(str(DUMPS.name), [str(dump)])
        job = self.definitions().resolve_implicit_global_asset_job_def()
        result = job.get_subset(asset_selection={asset_key("heap_connect/dumps")}).execute_in_process(
            instance=self.instance, partition_key=str(dump)
        )
        return {found.check_name: found for found in result.get_asset_check_evaluations()}

    def land_range(self, request: dg.RunRequest) -> list[dg.AssetCheckEvaluation]:
        """Land several dumps as the run that the sensor asks for; return what was judged."""
        dumps = request.tags["heap/dump_ids"].split(",")
        self.instance.add_dynamic_partitions(str(DUMPS.name), dumps)
        job = self.definitions().resolve_implicit_global_asset_job_def()
        result = job.get_subset(asset_selection={asset_key("heap_connect/dumps")}).execute_in_process(
            instance=self.instance, tags=dict(request.tags)
        )
        return result.get_asset_check_evaluations()


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landing:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T02:00:00Z")
    return Landing(tmp_path)


def rows(day: str, count: int, first: int = 1) -> list[dict[str, Any]]:
    return [event(first + n, f"{day} 01:00:00") for n in range(count)]


def test_every_dump_has_its_three_verdicts(landing: Landing) -> None:
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=rows("2026-05-02", 5))
    found = landing.land(1)
    assert {name: check.passed for name, check in found.items()} == {
        "every_table_landed": True,
        "catalogue_is_complete": False,
        "rows_within_quota": True,
    }
    assert {check.partition for check in found.values()} == {"1"}
    assert found["catalogue_is_complete"].metadata["tables"].value == "clicks"
    with LakeSql(str(landing.folder / "lake")) as lake_sql:
        [told] = lake_sql.sql(
            'select "table", dump_id, files, rows_read, rows_new, rows_rejected from heap_connect.dumps'
        ).rows()
    assert told == ("clicks", 1, 1, 5, 5, 0)


def test_a_file_in_quarantine_is_named_with_its_block_and_reason(landing: Landing) -> None:
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=rows("2026-05-02", 1), taps=rows("2026-05-02", 1))
    broken = landing.bucket.file(1, "taps")
    broken.write_bytes(broken.read_bytes()[:-20])
    judged = landing.land(1)["every_table_landed"]
    assert not judged.passed
    assert re.search(rf"{broken.name}, block 0: the file ends inside it", str(judged.metadata["taps"].value))
    [repaired_later] = landing.project().landing.reports().filter(state="failed").to_dicts()
    assert (repaired_later["error_block"], repaired_later["attempts"]) == (0, 1)


def test_a_dump_says_what_was_left_out_and_why(landing: Landing) -> None:
    landing.tables = "{exclude: [secret*], columns: {clicks: ['!plan']}}"
    unreadable = {**rows("2026-05-02", 1, 9)[0], "time": "soon"}
    landing.bucket.dump(
        1,
        "2026-05-03T01:00:00",
        clicks=[row | {"plan": "pro"} for row in [*rows("2026-05-02", 2), *rows("2025-12-31", 1, 5), unreadable]],
        secret_plans=rows("2026-05-02", 1),
    )
    landing.land(1)
    told = landing.told()
    assert (told["not_selected"], told["columns_not_selected"]) == ("secret_plans", "clicks: plan")
    assert (told["read"], told["new"], told["before_start"], told["rejected"]) == (4, 2, 1, 1)
    [clicks] = told["tables"].records
    assert clicks.data["reason"] == "time is not a time"


def test_rows_that_the_settings_leave_out_are_counted_and_not_stored(landing: Landing) -> None:
    inside = [{**row, "host": "localhost"} for row in rows("2026-05-02", 3, 10)]
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=[{**rows("2026-05-02", 1)[0], "host": "acme.io"}, *inside])
    landing.land(1)
    landing.accept_news()
    whole = landing.build("clicks", "2026-05-02")
    assert (whole["dagster/partition_row_count"], "left_out" in whole) == (4, False)

    landing.tables = "{leave_out: {'cl*': [{host: localhost}, {host: {exists: false}}]}}"
    kept = landing.build("clicks", "2026-05-02")
    assert (kept["status"], kept["dagster/partition_row_count"], kept["left_out"]) == ("written", 1, 3)
    again = landing.build("clicks", "2026-05-02")
    assert (again["status"], again["left_out"]) == ("unchanged", 3)

    landing.tables = "{leave_out: {clicks: {hosst: localhost}}}"
    with pytest.raises(SettingsError, match=r"leave_out\.clicks names the column 'hosst'.*Columns: .*host"):
        landing.definitions()


def test_a_month_is_warned_about_and_stops_between_dumps(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.quota = "{rows_a_month: 10, stop: true}"
    for dump, first in ((1, 1), (2, 20), (3, 40)):
        landing.bucket.dump(dump, f"2026-05-03T0{dump}:00:00", clicks=rows("2026-05-02", 9, first))
    [first_run] = landing.tick().run_requests or []
    assert first_run.partition_key == "1", "with a quota to stop at, dumps are counted one by one"
    warned = landing.land(1)["rows_within_quota"]
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.metadata["rows_this_month"].value == "9"
    [second_run] = landing.tick().run_requests or []
    landing.land(int(str(second_run.partition_key)))

    stopped = landing.tick()

    assert not stopped.run_requests
    assert "1 dumps wait for 2026-06-01: 18 of the 10 rows of 2026-05" in str(
        stopped.skip_reason.skip_message if stopped.skip_reason else ""
    )
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-06-01T02:00:00Z")
    [carried_on] = landing.tick().run_requests or []
    assert carried_on.partition_key == "3"


def test_a_tick_asks_for_a_bounded_number_of_dumps_oldest_first(landing: Landing) -> None:
    for dump in range(1, 26):
        landing.bucket.dump(dump, f"2026-05-02T00:{dump:02d}:00", clicks=[])
    asked = [request.tags["heap/dump_ids"].split(",") for request in landing.tick().run_requests or []]
    assert asked == [[str(dump) for dump in range(1, 21)], [str(dump) for dump in range(21, 26)]]


def test_a_run_lands_a_range_of_dumps_with_a_result_for_each(landing: Landing) -> None:
    for dump in range(1, 4):
        landing.bucket.dump(dump, f"2026-05-03T0{dump}:00:00", clicks=rows("2026-05-02", dump, dump * 10))
    [request] = landing.tick().run_requests or []
    assert request.partition_key is None
    checks = landing.land_range(request)
    assert {check.partition for check in checks if check.check_name == "every_table_landed"} == {"1", "2", "3"}
    assert landing.instance.get_materialized_partitions(asset_key("heap_connect/dumps")) == {"1", "2", "3"}
    [run] = landing.instance.get_runs()
    assert re.fullmatch("[0-9a-f]{16}", run.tags[".dagster/heap_settings"]), "which settings it ran with"
    assert not landing.tick().run_requests


def test_a_table_that_failed_is_asked_for_again_under_a_key_of_its_own_after_a_while(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=rows("2026-05-02", 1))
    whole = landing.bucket.file(1, "clicks").read_bytes()
    landing.bucket.file(1, "clicks").write_bytes(whole[:-20])
    [first] = landing.tick().run_requests or []
    assert not landing.land(1)["every_table_landed"].passed, "this is what is alerted"
    assert not landing.tick().run_requests, "it waits before it is tried again"
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T02:06:00Z")
    [second] = landing.tick().run_requests or []
    assert first.run_key != second.run_key, "Dagster runs a key once"
    landing.bucket.file(1, "clicks").write_bytes(whole)
    assert landing.land(1)["every_table_landed"].passed
    assert not landing.tick().run_requests


def test_rows_ahead_of_the_clock_are_built_when_their_day_has_come(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=[*rows("2026-05-02", 1), *rows("2026-05-04", 1, 9)])
    landing.land(1)
    landing.accept_news()
    landed = landing.instance.get_materialized_partitions(asset_key("heap_connect/landed"))
    assert landed == {"2026-05-02"}
    today = landing.tick()
    assert (today.cursor, list(today.asset_events)) == ("2026-05-03", [])

    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-04T00:01:00Z")
    [came] = landing.tick(today.cursor).asset_events

    assert isinstance(came, dg.AssetMaterialization)
    assert (came.asset_key, came.partition) == (asset_key("heap_connect/landed"), "2026-05-04")
    assert not landing.tick("2026-05-04").asset_events


def test_after_a_full_resync_every_day_that_the_table_ever_had_waits_to_be_built(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2026-05-01", "2026-05-02"]
    landing.bucket.dump(1, "2026-05-03T01:00:00", clicks=[row for day in days for row in rows(day, 1, int(day[-1]))])
    landing.land(1)
    landing.accept_news()
    asset = "heap/events/clicks"
    assert unbuilt_days(landing.project()) == {asset: {date.fromisoformat(day) for day in days}}
    landing.build("clicks", days[0])
    assert unbuilt_days(landing.project()) == {asset: {date(2026, 5, 2)}}
    landing.build("clicks", days[1])
    assert unbuilt_days(landing.project()) == {}

    # later than any build: a build is as old as its result's file
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2099-05-04T02:00:00Z")
    landing.bucket.dump(2, "2026-05-04T01:00:00", full=["clicks"], clicks=rows("2026-05-03", 1, 9))
    landing.land(2)

    assert unbuilt_days(landing.project()) == {asset: {date(2026, 5, day) for day in (1, 2, 3)}}


ODD_NAMES = ("sign_up", "sign-up", "Sign Up", "anmeldung_größe", "café_signup", "${HOME}", "日本語", "a" * 200)


def test_tables_whose_names_dagster_cannot_hold_get_keys_of_their_own(landing: Landing) -> None:
    tables = {name: rows("2026-05-02", 1, number) for number, name in enumerate(ODD_NAMES)}
    landing.bucket.dump(1, "2026-05-03T01:00:00", **tables)
    landing.land(1)
    landing.accept_news()
    assert set(landing.catalogue.tables) == set(ODD_NAMES)
    keys = {name: heap_asset(name).rpartition("/")[2] for name in ODD_NAMES}
    assert keys["sign_up"] == "sign_up"
    assert len(set(keys.values())) == len(ODD_NAMES)
    for number, name in enumerate(ODD_NAMES):
        assert landing.build(keys[name], "2026-05-02")["dagster/partition_row_count"] == 1, name
        lake = landing.project().lake
        assert lake.scan(heap_asset(name), "2026-05-02").collect()["event_id"].to_list() == [number]
    specs = {spec.key: spec.description or "" for spec in landing.definitions().resolve_all_asset_specs()}
    assert "`Sign Up`" in specs[asset_key(heap_asset("Sign Up"))], "its own name is shown"
