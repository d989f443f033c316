"""Clients of Google BigQuery: credentials and retries."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.oauth2 import service_account

from heap_assets.sources.warehouse.base import AccessError
from heap_assets.sources.warehouse.bigquery.errors import explained

PATIENCE = 600.0
"""Seconds for which a run tries a request again, as Google's client does by itself."""
QUIET = 10.0
"""Seconds of retries before they are logged."""
_REQUEST_TIMEOUT = 120.0
"""Seconds that one answer may take; a query that takes longer is asked for again and again."""

_PASSING = frozenset(
    {"backendError", "internalError", "badGateway", "rateLimitExceeded"}
    | {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
)
_AWAY = (ConnectionError, requests.exceptions.ConnectionError, requests.exceptions.Timeout)

_log = logging.getLogger("heap_assets.bigquery")


class PatientClient(bigquery.Client):  # type: ignore[misc]
    """Google's client with retries for :attr:`patience` seconds, which are logged, and a timeout on every request."""

    patience: float = PATIENCE
    quiet: float = QUIET

    def _call_api(self, retry: Retry | None, *args: Any, **kwargs: Any) -> Any:
        """Every request of the client goes through here."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = min(_REQUEST_TIMEOUT, self.patience)
        if not isinstance(retry, Retry):
            return super()._call_api(retry, *args, **kwargs)
        patient = retry.with_timeout(min(self.patience, retry.timeout or PATIENCE))
        on_error = log_retries("BigQuery", self.quiet)

        def call(function: Callable[[], Any]) -> Callable[[], Any]:
            return patient(function, on_error=on_error)  # type: ignore[no-any-return]

        return super()._call_api(call, *args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> bigquery.QueryJob:
        """Run a query; a job without a name that failed for a passing reason is run again, and that is said too."""
        passing = Retry(_passes, timeout=self.patience, on_error=log_retries("BigQuery's job", self.quiet))
        return super().query(*args, **{"job_retry": None if "job_id" in kwargs else passing, **kwargs})

    def upload(self, path: Path, destination: str, config: bigquery.LoadJobConfig, **more: Any) -> bigquery.LoadJob:
        """Begin to load a file; by itself the client would try for a minute, and say nothing."""
        patient = DEFAULT_RETRY.with_timeout(self.patience)
        with path.open("rb") as file:

            def attempt() -> bigquery.LoadJob:
                options = {"rewind": True, "num_retries": 0, "job_config": config}
                return self.load_table_from_file(file, destination, **options, **more)

            return patient(attempt, on_error=log_retries("BigQuery's upload", self.quiet))()


def _passes(error: Exception) -> bool:
    """Whether a job may do better when it is run again, as Google's client judges it."""
    cause = (error.cause or error) if isinstance(error, google_errors.RetryError) else error
    reasons = {str(each.get("reason")) for each in getattr(cause, "errors", ()) if isinstance(each, dict)}
    return bool(reasons & _PASSING) or (not reasons and isinstance(cause, _AWAY))


def storage_retry(patience: float, quiet: float = QUIET) -> Retry:
    """Return the retries of the Storage Read API."""
    passing = if_exception_type(google_errors.ServiceUnavailable, google_errors.DeadlineExceeded)
    return Retry(passing, timeout=patience, on_error=log_retries("BigQuery's Storage API", quiet))


def log_retries(service: str, quiet: float = QUIET) -> Callable[[Exception], None]:
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


_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


@dataclass(frozen=True)
class BigQueryAccount:
    """Which project, and with whose rights.

    Parameters
    ----------
    project
        Pays for jobs, and holds tables named without a project.
    credentials
        Path of a service account's key file, its JSON text, or None for application default credentials.
    location
        Of jobs, such as `EU`; None lets BigQuery find out.
    endpoint, storage_endpoint
        Of an emulator: REST as `http://host:port`, gRPC as `host:port`. With them no credentials are used.
    patience
        Seconds for which a request that BigQuery may answer later is made again.
    section
        Of the settings that name the project, for messages.
    """

    project: str
    credentials: str | None = field(default=None, repr=False)
    location: str | None = None
    endpoint: str | None = None
    storage_endpoint: str | None = None
    patience: float = PATIENCE
    section: str = "warehouse"

    @property
    def is_emulated(self) -> bool:
        return self.endpoint is not None

    @contextmanager
    def client(self) -> Iterator[PatientClient]:
        """Give a client; errors inside become ours, without key text and without data values."""
        options = {"api_endpoint": self.endpoint} if self.endpoint else None
        with explained(self.project, section=self.section):
            client = PatientClient(
                project=self.project, credentials=self._credentials(), location=self.location, client_options=options
            )
            client.patience = self.patience
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def storage(self) -> Iterator[PatientReadClient]:
        """Give a client of the Storage Read API; its errors are the caller's, who knows the table they are about."""
        import grpc  # type: ignore[import-untyped]
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        with explained(self.project, section=self.section):
            if self.storage_endpoint is None:
                client = PatientReadClient(credentials=self._credentials())
            else:
                channel = grpc.insecure_channel(
                    self.storage_endpoint, options=[("grpc.max_receive_message_length", 128 * 1024 * 1024)]
                )
                client = PatientReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        client.patience = self.patience
        try:
            yield client
        finally:
            client.transport.close()

    def _credentials(self) -> Credentials | None:
        if self.is_emulated:
            return AnonymousCredentials()
        if self.credentials is None:
            return None
        key = _key(self.credentials, self.section)
        try:
            return service_account.Credentials.from_service_account_info(key, scopes=_SCOPES)
        except ValueError:  # its text quotes the key
            raise AccessError(
                f"{self.section}.credentials: the private key in it cannot be read: download it anew"
            ) from None


def _key(credentials: str, section: str) -> dict[str, Any]:
    """Read a service account's key from a file or from its text; no error repeats any of it."""
    inline = credentials.lstrip().startswith("{")
    where = "the JSON text" if inline else f"the key file {credentials}"
    try:
        text = credentials if inline else Path(credentials).read_text()
    except OSError as error:
        raise AccessError(
            f"{section}.credentials: {where} cannot be read ({error.strerror}): give the path of a service account's "
            "key file, its JSON text, or nothing for application default credentials"
        ) from error
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        raise AccessError(f"{section}.credentials: {where} is not JSON") from None
    present = key if isinstance(key, dict) else {}
    lacking = [name for name in ("client_email", "private_key", "token_uri") if not present.get(name)]
    if lacking:
        raise AccessError(f"{section}.credentials: {where} is no service account key: it lacks {', '.join(lacking)}")
    return dict(key)


class PatientReadClient(BigQueryReadClient):  # type: ignore[misc]
    """Google's client with retries for :attr:`patience` seconds, which are logged; its default is a day, unlogged."""

    patience: float = PATIENCE
    quiet: float = QUIET

    def create_read_session(self, *args: Any, **kwargs: Any) -> Any:
        options = {"retry": storage_retry(self.patience, self.quiet), "timeout": self.patience}
        return super().create_read_session(*args, **{**options, **kwargs})

    def read_rows(self, name: str, offset: int = 0, **kwargs: Any) -> Any:
        return super().read_rows(name, offset, **{"retry": storage_retry(self.patience, self.quiet), **kwargs})

    def messages(self, session: Any) -> Iterator[Any]:
        """Read a session's streams; a call ends with the patience; one that has brought rows by then is made anew."""
        for stream in session.streams:
            offset, requested_offset = 0, -1
            while offset > requested_offset:
                requested_offset = offset
                try:
                    for message in self.read_rows(stream.name, offset, timeout=self.patience):
                        offset += message.row_count
                        yield message
                    break
                except google_errors.DeadlineExceeded:
                    if offset == requested_offset:
                        raise
