"""Starting the job that resolves a day, from the step of Dagster, and taking over what it reports."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets import orchestration
from heap_assets.config import (
    AnySpark,
    ClusterSettings,
    DatabricksSpark,
    DataprocSpark,
    EmrServerlessSpark,
    EmrSpark,
    GlueSpark,
)
from heap_assets.errors import HeapAssetsError
from heap_assets.http_client import AllowedHosts
from heap_assets.identity import SPARK_FOLDER, Engine, SparkJob, SparkJobError, remove_spark_folder
from heap_assets.orchestration.spark.amazon import Emr, EmrServerless, Glue
from heap_assets.orchestration.spark.clusters import Cluster, JobState, Submission, wait_for
from heap_assets.orchestration.spark.local import ThisMachine
from heap_assets.orchestration.spark.over_http import Databricks, Dataproc
from heap_assets.orchestration.spark.pipes import StoredMessages, StoredOrders
from heap_assets.project import Project, spark_tuning
from heap_assets.storage import Store, parts_folder
from heap_assets.tables import GRAPH

SCRIPT = Path(orchestration.__path__[0]) / "spark_job.py"
_LOCAL_POLL_SECONDS = 0.5
_MESSAGE_SECONDS = 10


@contextmanager
def engine_of_run(project: Project, context: dg.AssetExecutionContext, day: str) -> Iterator[Engine | None]:
    """Give the engine that resolves a day in a job of its own; None if this process resolves it.

    What the job has written is removed in the end, so tables must be stored before.
    """
    engine = project.settings.identity.engine
    if isinstance(engine, str):
        yield None
        return
    spark, name = engine.spark, f"{context.run.run_id[:8]}-{uuid.uuid4().hex[:8]}"
    work, graph = _work(project, spark, f"{day}-{name}"), parts_folder(GRAPH, day, name)
    job = _Job(context, spark, work, cluster_of(spark, project.allowed_hosts), day)
    try:
        yield SparkJob(spark_tuning(spark), work, job.run, graph, is_local=spark.cluster == "local")
    finally:
        remove_spark_folder(work)
        project.lake.discard_parts(graph)


def cluster_of(spark: AnySpark, allowed: AllowedHosts) -> Cluster:
    """Return where the settings say that jobs run."""
    match spark:
        case EmrServerlessSpark():
            return EmrServerless(spark, allowed)
        case EmrSpark():
            return Emr(spark, allowed)
        case GlueSpark():
            return Glue(spark, allowed)
        case DataprocSpark():
            return Dataproc(spark, allowed)
        case DatabricksSpark():
            return Databricks(spark, allowed)
        case _:
            return ThisMachine()


def _work(project: Project, spark: AnySpark, name: str) -> Store:
    """Return the store of one job. An object store is opened as the lake is."""
    if isinstance(spark, ClusterSettings):
        return Store(f"{spark.work.rstrip('/')}/{name}", project.settings.lake.options)
    if spark.work is None:
        return Store(tempfile.mkdtemp(prefix=SPARK_FOLDER))
    return Store(str(Path(spark.work).resolve() / f"{SPARK_FOLDER}{name}"))


class _Job:
    def __init__(
        self, context: dg.AssetExecutionContext, spark: AnySpark, work: Store, cluster: Cluster, day: str
    ) -> None:
        self._context, self._spark, self._work, self._cluster, self._day = context, spark, work, cluster, day

    def run(self, orders: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Run a job to its end and return its report, None without one, see :data:`Launch`."""
        is_remote = isinstance(self._spark, ClusterSettings)
        poll_seconds = self._spark.poll_seconds if isinstance(self._spark, ClusterSettings) else _LOCAL_POLL_SECONDS
        hours = self._spark.timeout_hours if isinstance(self._spark, ClusterSettings) else float("inf")
        messages = StoredMessages(self._work, _MESSAGE_SECONDS if is_remote else _LOCAL_POLL_SECONDS)
        own = self._context.op_execution_context  # Pipes reads what is deprecated of the context of assets
        with dg.open_pipes_session(own, StoredOrders(self._work), messages, extras={**orders}) as session:
            arguments = [part for pair in session.get_bootstrap_cli_arguments().items() for part in pair]
            submission = Submission(
                script=self._script(),
                arguments=arguments,
                name=f"heap_assets identity {self._day}",
                token=uuid.uuid4().hex,
                labels=session.default_remote_invocation_info,
                timeout_hours=hours if is_remote else 0,
            )
            state = self._ended(submission, poll_seconds, hours)
        messages_of_job: list[Mapping[str, Any]] = [
            one for one in session.get_custom_messages() if isinstance(one, dict)
        ]
        reason = next((str(one["error"]) for one in messages_of_job if "error" in one), None)
        if state.phase == "failed" or reason:
            raise SparkJobError(f"the Spark job failed ({state.detail}): {reason or 'it gave no reason; see its log'}")
        return next((one["results"] for one in messages_of_job if "results" in one), None)

    def _ended(self, submission: Submission, poll_seconds: float, hours: float) -> JobState:
        job = self._cluster.start(submission)
        self._context.log.info("Spark job %s is started (%s)", job, self._spark.cluster)
        try:
            return wait_for(
                self._cluster,
                job,
                poll_seconds=poll_seconds,
                timeout_hours=hours,
                report=lambda state: self._context.log.info("Spark job %s: %s", job, state.detail),
            )
        except BaseException:  # also when the run is interrupted: a job that nobody waits for costs money
            with suppress(HeapAssetsError):
                self._cluster.cancel(job)
            raise

    def _script(self) -> str:
        """Return where the cluster finds the script: the run's own, so that it is never that of another version."""
        if not isinstance(self._spark, ClusterSettings):
            return str(SCRIPT)
        self._work.write(SCRIPT.name, SCRIPT.read_bytes())
        return self._work.uri(SCRIPT.name)
