"""A company with more event tables than Dagster lets one sensor look at."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from heap_assets import clock
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.landing import land
from heap_assets.project import load_settings, open_project
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

TABLES = 505
SETTINGS = """
start_date: 2026-03-01
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: heap_user_id}]}
lake: {url: ./lake}
"""


def test_days_of_all_tables_are_requested_and_no_run_names_its_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.VARIABLE, datetime(2026, 3, 3, 12, tzinfo=UTC).isoformat())
    names = [f"event_{number:03}" for number in range(TABLES)]
    rows = {name: [event(number, "2026-03-01 10:00:00", plan="pro")] for number, name in enumerate(names)}
    Bucket(tmp_path / "bucket").dump(1, "2026-03-02T06:00:00", **rows)
    (tmp_path / "heap_assets.yaml").write_text(SETTINGS)
    known = {name: {"display_name": name, "columns": {"plan": {}}} for name in names}
    (tmp_path / "heap_catalogue.yaml").write_text(yaml.safe_dump(known))
    project = open_project(load_settings(tmp_path / "heap_assets.yaml"), tmp_path / "heap_assets.yaml")
    project.landing.confirm(1, land(project, 1).report.touched)
    (record,) = (tmp_path / "lake" / "_landing" / "_dumps").glob("*.json")  # the sensor waits for dumps that may follow
    record.write_text(re.sub(r'(?<="landed_at":")[^"]+', "2026-03-02T07:00:00+00:00", record.read_text()))
    repository = build_definitions(project).get_repository_def()
    requested: set[dg.AssetKey] = set()
    with dg.instance_for_test() as instance:
        for sensor in repository.sensor_defs:
            if not sensor.name.startswith("heap_tables_follow_dumps"):
                continue
            with dg.build_sensor_context(instance, repository_def=repository) as context:
                for request in sensor.evaluate_tick(context).run_requests or []:
                    assert request.asset_check_keys is None
                    requested |= {*(request.asset_selection or ())}
    assert requested >= {dg.AssetKey(["heap", "events", name]) for name in names}
