"""Clients of Google BigQuery, and its errors in words that name the table and what to grant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google.auth.exceptions
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.oauth2 import service_account

from heap_assets.warehouse.model import AccessError, RelationMissingError, WarehouseBusyError, WarehouseError

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_QUOTA = frozenset({"quotaExceeded", "rateLimitExceeded", "resourcesExceeded"})
_REQUEST = re.compile(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ")
_VALUE = re.compile(r"((?:Bad|Invalid|Could not parse|Could not cast)[^:'\"]*)[:'\"].*", re.DOTALL)


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
    """

    project: str
    credentials: str | None = field(default=None, repr=False)
    location: str | None = None
    endpoint: str | None = None
    storage_endpoint: str | None = None

    @property
    def is_emulated(self) -> bool:
        return self.endpoint is not None

    @contextmanager
    def client(self) -> Iterator[bigquery.Client]:
        """Give a client; errors inside become ours, without key text and without data values."""
        options = {"api_endpoint": self.endpoint} if self.endpoint else None
        with explained(self.project):
            client = bigquery.Client(
                project=self.project, credentials=self._credentials(), location=self.location, client_options=options
            )
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def storage(self) -> Iterator[BigQueryReadClient]:
        """Give a client of the Storage Read API."""
        import grpc  # type: ignore[import-untyped]
        from google.cloud.bigquery_storage_v1 import BigQueryReadClient
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        with explained(self.project):
            if self.storage_endpoint is None:
                client = BigQueryReadClient(credentials=self._credentials())
            else:
                channel = grpc.insecure_channel(
                    self.storage_endpoint, options=[("grpc.max_receive_message_length", 128 * 1024 * 1024)]
                )
                client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
            try:
                yield client
            finally:
                client.transport.close()

    def _credentials(self) -> Credentials | None:
        if self.is_emulated:
            return AnonymousCredentials()
        if self.credentials is None:
            return None
        key = _key(self.credentials)
        try:
            return service_account.Credentials.from_service_account_info(key, scopes=_SCOPES)
        except ValueError:  # its text quotes the key
            raise AccessError("warehouse.credentials: the private key in it cannot be read: download it anew") from None


def _key(credentials: str) -> dict[str, Any]:
    """Read a service account's key from a file or from its text; no error repeats any of it."""
    inline = credentials.lstrip().startswith("{")
    where = "the JSON text" if inline else f"the key file {credentials}"
    try:
        text = credentials if inline else Path(credentials).read_text()
    except OSError as error:
        raise AccessError(
            f"warehouse.credentials: {where} cannot be read ({error.strerror}): give the path of a service account's "
            "key file, its JSON text, or nothing for application default credentials"
        ) from error
    try:
        key = json.loads(text)
    except ValueError:
        raise AccessError(f"warehouse.credentials: {where} is not JSON") from None
    present = key if isinstance(key, dict) else {}
    lacking = [name for name in ("client_email", "private_key", "token_uri") if not present.get(name)]
    if lacking:
        raise AccessError(f"warehouse.credentials: {where} is no service account key: it lacks {', '.join(lacking)}")
    return dict(key)


READING = (
    "grant roles/bigquery.dataViewer on the dataset, roles/bigquery.jobUser and roles/bigquery.readSessionUser "
    "on the project"
)
WRITING = "grant roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project"


@contextmanager
def explained(subject: str, remedy: str = READING) -> Iterator[None]:
    """Turn Google's errors into ours; `subject` is the table or project they are about, `remedy` what to grant."""
    try:
        yield
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise AccessError(
            "no BigQuery credentials: set warehouse.credentials, or run `gcloud auth application-default login`"
        ) from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise AccessError(
            f"BigQuery refuses the credentials for {subject} ({type(error).__name__}): "
            "is the key revoked, or of another project?"
        ) from None
    except google_errors.NotFound as error:
        raise RelationMissingError(f"{subject}: {_message(error)}") from error
    except google_errors.Forbidden as error:
        if _reasons(error) & _QUOTA:
            raise WarehouseBusyError(f"{subject}: BigQuery's quota is used up: {_message(error)}") from error
        raise AccessError(f"{subject}: {_message(error)}: {remedy}") from error
    except google_errors.Unauthorized as error:
        raise AccessError(f"{subject}: BigQuery refuses the credentials: is the key revoked?") from error
    except (google_errors.TooManyRequests, google_errors.ServiceUnavailable, google_errors.RetryError) as error:
        raise WarehouseBusyError(f"{subject}: BigQuery is not available now: {_message(error)}") from error
    except google_errors.GoogleAPIError as error:
        raise WarehouseError(f"{subject}: {_message(error)}") from error


def _reasons(error: google_errors.GoogleAPICallError) -> set[str]:
    return {str(entry.get("reason")) for entry in error.errors if isinstance(entry, dict)}


def _message(error: Exception) -> str:
    """The first line of the reason, without the values that errors about data quote."""
    text = str(getattr(error, "message", "") or error).splitlines()[0]
    return _VALUE.sub(r"\1 …", _REQUEST.sub("", text.partition("; reason:")[0]))
