"""Jobs on EMR Serverless, EMR and Glue, by boto3 with the credentials of its usual places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from heap_assets.config import EmrServerlessSpark, EmrSpark, GlueSpark
from heap_assets.http_client import AllowedHosts, host_and_port
from heap_assets.identity import SparkJobError
from heap_assets.orchestration.spark.clusters import ON_YARN, PYTHON, UNPACKED, JobState, NoStateError, Submission

T = TypeVar("T")
_MINUTES = 60
_LEAST_MINUTES = 5
"""EMR Serverless takes no shorter time."""


class _Amazon:
    service: str

    def __init__(self, region: str | None, allowed: AllowedHosts) -> None:
        self._region = region
        self._allowed = allowed

    @cached_property
    def client(self) -> Any:
        """The client of the service; HostNotAllowedError if the settings do not allow its host."""
        config = Config(retries={"mode": "standard", "max_attempts": 5})
        client: Any = boto3.client(self.service, region_name=self._region, config=config)  # type: ignore[call-overload]
        self._allowed.check(*host_and_port(client.meta.endpoint_url))
        return client

    def _started(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            raise SparkJobError(f"{self.service} did not start the Spark job: {error}") from error

    def _answered(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            raise NoStateError(f"{self.service}: {error}") from error


class EmrServerless(_Amazon):
    """A job run of an application of EMR Serverless."""

    service = "emr-serverless"

    def __init__(self, settings: EmrServerlessSpark, allowed: AllowedHosts) -> None:
        super().__init__(settings.region, allowed)
        self._settings = settings

    def start(self, submission: Submission) -> str:
        """Start a job run. Without a timeout of its own the service would end it after twelve hours."""
        python = {
            "spark.archives": f"{self._settings.archive}#{UNPACKED}",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": PYTHON,
            "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
        }
        options = " ".join(_options({**python, **self._settings.conf}))
        logs = self._settings.log_uri
        request: dict[str, Any] = {
            "applicationId": self._settings.application_id,
            "executionRoleArn": self._settings.execution_role_arn,
            "clientToken": submission.token,
            "name": submission.name,
            "executionTimeoutMinutes": _minutes(submission),
            "tags": dict(submission.labels),
            "jobDriver": {
                "sparkSubmit": {
                    "entryPoint": submission.script,
                    "entryPointArguments": [*submission.arguments],
                    "sparkSubmitParameters": options,
                }
            },
        }
        if logs:
            monitoring = {"s3MonitoringConfiguration": {"logUri": logs}}
            request["configurationOverrides"] = {"monitoringConfiguration": monitoring}
        return str(self._started(lambda: self.client.start_job_run(**request))["jobRunId"])

    def state(self, job: str) -> JobState:
        """Return how the job run stands."""
        where = {"applicationId": self._settings.application_id, "jobRunId": job}
        run = self._answered(lambda: self.client.get_job_run(**where))["jobRun"]
        return _state(run["state"], {"SUCCESS"}, {"FAILED", "CANCELLED", "CANCELLING"}, run.get("stateDetails"))

    def cancel(self, job: str) -> None:
        """Cancel the job run."""
        self._answered(lambda: self.client.cancel_job_run(applicationId=self._settings.application_id, jobRunId=job))


class Emr(_Amazon):
    """A cluster of EMR with one step."""

    service = "emr"

    def __init__(self, settings: EmrSpark, allowed: AllowedHosts) -> None:
        super().__init__(settings.region, allowed)
        self._settings = settings

    def start(self, submission: Submission) -> str:
        """Start a cluster that ends with its step, or at once if that fails."""
        settings = self._settings
        command = ["spark-submit", "--deploy-mode", "cluster", "--archives", f"{settings.archive}#{UNPACKED}"]
        command += [*_options({**ON_YARN, **settings.conf}), submission.script, *submission.arguments]
        groups = (("MASTER", settings.driver_type, 1), ("CORE", settings.worker_type, settings.workers))
        request: dict[str, Any] = {
            "Name": submission.name,
            "ReleaseLabel": settings.release,
            "Applications": [{"Name": "Spark"}],
            "ServiceRole": settings.service_role,
            "JobFlowRole": settings.instance_profile,
            "VisibleToAllUsers": True,
            "Tags": [{"Key": key, "Value": label} for key, label in submission.labels.items()],
            "Instances": {
                "KeepJobFlowAliveWhenNoSteps": False,
                "TerminationProtected": False,
                "InstanceGroups": [
                    {"InstanceRole": role, "InstanceType": kind, "InstanceCount": count, "Name": role.lower()}
                    for role, kind, count in groups
                ],
                **({"Ec2SubnetId": settings.subnet} if settings.subnet else {}),
            },
            "Steps": [
                {
                    "Name": submission.name,
                    # with CONTINUE a cluster whose step failed ends as one whose step succeeded
                    "ActionOnFailure": "TERMINATE_CLUSTER",
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command},
                }
            ],
            **({"LogUri": settings.log_uri} if settings.log_uri else {}),
        }
        return str(self._started(lambda: self.client.run_job_flow(**request))["JobFlowId"])

    def state(self, job: str) -> JobState:
        """Return how the step stands; that of the cluster decides only where the step says nothing of its end."""
        steps = self._answered(lambda: self.client.list_steps(ClusterId=job))["Steps"]
        states = [step["Status"]["State"] for step in steps]
        detail = ", ".join(states)
        if any(state in ("FAILED", "CANCELLED", "INTERRUPTED", "CANCEL_PENDING") for state in states):
            reasons = [step["Status"].get("FailureDetails", {}).get("Reason") for step in steps]
            return JobState("failed", ": ".join(filter(None, (detail, *reasons))))
        if states and all(state == "COMPLETED" for state in states):
            return JobState("succeeded", detail)
        status = self._answered(lambda: self.client.describe_cluster(ClusterId=job))["Cluster"]["Status"]
        if status["State"] in ("TERMINATED", "TERMINATED_WITH_ERRORS"):
            reason = status.get("StateChangeReason", {}).get("Message", "")
            return JobState("failed", f"{status['State']} before the step had ended: {reason}")
        return JobState("running", f"{status['State']}, {detail or 'no step'}")

    def cancel(self, job: str) -> None:
        """Terminate the cluster."""
        self._answered(lambda: self.client.terminate_job_flows(JobFlowIds=[job]))


class Glue(_Amazon):
    """A run of a job of Glue."""

    service = "glue"

    def __init__(self, settings: GlueSpark, allowed: AllowedHosts) -> None:
        super().__init__(settings.region, allowed)
        self._settings = settings

    def start(self, submission: Submission) -> str:
        """Start a run of the job with this script in place of its own. Glue knows no labels of runs."""
        names, values = submission.arguments[::2], submission.arguments[1::2]
        request = {
            "JobName": self._settings.job,
            "WorkerType": self._settings.worker_type,
            "NumberOfWorkers": self._settings.workers,
            "Timeout": _minutes(submission),
            "Arguments": {
                **dict(zip(names, values, strict=True)),
                "--scriptLocation": submission.script,
                "--additional-python-modules": ",".join(self._settings.modules),
            },
        }
        return str(self._started(lambda: self.client.start_job_run(**request))["JobRunId"])

    def state(self, job: str) -> JobState:
        """Return how the run stands."""
        run = self._answered(lambda: self.client.get_job_run(JobName=self._settings.job, RunId=job))["JobRun"]
        failed = {"FAILED", "STOPPED", "STOPPING", "TIMEOUT", "ERROR", "EXPIRED"}
        return _state(run["JobRunState"], {"SUCCEEDED"}, failed, run.get("ErrorMessage"))

    def cancel(self, job: str) -> None:
        """Stop the run."""
        self._answered(lambda: self.client.batch_stop_job_run(JobName=self._settings.job, JobRunIds=[job]))


def _state(state: str, good: set[str], bad: set[str], reason: str | None) -> JobState:
    detail = f"{state}: {reason}" if reason and state in bad else state
    return JobState("succeeded" if state in good else "failed" if state in bad else "running", detail)


def _options(conf: Mapping[str, str]) -> Sequence[str]:
    return [part for name, entry in conf.items() for part in ("--conf", f"{name}={entry}")]


def _minutes(submission: Submission) -> int:
    return max(_LEAST_MINUTES, round(submission.timeout_hours * _MINUTES))
