"""A process that materializes and judges toy tables over and over, and is killed over and over.

    python -m heap_assets_tests.orchestration.killed_writer KILLS SEED

Each life is a fork that writes to `$DAGSTER_HOME` until it is killed. What was told is printed: `run_id table`.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from heap_assets.orchestration.event_log import batch_check_events

TABLES = [f"table_{number}" for number in range(4)]
CHECKS = [f"check_{number}" for number in range(8)]
DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-08")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_LONGEST_S = 0.3


def toy_job() -> dg.JobDefinition:
    """Return a job of one step that builds every table and tells the results on each together."""

    @dg.multi_asset(
        specs=[dg.AssetSpec(table, partitions_def=DAYS) for table in TABLES],
        check_specs=[dg.AssetCheckSpec(name, asset=t, partitions_def=DAYS) for t in TABLES for name in CHECKS],
    )
    def tables(context: dg.AssetExecutionContext) -> Iterator[Any]:
        for table in TABLES:
            yield dg.MaterializeResult(table, metadata={"rows": 3})
            with batch_check_events(context.instance):
                for number, name in enumerate(CHECKS):
                    yield dg.AssetCheckEvaluation(
                        asset_key=dg.AssetKey(table),
                        check_name=name,
                        passed=number != 1,
                        partition=context.partition_key,
                        metadata={"number": number},
                    )
            os.write(1, f"{context.run.run_id} {table}\n".encode())
        for table in TABLES:
            for name in CHECKS:
                yield dg.Output(None, output_name=dg.AssetCheckSpec(name, asset=table).get_python_identifier())

    return dg.Definitions(assets=[tables]).resolve_implicit_global_asset_job_def()


def run(instance: dg.DagsterInstance, job: dg.JobDefinition, day: str = "2026-11-01") -> str:
    """Run the job and return the id of the run."""
    return job.execute_in_process(instance=instance, partition_key=day, run_config=QUIET).run_id


def _live(job: dg.JobDefinition) -> None:
    with dg.DagsterInstance.get() as instance:
        while True:
            run(instance, job)


def _killed_life(job: dg.JobDefinition, seconds: float) -> bytes:
    """Return what a process told that was killed some time after it had begun to tell."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        _live(job)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.readline()
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return told + pipe.read()


def _main() -> None:
    rnd, job = random.Random(int(sys.argv[2])), toy_job()
    for _ in range(int(sys.argv[1])):
        os.write(1, _killed_life(job, rnd.uniform(0, _LONGEST_S)))


if __name__ == "__main__":
    _main()
