"""The lake as a Dagster resource, the partitions of tables, and the end of runs whose process is gone.

A run that was started by hand and killed stays "started" in Dagster for ever, and with it the only slot of its pool:
the next run waits for it and, while it waits, does not react to SIGTERM. Dagster's run monitoring sees only runs that
the daemon launched. So every run records its process as a tag, and the next run on that machine ends the dead ones.
"""

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from heap_assets.machine import machine, process_start
from heap_assets.project import PLAIN_NAMES, Names
from heap_assets.storage import Lake, Partition


def dump_partitions(names: Names) -> dg.DynamicPartitionsDefinition:
    """Return the partitions of dumps, one each, added by the manifest sensor."""
    return dg.DynamicPartitionsDefinition(name=names.name("heap_dumps"))


DUMPS = dump_partitions(PLAIN_NAMES)
"""Those of a deployment that shares its instance with no other."""


def days(start_date: date) -> dg.DailyPartitionsDefinition:
    """Return the UTC days from `start_date` to the running one.

    One definition serves every table: a backfill over several assets then needs one run a day rather than one a day
    and asset (reference: Dagster groups runs by equal partition definitions).
    """
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), timezone="UTC", end_offset=1)


SETTINGS_TAG, LAKE_TAG, KEY_PREFIX_TAG = ".dagster/heap_settings", ".dagster/heap_lake", ".dagster/heap_key_prefix"
"""Tags that the UI does not show, because their names begin so."""


@dataclass(frozen=True)
class LakeResource:
    """The lake of Parquet tables; `open` gives the object that domain code works with.

    It has no configuration in Dagster: the launchpad would offer another lake, and show the options of this one.

    Attributes
    ----------
    url, options
        Folder, s3:// or gs:// address, and the object store's options.
    settings, key_prefix
        Hash of the settings that were loaded, and the first parts of the asset keys: tags of every run.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: str = ""
    key_prefix: tuple[str, ...] = ()

    def definition(self) -> dg.ResourceDefinition:
        """Return what Dagster hands to the steps of a run."""

        def opened(context: dg.InitResourceContext) -> "LakeResource":
            self._note_run(context)
            return self

        return dg.ResourceDefinition(opened, description=f"The lake of Parquet tables at {self.url}.")

    def _note_run(self, context: dg.InitResourceContext) -> None:
        """Clear up after dead runs before this one waits for the slot of a pool that they hold."""
        if context.instance is not None and context.run is not None:
            note_process(context.instance, context.run.run_id)
            clear_dead_runs(context.instance)
            tags = {SETTINGS_TAG: self.settings, LAKE_TAG: self.url, KEY_PREFIX_TAG: json.dumps([*self.key_prefix])}
            if self.settings and context.instance.has_run(context.run.run_id):
                context.instance.add_run_tags(context.run.run_id, tags)

    def open(self) -> Lake:
        """Open the lake."""
        return Lake.open(self.url, dict(self.options))


def names_on(instance: dg.DagsterInstance, lake: Lake) -> Names:
    """Return what the assets of a lake are called on an instance, by the newest run on that lake.

    A command knows the settings, but not the code location that may have put a prefix before their assets.
    """
    for run in instance.get_runs(dg.RunsFilter(tags={LAKE_TAG: lake.store.url}), limit=1):
        return Names(tuple(json.loads(run.tags[KEY_PREFIX_TAG])))
    return PLAIN_NAMES


def partition_metadata(partition: Partition) -> dict[str, Any]:
    """Return what the UI shows of a stored partition: rows and size, which it plots, and what it was built from."""
    return {
        "dagster/partition_row_count": partition.rows,
        "bytes": partition.bytes,
        "inputs": f"{len(partition.inputs.versions)}",
        "version": partition.version.strip('"'),
    }


PROCESS_TAG = ".dagster/heap_process"
_MESSAGE = "Its process is gone: it was killed. What it had done is kept; its dump or day is taken up by another run."


def note_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with the process that executes it, but not from the child processes of single steps."""
    if multiprocessing.parent_process() is None and instance.has_run(run_id):
        process = json.dumps([machine(), os.getpid(), process_start(os.getpid())])
        instance.add_run_tags(run_id, {PROCESS_TAG: process})


def clear_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs of this machine as failed whose process is gone, and free their slots; return their ids."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    return _end(instance, [run for run in instance.get_runs(started) if _is_dead(run)])


def clear_runs_of_no_process(instance: dg.DagsterInstance) -> list[str]:
    """Report unfinished runs as failed that are dead or have no process tag, and free their slots; return their ids.

    Call it only while no runs are being launched, as `heap-assets dev` does before it starts the daemon: a run that was
    launched a moment ago has no tag yet.
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
        instance.report_run_failed(run, _MESSAGE)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _is_dead(run: dg.DagsterRun) -> bool:
    try:
        where, pid, start = json.loads(run.tags[PROCESS_TAG])
    except (KeyError, ValueError):
        return False
    return bool(where == machine() and process_start(int(pid)) != start)
