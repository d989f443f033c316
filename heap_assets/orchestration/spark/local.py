"""Spark on the machine of the run, in a process of its own.

The process is `python spark_job.py`, not `spark-submit`: that would put a shell and Java between the run and the job,
so that neither the exit status nor a signal would be the job's own. pyspark starts Java by itself, with the memory that
the settings give it; Java ends with the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from heap_assets import orchestration
from heap_assets.orchestration.spark.clusters import JobState, Submission

_PATIENCE_SECONDS = 20
_PACKAGES = Path(orchestration.__path__[0]).parents[1]


class ThisMachine:
    """Starts the job as a child of this process."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, submission: Submission) -> str:
        """Start the process and return its number."""
        # -P: modules beside the script must not stand before those of the standard library
        command = [sys.executable, "-P", submission.script, *submission.arguments]
        path = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})  # noqa: S603  our own interpreter
        self._processes[str(process.pid)] = process
        return str(process.pid)

    def state(self, job: str) -> JobState:
        """Return whether the process runs, and its exit status."""
        status = self._processes[job].poll()
        if status is None:
            return JobState("running", "running")
        if status == 0:
            return JobState("succeeded", "exit status 0")
        return JobState("failed", f"killed by signal {-status}" if status < 0 else f"exit status {status}")

    def cancel(self, job: str) -> None:
        """End the process."""
        process = self._processes[job]
        process.terminate()
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
