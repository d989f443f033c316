"""Clients of Google BigQuery: with whose rights, and how long they try again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.auth.credentials import AnonymousCredentials, Credentials
from google.oauth2 import service_account

from heap_assets.sources.warehouse.base import AccessError
from heap_assets.sources.warehouse.bigquery.errors import explained
from heap_assets.sources.warehouse.bigquery.retries import PATIENCE, PatientClient

if TYPE_CHECKING:
    from heap_assets.sources.warehouse.bigquery.storage import PatientReadClient

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
    """

    project: str
    credentials: str | None = field(default=None, repr=False)
    location: str | None = None
    endpoint: str | None = None
    storage_endpoint: str | None = None
    patience: float = PATIENCE

    @property
    def is_emulated(self) -> bool:
        return self.endpoint is not None

    @contextmanager
    def client(self) -> Iterator[PatientClient]:
        """Give a client; errors inside become ours, without key text and without data values."""
        options = {"api_endpoint": self.endpoint} if self.endpoint else None
        with explained(self.project):
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

        from heap_assets.sources.warehouse.bigquery.storage import PatientReadClient

        with explained(self.project):
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
