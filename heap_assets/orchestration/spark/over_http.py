"""Jobs on Google Dataproc and Databricks, by their REST interfaces: no package of theirs is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from heap_assets.config import DatabricksSpark, DataprocSpark
from heap_assets.http_client import AllowedHosts, HttpClient, NoAnswer
from heap_assets.identity import SparkJobError
from heap_assets.orchestration.spark.clusters import ON_YARN, UNPACKED, JobState, NoStateError, Submission

_SECONDS = 60.0
_OK = 200
_LABEL = 63
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class _Api:
    def __init__(self, vendor: str, url: str, token: Callable[[], str], allowed: AllowedHosts) -> None:
        self._vendor, self._url, self._token = vendor, url, token
        self._client = HttpClient(allowed=allowed)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what the API answers; NoStateError if it does not, or refuses."""
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        answer = self._client.exchange(method, f"{self._url}{path}", data, headers, _SECONDS)
        if isinstance(answer, NoAnswer):
            raise NoStateError(f"{self._vendor}: {answer.reason}")
        if answer.status != _OK or answer.unreadable:
            raise NoStateError(f"{self._vendor} answers {answer.status}: {answer.body[:300].decode(errors='replace')}")
        try:
            content = json.loads(answer.body or b"{}")
        except ValueError as error:
            raise NoStateError(f"{self._vendor} answers something other than JSON") from error
        if not isinstance(content, dict):
            raise NoStateError(f"{self._vendor} answers something other than an object")
        return content

    def started(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the API answers to the request that starts a job; SparkJobError if it did not."""
        try:
            return self.call("POST", path, body)
        except NoStateError as error:
            raise SparkJobError(f"the Spark job was not started: {error}") from error


class Dataproc:
    """A job on a cluster of Dataproc."""

    def __init__(self, settings: DataprocSpark, allowed: AllowedHosts, token: Callable[[], str] | None = None) -> None:
        self._settings = settings
        self._api = _Api("Dataproc", settings.url, token or _google_token, allowed)
        self._jobs = f"/v1/projects/{quote(settings.project, safe='')}/regions/{settings.region}/jobs"

    def start(self, submission: Submission) -> str:
        """Submit a PySpark job; its id is the one that Dataproc gives it."""
        properties = {
            "spark.submit.deployMode": "cluster",  # the archive is unpacked where the driver runs only this way
            **ON_YARN,
            **self._settings.conf,
        }
        job = {
            "placement": {"clusterName": self._settings.cluster_name},
            "labels": {_label(name): _label(label) for name, label in submission.labels.items()},
            "pysparkJob": {
                "mainPythonFileUri": submission.script,
                "args": [*submission.arguments],
                "archiveUris": [f"{self._settings.archive}#{UNPACKED}"],
                "properties": properties,
            },
        }
        answer = self._api.started(f"{self._jobs}:submit", {"job": job, "requestId": submission.token})
        return str(answer["reference"]["jobId"])

    def state(self, job: str) -> JobState:
        """Return how the job stands."""
        status = self._api.call("GET", f"{self._jobs}/{quote(job, safe='')}").get("status", {})
        state, detail = str(status.get("state")), str(status.get("details", ""))
        if state == "DONE":
            return JobState("succeeded", state)
        if state in ("ERROR", "CANCELLED", "CANCEL_PENDING", "CANCEL_STARTED"):
            return JobState("failed", f"{state}: {detail}" if detail else state)
        return JobState("running", state)

    def cancel(self, job: str) -> None:
        """Cancel the job."""
        self._api.call("POST", f"{self._jobs}/{quote(job, safe='')}:cancel", {})


class Databricks:
    """A one-time run of Databricks."""

    def __init__(self, settings: DatabricksSpark, allowed: AllowedHosts) -> None:
        self._settings = settings
        self._api = _Api("Databricks", settings.url, settings.token.get_secret_value, allowed)

    def start(self, submission: Submission) -> str:
        """Submit a run with one task."""
        settings = self._settings
        if settings.new_cluster is None:
            where: dict[str, Any] = {"existing_cluster_id": settings.cluster_id}
        else:
            conf = {**settings.new_cluster.get("spark_conf", {}), **settings.conf}
            where = {"new_cluster": {**settings.new_cluster, **({"spark_conf": conf} if conf else {})}}
        task = {
            "task_key": "identity",
            "spark_python_task": {"python_file": submission.script, "parameters": [*submission.arguments]},
            "libraries": [{"whl": wheel} for wheel in settings.libraries],
            "max_retries": 0,  # a second attempt would write beside what the first one wrote
            **where,
        }
        request = {
            "run_name": submission.name,
            "idempotency_token": submission.token,
            "timeout_seconds": round(submission.timeout_hours * 3600),
            "tasks": [task],
        }
        return str(self._api.started("/api/2.1/jobs/runs/submit", request)["run_id"])

    def state(self, job: str) -> JobState:
        """Return how the run stands."""
        state = self._api.call("GET", f"/api/2.1/jobs/runs/get?run_id={quote(job)}").get("state", {})
        cycle, result = str(state.get("life_cycle_state")), str(state.get("result_state", ""))
        if cycle not in ("TERMINATED", "SKIPPED", "INTERNAL_ERROR"):
            return JobState("running", cycle)
        if (cycle, result) == ("TERMINATED", "SUCCESS"):
            return JobState("succeeded", result)
        return JobState("failed", ": ".join(filter(None, (cycle, result, str(state.get("state_message", ""))))))

    def cancel(self, job: str) -> None:
        """Cancel the run."""
        self._api.call("POST", "/api/2.1/jobs/runs/cancel", {"run_id": int(job)})


def _label(text: str) -> str:
    """Return a label as Google allows them."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())[:_LABEL]


def _google_token() -> str:
    """Return a token of Google's usual credentials: of the machine, or of the file that its variable names."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise NoStateError(f"Google gives no token ({type(error).__name__}): see that credentials are there") from error
    return str(credentials.token)
