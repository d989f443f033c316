"""The Storage Read API with our patience, for our own reads and for those that Google's client makes of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud.bigquery_storage_v1 import BigQueryReadClient

from heap_assets.sources.warehouse.bigquery.retries import PATIENCE, QUIET, storage_retry


class PatientReadClient(BigQueryReadClient):  # type: ignore[misc]
    """Google's client, trying for :attr:`patience` seconds and saying so; by itself it tries for a day in silence."""

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
            offset, asked_from = 0, -1
            while offset > asked_from:
                asked_from = offset
                try:
                    for message in self.read_rows(stream.name, offset, timeout=self.patience):
                        offset += message.row_count
                        yield message
                    break
                except google_errors.DeadlineExceeded:
                    if offset == asked_from:
                        raise
