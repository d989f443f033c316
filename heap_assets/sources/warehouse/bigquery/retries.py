"""How long requests to BigQuery are made again, and that whoever waits is told so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

PATIENCE = 600.0
"""Seconds for which a run tries a request again, as Google's client does by itself."""
QUIET = 10.0
"""Seconds of trying again that nobody is told of."""
_ANSWER = 120.0
"""Seconds that one answer may take; a query that takes longer is asked for again and again."""

_PASSING = frozenset(
    {"backendError", "internalError", "badGateway", "rateLimitExceeded"}
    | {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
)
_AWAY = (ConnectionError, requests.exceptions.ConnectionError, requests.exceptions.Timeout)

_log = logging.getLogger("heap_assets.bigquery")


class PatientClient(bigquery.Client):  # type: ignore[misc]
    """Google's client, trying for :attr:`patience` seconds and saying so; it waits for no answer for ever."""

    patience: float = PATIENCE
    quiet: float = QUIET

    def _call_api(self, retry: Retry | None, *args: Any, **kwargs: Any) -> Any:
        """Every request of the client goes through here."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = min(_ANSWER, self.patience)
        if not isinstance(retry, Retry):
            return super()._call_api(retry, *args, **kwargs)
        patient = retry.with_timeout(min(self.patience, retry.timeout or PATIENCE))
        told = said_so("BigQuery", self.quiet)

        def call(function: Callable[[], Any]) -> Callable[[], Any]:
            return patient(function, on_error=told)  # type: ignore[no-any-return]

        return super()._call_api(call, *args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> bigquery.QueryJob:
        """Run a query; a job without a name that failed for a passing reason is run again, and that is said too."""
        passing = Retry(_passes, timeout=self.patience, on_error=said_so("BigQuery's job", self.quiet))
        return super().query(*args, **{"job_retry": None if "job_id" in kwargs else passing, **kwargs})

    def upload(self, path: Path, destination: str, config: bigquery.LoadJobConfig, **more: Any) -> bigquery.LoadJob:
        """Begin to load a file; by itself the client would try for a minute, and say nothing."""
        patient = DEFAULT_RETRY.with_timeout(self.patience)
        with path.open("rb") as file:

            def attempt() -> bigquery.LoadJob:
                own = {"rewind": True, "num_retries": 0, "job_config": config}
                return self.load_table_from_file(file, destination, **own, **more)

            return patient(attempt, on_error=said_so("BigQuery's upload", self.quiet))()


def _passes(error: Exception) -> bool:
    """Whether a job may do better when it is run again, as Google's client judges it."""
    cause = (error.cause or error) if isinstance(error, google_errors.RetryError) else error
    reasons = {str(each.get("reason")) for each in getattr(cause, "errors", ()) if isinstance(each, dict)}
    return bool(reasons & _PASSING) or (not reasons and isinstance(cause, _AWAY))


def storage_retry(patience: float, quiet: float = QUIET) -> Retry:
    """Return the retries of the Storage Read API."""
    passing = if_exception_type(google_errors.ServiceUnavailable, google_errors.DeadlineExceeded)
    return Retry(passing, timeout=patience, on_error=said_so("BigQuery's Storage API", quiet))


def said_so(service: str, quiet: float = QUIET) -> Callable[[Exception], None]:
    """Return what is called with each failed attempt: after `quiet` seconds it logs which attempt comes next."""
    started, attempts = time.monotonic(), 1

    def failed(error: Exception) -> None:
        nonlocal attempts
        attempts += 1
        if time.monotonic() - started >= quiet:
            _log.warning("%s: waiting, attempt %d (%s)", service, attempts, _kind(error))

    return failed


def _kind(error: Exception) -> str:
    code = getattr(error, "code", None)
    return f"{int(code)}" if isinstance(code, int) else type(error).__name__
