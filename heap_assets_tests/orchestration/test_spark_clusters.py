"""Jobs on clusters: what is asked of each cloud, what its answers mean, and how long is waited."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.backends import get_backend

from heap_assets.config import DatabricksSpark, DataprocSpark, EmrServerlessSpark, EmrSpark, GlueSpark
from heap_assets.errors import HostNotAllowedError
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.identity import SparkJobError
from heap_assets.orchestration.spark.amazon import Emr, EmrServerless, Glue
from heap_assets.orchestration.spark.clusters import Cluster, JobState, NoStateError, Submission, wait_for
from heap_assets.orchestration.spark.over_http import Databricks, Dataproc

REGION, ACCOUNT = "eu-west-1", "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/spark"
SUBMISSION = Submission(
    script="s3://acme/work/spark_job.py",
    arguments=["--dagster-pipes-context", "eJy1", "--dagster-pipes-messages", "eJy2"],
    name="heap_assets identity 2026-11-20",
    token="0f" * 16,
    labels={"dagster/run_id": "4711"},
    timeout_hours=30,
)
WORK = {"work": "s3://acme/work", "region": REGION}


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


class Clock:
    """Time that passes only where something waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def waited(cluster: Cluster, job: str, clock: Clock, hours: float = 30) -> JobState:
    return wait_for(cluster, job, poll_seconds=30, timeout_hours=hours, sleep=clock.sleep, now=clock.now)


@dataclass
class Scripted:
    """A cluster that answers as written; the last answer stands."""

    answers: list[JobState | Exception]
    cancelled: list[str] = field(default_factory=list)

    def start(self, submission: Submission) -> str:
        return submission.name

    def state(self, job: str) -> JobState:
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)


RUNNING, DONE = JobState("running", "RUNNING"), JobState("succeeded", "COMPLETED")


class TestWaiting:
    """Of any cluster."""

    def test_a_job_of_a_day_is_waited_for(self) -> None:
        clock = Clock()
        assert waited(Scripted([*[RUNNING] * 2500, DONE]), "j", clock) == DONE
        assert clock.seconds == 2500 * 30

    def test_a_job_that_never_ends_is_given_up_at_its_time(self) -> None:
        clock = Clock()
        with pytest.raises(SparkJobError, match=r"has run for 30 hours .* was last RUNNING"):
            waited(Scripted([RUNNING]), "j", clock)
        assert clock.seconds == 30 * 3600

    def test_a_cloud_that_does_not_answer_for_a_while_says_nothing_about_the_job(self) -> None:
        silence = NoStateError("throttled")
        assert waited(Scripted([*[silence] * 19, RUNNING, *[silence] * 19, DONE]), "j", Clock()) == DONE
        with pytest.raises(SparkJobError, match="could not be read: throttled"):
            waited(Scripted([*[silence] * 20, DONE]), "j", Clock())


class TestEmr:
    """A cluster for each job."""

    SETTINGS = EmrSpark(
        cluster="emr", archive="s3://acme/env.tar.gz", subnet="subnet-1", log_uri="s3://acme/logs", workers=3,
        conf={"spark.executor.memoryOverhead": "8g"}, **WORK,
    )  # fmt: skip

    def requested(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        requests: list[dict[str, Any]] = []
        cluster = Emr(self.SETTINGS, ANYWHERE)

        class Client:
            def run_job_flow(self, **request: Any) -> dict[str, Any]:
                requests.append(request)
                return {"JobFlowId": "j-1"}

        monkeypatch.setattr(Emr, "client", Client())
        assert cluster.start(SUBMISSION) == "j-1"
        return requests[0]

    def test_a_failed_step_ends_the_cluster_and_the_cluster_ends_with_its_step(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = self.requested(monkeypatch)
        [step] = request["Steps"]
        assert step["ActionOnFailure"] == "TERMINATE_CLUSTER"
        assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
        assert request["Instances"]["Ec2SubnetId"] == "subnet-1"
        command = step["HadoopJarStep"]["Args"]
        assert command[:5] == [
            "spark-submit",
            "--deploy-mode",
            "cluster",
            "--archives",
            "s3://acme/env.tar.gz#environment",
        ]
        assert "spark.yarn.maxAppAttempts=1" in command
        assert command[-7:] == ["--conf", "spark.executor.memoryOverhead=8g", SUBMISSION.script, *SUBMISSION.arguments]

    @pytest.mark.usefixtures("amazon")
    def test_the_step_says_how_it_ended_and_the_cluster_only_that_it_is_gone(self) -> None:
        cluster = Emr(self.SETTINGS, ANYWHERE)
        job = cluster.start(SUBMISSION)
        stored = get_backend("emr")[ACCOUNT][REGION].clusters[job]
        [step] = stored.steps
        assert stored.keep_job_flow_alive_when_no_steps is False
        for state, phase in (("PENDING", "running"), ("RUNNING", "running"), ("COMPLETED", "succeeded")):
            step.state = state
            assert cluster.state(job).phase == phase
        for state in ("FAILED", "CANCELLED", "INTERRUPTED"):
            step.state = state
            assert cluster.state(job).phase == "failed"
        step.state = "RUNNING"
        cluster.cancel(job)
        assert cluster.state(job) == JobState("failed", cluster.state(job).detail)
        assert "TERMINATED before the step had ended" in cluster.state(job).detail

    @pytest.mark.usefixtures("amazon")
    def test_a_step_that_never_ends_is_waited_for_longer_than_the_waiter_of_boto_does(self) -> None:
        cluster, clock = Emr(self.SETTINGS, ANYWHERE), Clock()
        job = cluster.start(SUBMISSION)
        get_backend("emr")[ACCOUNT][REGION].clusters[job].steps[0].state = "RUNNING"
        with pytest.raises(SparkJobError, match="has run for 1 hours"):
            waited(cluster, job, clock, hours=1)
        assert clock.seconds > 60 * 30

    def test_a_host_that_is_not_allowed_is_not_called(self) -> None:
        with pytest.raises(HostNotAllowedError):
            Emr(self.SETTINGS, AllowedHosts.of(["api.example"])).start(SUBMISSION)

    @pytest.mark.usefixtures("amazon")
    def test_a_refusal_is_an_error_that_says_so(self) -> None:
        glue = Glue(TestGlue.SETTINGS, ANYWHERE)
        with pytest.raises(SparkJobError, match="glue did not start the Spark job"):
            glue.start(SUBMISSION)
        with pytest.raises(NoStateError, match="glue: "):
            glue.state("jr_1")


@pytest.mark.usefixtures("amazon")
def test_emr_serverless_is_given_its_time_and_says_how_the_run_stands() -> None:
    client = boto3.client("emr-serverless", region_name=REGION)
    application = client.create_application(name="a", releaseLabel="emr-7.10.0", type="SPARK")["applicationId"]
    settings = EmrServerlessSpark(
        cluster="emr_serverless", application_id=application, execution_role_arn=ROLE, archive="s3://acme/env.tar.gz",
        log_uri="s3://acme/logs", **WORK,
    )  # fmt: skip
    cluster = EmrServerless(settings, ANYWHERE)
    job = cluster.start(SUBMISSION)
    run = client.get_job_run(applicationId=application, jobRunId=job)["jobRun"]
    assert run["executionTimeoutMinutes"] == 30 * 60
    driver = run["jobDriver"]["sparkSubmit"]
    assert (driver["entryPoint"], driver["entryPointArguments"]) == (SUBMISSION.script, SUBMISSION.arguments)
    assert "--conf spark.archives=s3://acme/env.tar.gz#environment" in driver["sparkSubmitParameters"]
    logs = run["configurationOverrides"]["monitoringConfiguration"]["s3MonitoringConfiguration"]
    assert logs == {"logUri": "s3://acme/logs"}
    [stored] = get_backend("emrserverless")[ACCOUNT][REGION].job_runs[application]
    phases = {"SUBMITTED": "running", "QUEUED": "running", "RUNNING": "running", "SUCCESS": "succeeded"}
    for state, phase in (phases | dict.fromkeys(("FAILED", "CANCELLED", "CANCELLING"), "failed")).items():
        stored.state = state
        assert cluster.state(job).phase == phase
    cluster.cancel(job)
    assert stored.state == "CANCELLED"


class TestGlue:
    """A run of a job."""

    SETTINGS = GlueSpark(cluster="glue", job="identity", modules=["s3://acme/a.whl", "polars"], **WORK)

    @pytest.mark.usefixtures("amazon")
    def test_the_runs_own_script_is_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = boto3.client("glue", region_name=REGION)
        client.create_job(Name="identity", Role=ROLE, Command={"Name": "glueetl", "ScriptLocation": "s3://acme/old.py"})
        cluster = Glue(self.SETTINGS, ANYWHERE)
        job = cluster.start(SUBMISSION)
        run = client.get_job_run(JobName="identity", RunId=job)["JobRun"]
        assert run["Arguments"] == {
            "--dagster-pipes-context": "eJy1",
            "--dagster-pipes-messages": "eJy2",
            "--scriptLocation": SUBMISSION.script,
            "--additional-python-modules": "s3://acme/a.whl,polars",
        }
        assert (run["WorkerType"], run["NumberOfWorkers"]) == ("R.4X", 10)
        assert waited(cluster, job, Clock()).phase == "succeeded"
        [stored] = get_backend("glue")[ACCOUNT][REGION].jobs["identity"].job_runs
        for state in ("FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"):
            monkeypatch.setattr(type(stored), "status", state, raising=False)
            assert cluster.state(job).phase == "failed"


@dataclass
class Stub:
    """An HTTP server that takes the requests that a test expects, in their order, and no others."""

    url: str = ""
    expected: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    """Method, path with its query, body, and what is answered; a number is answered as a status."""
    wrong: list[str] = field(default_factory=list)


@contextmanager
def strict_stub() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            method, path, body, answer = stub.expected.pop(0) if stub.expected else ("", "", None, 500)
            asked = (self.command, self.path, json.loads(data) if data else None)
            if asked != (method, path, body) or self.headers["Authorization"] != "Bearer token-1":
                stub.wrong.append(f"{asked} in place of {(method, path, body)}")
            content = b"{}" if isinstance(answer, int) else json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not stub.wrong
    assert not stub.expected


def test_dataproc() -> None:
    with strict_stub() as stub:
        settings = DataprocSpark(
            cluster="dataproc", work="gs://acme/work", project="acme:p", region="europe-west1", cluster_name="c",
            archive="gs://acme/env.tar.gz", base_url=stub.url, conf={"spark.executor.cores": "4"},
        )  # fmt: skip
        cluster = Dataproc(settings, ANYWHERE, lambda: "token-1")
        jobs = "/v1/projects/acme%3Ap/regions/europe-west1/jobs"
        job = {
            "placement": {"clusterName": "c"},
            "labels": {"dagster-run-id": "4711"},
            "pysparkJob": {
                "mainPythonFileUri": SUBMISSION.script,
                "args": SUBMISSION.arguments,
                "archiveUris": ["gs://acme/env.tar.gz#environment"],
                "properties": {
                    "spark.submit.deployMode": "cluster",
                    "spark.yarn.appMasterEnv.PYSPARK_PYTHON": "./environment/bin/python",
                    "spark.executorEnv.PYSPARK_PYTHON": "./environment/bin/python",
                    "spark.yarn.maxAppAttempts": "1",
                    "spark.executor.cores": "4",
                },
            },
        }
        request = {"job": job, "requestId": SUBMISSION.token}
        states = [{"state": "PENDING"}, {"state": "RUNNING"}, 503, {"state": "DONE"}]
        stub.expected = [
            ("POST", f"{jobs}:submit", request, {"reference": {"jobId": "j-1"}, "jobUuid": "u-1"}),
            *(("GET", f"{jobs}/j-1", None, one if isinstance(one, int) else {"status": one}) for one in states),
            ("GET", f"{jobs}/j-1", None, {"status": {"state": "ERROR", "details": "lost"}}),
            ("POST", f"{jobs}/j-1:cancel", {}, {}),
            ("POST", f"{jobs}:submit", request, 403),
        ]
        assert cluster.start(SUBMISSION) == "j-1"
        assert waited(cluster, "j-1", Clock()).phase == "succeeded"
        assert cluster.state("j-1") == JobState("failed", "ERROR: lost")
        cluster.cancel("j-1")
        with pytest.raises(SparkJobError, match="was not started: Dataproc answers 403"):
            cluster.start(SUBMISSION)


@pytest.mark.parametrize("own", [True, False])
def test_databricks(own: bool) -> None:
    new = {"spark_version": "16.4.x-scala2.12", "num_workers": 8, "spark_conf": {"a": "1"}}
    with strict_stub() as stub:
        where: dict[str, Any] = {"new_cluster": new, "conf": {"b": "2"}} if own else {"cluster_id": "c-1"}
        settings = DatabricksSpark(
            cluster="databricks", work="s3://acme/work", base_url=f"{stub.url}/", token="token-1",
            libraries=["s3://acme/a.whl"], **where,
        )  # type: ignore[arg-type]  # fmt: skip
        cluster = Databricks(settings, ANYWHERE)
        task = {
            "task_key": "identity",
            "spark_python_task": {"python_file": SUBMISSION.script, "parameters": SUBMISSION.arguments},
            "libraries": [{"whl": "s3://acme/a.whl"}],
            "max_retries": 0,
            **({"new_cluster": {**new, "spark_conf": {"a": "1", "b": "2"}}} if own else {"existing_cluster_id": "c-1"}),
        }
        request = {
            "run_name": SUBMISSION.name,
            "idempotency_token": SUBMISSION.token,
            "timeout_seconds": 30 * 3600,
            "tasks": [task],
        }
        get = "/api/2.1/jobs/runs/get?run_id=7"
        ends = [
            {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"},
            {"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": "lost"},
            {"life_cycle_state": "INTERNAL_ERROR"},
        ]
        stub.expected = [
            ("POST", "/api/2.1/jobs/runs/submit", request, {"run_id": 7}),
            ("GET", get, None, {"state": {"life_cycle_state": "PENDING"}}),
            *(("GET", get, None, {"state": state}) for state in ends),
            ("POST", "/api/2.1/jobs/runs/cancel", {"run_id": 7}, {}),
        ]
        assert cluster.start(SUBMISSION) == "7"
        assert waited(cluster, "7", Clock()).phase == "succeeded"
        assert cluster.state("7") == JobState("failed", "TERMINATED: FAILED: lost")
        assert cluster.state("7") == JobState("failed", "INTERNAL_ERROR")
        cluster.cancel("7")
