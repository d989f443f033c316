"""What all kinds of cluster have in common: a job is started, looked at until it has ended, and cancelled.

Pipes clients of vendors are not used for this. That of EMR gives up after 30 minutes while the cluster goes on, and
takes a failed step for a success; others need packages of their own. Orders and messages are Pipes' all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from heap_assets.errors import HeapAssetsError
from heap_assets.identity import SparkJobError

UNPACKED: Final = "environment"
PYTHON: Final = f"./{UNPACKED}/bin/python"
"""The folder into which a cluster unpacks the archive, and Python in it."""
ON_YARN: Final = {
    "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
    "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
    "spark.yarn.maxAppAttempts": "1",  # a second attempt would write beside what the first one wrote
}
"""Settings of a job whose driver is on the cluster, too."""
_SILENCES = 20
"""Looks in a row that may fail: a cloud that does not answer for a while says nothing about the job."""


class NoStateError(HeapAssetsError):
    """The state of a job could not be read; it may be in any."""

    exit_status = 1


@dataclass(frozen=True)
class Submission:
    """What is to run.

    Attributes
    ----------
    script
        Address of the script, where the cluster can read it.
    arguments
        Of the script, names and values in turn.
    name, token
        What people see, and what makes starting it twice start it once.
    labels
        The run of Dagster that it belongs to.
    timeout_hours
        After which the cluster itself may end it.
    """

    script: str
    arguments: Sequence[str]
    name: str
    token: str
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout_hours: float = 24


@dataclass(frozen=True)
class JobState:
    """How a job stands; `detail` in the words of its cluster."""

    phase: Literal["running", "succeeded", "failed"]
    detail: str


class Cluster(Protocol):
    """Where jobs run."""

    def start(self, submission: Submission) -> str:
        """Start a job and return its id; SparkJobError if it is refused."""

    def state(self, job: str) -> JobState:
        """Return how a job stands; NoStateError if that cannot be known now."""

    def cancel(self, job: str) -> None:
        """Ask for the end of a job."""


def wait_for(
    cluster: Cluster,
    job: str,
    *,
    poll_seconds: float,
    timeout_hours: float,
    report: Callable[[JobState], None] = lambda state: None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> JobState:
    """Return the state in which a job has ended; `report` is called whenever what its cluster says changes.

    Raises
    ------
    SparkJobError
        If it takes too long, or its cluster does not answer 20 times in a row.
    """
    ends, silences, last = now() + timeout_hours * 3600, 0, None
    while True:
        try:
            state = cluster.state(job)
        except NoStateError as error:
            silences += 1
            if silences >= _SILENCES:
                raise SparkJobError(f"the state of the Spark job {job} could not be read: {error}") from error
        else:
            silences = 0
            if state != last:
                report(state)
            if state.phase != "running":
                return state
            last = state
        if now() >= ends:
            raise SparkJobError(
                f"the Spark job {job} has run for {timeout_hours:g} hours (identity.engine.spark.timeout_hours) and "
                f"is cancelled; it was last {last.detail if last else 'never seen'}"
            )
        sleep(poll_seconds)
