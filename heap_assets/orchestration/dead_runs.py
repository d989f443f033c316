"""Runs whose process is gone give back what they hold: their slots of pools, and the look of being at work.

A run that was started by hand and killed stays "started" in Dagster for ever, and with it the only slot of its pool:
the next run waits for it and, while it waits, does not react to SIGTERM. Dagster's run monitoring sees only runs that
the daemon launched. So every run notes its process, and who comes next on that machine clears up after the dead.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence

import dagster as dg

from heap_assets.machine import machine, process_start

PROCESS_TAG = ".dagster/heap_process"
_SAID = "Its process is gone: it was killed. What it had done is kept; its dump or day is taken up by another run."


def note_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on a run that this process executes it; nothing in the processes of single steps, which come and go."""
    if multiprocessing.parent_process() is None and instance.has_run(run_id):
        process = json.dumps([machine(), os.getpid(), process_start(os.getpid())])
        instance.add_run_tags(run_id, {PROCESS_TAG: process})


def clear_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs of this machine as failed whose process is gone, and free their slots; return their ids."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    return _end(instance, [run for run in instance.get_runs(started) if _is_dead(run)])


def clear_runs_of_no_process(instance: dg.DagsterInstance) -> list[str]:
    """Report unfinished runs as failed that are dead or have noted no process, and free their slots; return their ids.

    Only for whoever knows that nobody is launching runs, such as `heap-assets dev` before it starts the daemon: a run
    that was launched a moment ago has noted no process yet.
    """
    unfinished = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(statuses=unfinished))
    return _end(instance, [run for run in runs if PROCESS_TAG not in run.tags or _is_dead(run)])


def clear_orphaned_runs() -> int:
    """End the runs that a killed `heap-assets dev` left on the instance of `DAGSTER_HOME`; return how many.

    They would stay started for ever and keep the slots of their pools.
    """
    with dg.DagsterInstance.get() as instance:
        return len(clear_runs_of_no_process(instance))


def _end(instance: dg.DagsterInstance, dead: Sequence[dg.DagsterRun]) -> list[str]:
    for run in dead:
        instance.report_run_failed(run, _SAID)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _is_dead(run: dg.DagsterRun) -> bool:
    try:
        where, pid, start = json.loads(run.tags[PROCESS_TAG])
    except (KeyError, ValueError):
        return False
    return bool(where == machine() and process_start(int(pid)) != start)
