"""Load jobs whose id is recorded before they start, so that a later publisher can look up their outcome."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.cloud import bigquery

from heap_assets.sources.warehouse.base import WarehouseBusyError

_PREFIX: Final = "heap_assets_"
_NOTHING: Final = "SELECT 1"
"""The query, free of charge, that takes the name of a job which was not started: BigQuery gives a name only once."""


class NamedJob:
    """The job that replaces rows of a table; its id is recorded before it starts.

    Parameters
    ----------
    table
        What it changes; jobs run where it lies.
    note
        Keeps the name.
    """

    def __init__(self, client: bigquery.Client, table: bigquery.Table, note: Callable[[str], None]) -> None:
        self._client, self._table, self._note = client, table, note

    def run(self, start: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Start the job with a method of the client, and wait for its end.

        Raises
        ------
        WarehouseBusyError
            If another publisher, who came later, has made sure that it is never started.
        """
        name, location = f"{_PREFIX}{uuid.uuid4().hex}", self._table.location
        self._note(name)
        try:
            job = start(*arguments, **more, job_id=name, location=location)
        except google_errors.Conflict:  # also if the answer was lost to a request that had started it
            job = self._client.get_job(name, location=location)
        if _is_nothing(job):
            raise WarehouseBusyError(f"{self._table.table_id}: another publisher loads the same day: publish it again")
        job.result()
        return job


def waited(start: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Start a job that changes nothing anyone reads, and wait for its end."""
    job = start(*arguments, **more)
    job.result()
    return job


def is_committed(client: bigquery.Client, name: str, location: str | None) -> bool:
    """Whether the job of a turn was carried out; waits for its end, or makes sure that it is never started.

    Of a name that is none of ours nobody knows: True.
    """
    if not name.startswith(_PREFIX):
        return True
    try:
        job = client.get_job(name, location=location)
    except google_errors.NotFound:
        try:
            job = client.query(_NOTHING, job_id=name, location=location)
        except google_errors.Conflict:
            job = client.get_job(name, location=location)
    if _is_nothing(job):
        return False
    try:
        job.result()
    except google_errors.GoogleAPICallError:
        if job.state != "DONE":
            raise
    return job.error_result is None


def _is_nothing(job: Any) -> bool:
    return getattr(job, "query", None) == _NOTHING
