"""A Dagster run that is killed while it sends, and the run after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from heap_assets import clock
from heap_assets.activation import runs
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.demo.server_process import ServerProcess
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, NOW, calls, properties, why

_SEND = """
import sys, dagster as dg
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.project.project import open_project
job = build_definitions(open_project()).resolve_implicit_global_asset_job_def()
chosen = job.get_subset(asset_selection={dg.AssetKey(["sync", "heap_user_properties"])})
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    chosen.execute_in_process(instance=instance, partition_key=sys.argv[2])
"""
_PATIENCE = 60


def test_a_run_killed_while_it_sends_is_made_good_by_the_next(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_user_properties: {properties: {Plan: plan}}")
    heap.fail({"kind": "slow", "seconds": 30})
    home = world.folder / "dagster"
    home.mkdir()
    environment = os.environ | {PATH_VARIABLE: str(world.folder / "heap_assets.yaml"), clock.VARIABLE: NOW}
    process = subprocess.Popen(
        [sys.executable, "-c", _SEND, str(home), str(DAY)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + _PATIENCE
    while not calls(heap) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    heap.fail()

    result = world.run(["sync/heap_user_properties"], DAY)

    assert result.success, why(result)
    assert properties(heap) == {f"{who}@x.example": {"Plan": "pro"} for who in ("ann", "bob", "cat")}
    assert runs(world.lake.store, "heap_user_properties", last=1)["sent"].to_list() == [3]
    again = world.run(["sync/heap_user_properties"], DAY)
    assert again.success
    assert runs(world.lake.store, "heap_user_properties", last=1)["requests"].to_list() == [0]
