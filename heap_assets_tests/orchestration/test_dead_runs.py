"""A run that was killed gives back the slot of its pool to the next run of its machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from heap_assets.orchestration.resources import PROCESS_TAG, clear_dead_runs, clear_runs_of_no_process
from heap_assets_tests.orchestration.company_platform import ROOT

HOLDING = """
import os, sys
import dagster as dg
from heap_assets.orchestration.resources import LakeResource

@dg.asset(pool="one_at_a_time", required_resource_keys={"lake"})
def table() -> None:
    os.write(1, b"holding\\n")
    if sys.argv[2] == "wait":
        sys.stdin.read()

with dg.DagsterInstance.get() as instance:
    dg.materialize([table], instance=instance, resources={"lake": LakeResource(url=sys.argv[1]).definition()})
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def started(home: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", HOLDING, str(home / "lake"), what]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "DAGSTER_HOME": str(home)},
    )


def test_the_next_run_does_not_wait_for_one_that_was_killed(home: Path) -> None:
    with started(home, "wait") as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "holding\n"
        with dg.DagsterInstance.get() as instance:
            assert clear_dead_runs(instance) == [], "it lives"
            assert instance.event_log_storage.get_concurrency_info("one_at_a_time").active_slot_count == 1
        killed.kill()
    with started(home, "go on") as following:
        output, _ = following.communicate(timeout=60)
    assert (output, following.returncode) == ("holding\n", 0)
    with dg.DagsterInstance.get() as instance:
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"]


def test_runs_of_other_machines_and_of_unknown_processes_are_left_alone(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        for process in ('["another machine", 1, "1"]', "no process", json.dumps([])):
            run = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process})
            instance.add_run(run)
        assert clear_dead_runs(instance) == []


def test_before_a_daemon_starts_runs_of_no_process_end_and_living_ones_do_not(home: Path) -> None:
    with started(home, "wait") as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "holding\n"
        with dg.DagsterInstance.get() as instance:
            launched = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTING)
            instance.add_run(launched)
            assert clear_runs_of_no_process(instance) == [launched.run_id]
            assert {run.status.value for run in instance.get_runs()} == {"STARTED", "FAILURE"}
        living.communicate("", timeout=60)
    assert living.returncode == 0
