"""Several machines build one lake, each in an order of its own, some killed: the lake of one, nothing written twice.

Each machine is a process with a Dagster home of its own, so that none knows of the others; the lake lies behind an S3
server that keeps every version of an object.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import boto3
import pytest
import yaml
from polars.testing import assert_frame_equal

from heap_assets.pipelines.catalogue import accept, missing
from heap_assets.pipelines.heap_tables import event_day
from heap_assets.pipelines.landing import land
from heap_assets.pipelines.table import Task
from heap_assets.project import Project, load_settings, open_project
from heap_assets.tables import heap_asset
from heap_assets_tests.s3_server import s3_server
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

MACHINES = int(os.environ.get("HEAP_ASSETS_MACHINES", "2"))
TABLES = int(os.environ.get("HEAP_ASSETS_MACHINE_TABLES", "4"))
DAYS = int(os.environ.get("HEAP_ASSETS_MACHINE_DAYS", "4"))
KILLS = 3
ROOT = Path(__file__).parents[2]
START = date(2026, 3, 1)
SETTINGS = """
start_date: 2026-03-01
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: heap_user_id}]}
"""


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as options:
        yield options


def written_dumps(folder: Path) -> None:
    """Write a dump for every two days; each repeats some rows of the dump before, changed."""
    bucket, days = Bucket(folder / "bucket"), [START + timedelta(days=at) for at in range(DAYS)]
    for first in range(0, DAYS, 2):
        covered = days[max(0, first - 1) : first + 2]
        tables = {
            f"table_{table:02d}": [
                event(day.toordinal() * 1000 + row, f"{day} 12:00:{row:02d}", user_id=row, plan=f"plan {first}")
                for day in covered
                for row in range(5 + table % 3)
            ]
            for table in range(TABLES)
        }
        bucket.dump(first + 1, f"{covered[-1] + timedelta(days=1)} 06:00:00", **tables)


def opened(folder: Path, lake: dict[str, object]) -> Project:
    settings = folder / "heap_assets.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS), "lake": lake}))
    return open_project(load_settings(settings), settings)


def landed(project: Project) -> Project:
    """Land all dumps, with what they hold in the catalogue."""
    for manifest in project.landing.pending(project.source()):
        done = land(project, manifest.dump_id)
        project.landing.confirm(manifest.dump_id, done.report.touched)
    return replace(project, catalogue=accept(project, missing(project)).catalogue)


def test_many_machines_build_the_lake_of_one(tmp_path: Path, s3: dict[str, str]) -> None:
    written_dumps(tmp_path)
    client = boto3.client("s3", endpoint_url=s3["aws_endpoint_url"], region_name="us-east-1",
                          aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip
    client.create_bucket(Bucket="lake")
    client.put_bucket_versioning(Bucket="lake", VersioningConfiguration={"Status": "Enabled"})
    one = landed(opened(tmp_path, {"url": str(tmp_path / "one")}))
    many = landed(opened(tmp_path, {"url": "s3://lake/many", "options": s3}))
    assert len(many.event_tables) == TABLES

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DAGSTER_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "heap_assets_tests.machines.worker", str(many.file)]

    def machine(number: int) -> subprocess.Popen[bytes]:
        home = tmp_path / f"home {number}"
        home.mkdir(exist_ok=True)
        with (tmp_path / f"log {number}").open("ab") as log:
            variables = {**environment, "DAGSTER_HOME": str(home)}
            return subprocess.Popen([*command, str(number)], env=variables, stdout=log, stderr=log)

    def lines(number: int) -> int:
        return (tmp_path / f"log {number}").read_text().count(" to ")

    luck = random.Random(1)
    machines = {number: machine(number) for number in range(MACHINES)}
    for _ in range(KILLS):
        number = luck.choice([number for number, process in machines.items() if process.poll() is None] or [0])
        begun = lines(number)
        while machines[number].poll() is None and lines(number) == begun:
            time.sleep(0.02)  # until it is at work
        time.sleep(luck.uniform(0, 0.3))
        machines[number].send_signal(signal.SIGKILL)
        machines[number].wait()
        machines[number] = machine(number)
    for number, process in machines.items():
        assert process.wait(timeout=7200) == 0, (tmp_path / f"log {number}").read_text()[-3000:]
        assert "False" not in (tmp_path / f"log {number}").read_text()

    for table in one.event_tables:
        days = one.landing.days(table)
        assert len(days) == DAYS
        assert many.lake.partitions(heap_asset(table)) == [str(day) for day in days]
        for day in days:
            made = event_day(Task(one, day, tmp_path), table)
            assert_frame_equal(many.lake.scan(heap_asset(table), str(day)).collect(), made.frame.collect())

    pages = client.get_paginator("list_object_versions").paginate(Bucket="lake", Prefix="many/heap/")
    versions = Counter(version["Key"] for page in pages for version in page.get("Versions", ()))
    assert len(versions) == TABLES * DAYS
    assert {key: count for key, count in versions.items() if count > 1} == {}, "each day was stored once"
