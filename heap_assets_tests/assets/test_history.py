"""Dagster's event log stays open between events: nothing is lost by a kill, and a wiped log begins anew."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from heap_assets.history import EventLog
from heap_assets_tests.assets.company_platform import ROOT

REPORTER = """
import itertools, sys
import dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    for number in itertools.count(1):
        instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata={"number": number}))
        print(number, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def numbers(instance: dg.DagsterInstance) -> list[object]:
    found = instance.fetch_materializations(dg.AssetKey("a"), limit=10_000).records
    return [r.asset_materialization.metadata["number"].value for r in reversed(found) if r.asset_materialization]


def report(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata={"number": number}))


def test_what_was_reported_before_a_kill_is_there_after_it(home: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", REPORTER, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.event_log_storage, EventLog)
        found = numbers(instance)
    assert found[: len(told)] == told
    assert found == list(range(1, len(found) + 1))


def test_two_writers_see_each_other_and_a_wiped_log_begins_anew(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as one, dg.DagsterInstance.from_config(str(home)) as other:
        for number in range(10):
            report(one if number % 2 else other, number)
        assert numbers(one) == numbers(other) == list(range(10))
        one.event_log_storage.wipe()
        report(other, 77)
        assert numbers(one) == numbers(other) == [77]


def test_more_runs_than_files_kept_open(home: Path) -> None:
    @dg.asset
    def a() -> None: ...

    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [dg.materialize([a], instance=instance).run_id for _ in range(10)]
        for run_id in runs:
            kinds = {
                record.event_log_entry.dagster_event_type for record in instance.get_records_for_run(run_id).records
            }
            assert dg.DagsterEventType.RUN_SUCCESS in kinds
