"""Tries what reading from and publishing to BigQuery needs, one by one, as a run does it, giving up in seconds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from google.cloud import bigquery

from heap_assets.sources.warehouse.base import (
    AccessError,
    Permission,
    RelationMissingError,
    WarehouseBusyError,
    WarehouseError,
)
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.errors import explained
from heap_assets.sources.warehouse.bigquery.names import dataset_of

if TYPE_CHECKING:
    from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse

_PROBE_LIFE = timedelta(hours=1)
PATIENCE = 10.0
"""Seconds for which one thing is tried again."""

_BUSY = "nothing to grant: wait and try again, or have the quota of the project raised"


@dataclass
class _Attempts:
    permissions: list[Permission] = field(default_factory=list)

    def attempt(self, name: str, remedy: str, action: Callable[[], str], missing: str = "") -> bool:
        """Try one thing; `remedy` mends a refusal, `missing` what is not there."""
        try:
            self.permissions.append(Permission(name, True, action()))
        except WarehouseError as error:
            self.permissions.append(Permission(name, False, str(error), _remedy(error, remedy, missing)))
        return self.permissions[-1].passed


def _remedy(error: WarehouseError, refused: str, missing: str) -> str:
    if isinstance(error, RelationMissingError):
        return missing
    if isinstance(error, AccessError):
        return error.remedy or refused
    return _BUSY if isinstance(error, WarehouseBusyError) else ""


def preflight(
    warehouse: BigQueryWarehouse, write_to: str | None = None, patience: float = PATIENCE
) -> list[Permission]:
    """Try credentials, the API, a query, each dataset and a row of it, and with `write_to` a table in that dataset.

    Read is one row of each mapped relation, of datasets without any one of their first table; of views the free
    estimate of a query. The table that is written expires after an hour, should its removal fail.
    """
    patient = replace(warehouse, account=replace(warehouse.account, patience=patience), maximum_bytes=None)
    account, attempts = patient.account, _Attempts()
    reachable = attempts.attempt(
        "credentials and API",
        f"enable the BigQuery API; give a service account's key in {account.section}.credentials",
        lambda: _list(account),
        f"is {account.project} the id of the project, not its name or number?",
    )
    if not reachable:
        return attempts.permissions
    attempts.attempt("query", "grant roles/bigquery.jobUser on the project", lambda: _query(account))
    _read_datasets(patient, attempts)
    if write_to is not None:
        attempts.attempt(
            f"write to {write_to}",
            f"grant roles/bigquery.dataEditor on {write_to} to the service account",
            lambda: _write(account, write_to),
            f"make the dataset: bq mk --dataset {account.project}:{write_to}",
        )
    return attempts.permissions


def _read_datasets(warehouse: BigQueryWarehouse, attempts: _Attempts) -> None:
    account = warehouse.account
    listed: dict[str, list[str]] = {}
    for dataset in warehouse.datasets:
        attempts.attempt(
            f"dataset {dataset}",
            f"grant roles/bigquery.dataViewer on {dataset} to the service account",
            lambda dataset=dataset: _describe(account, dataset, listed),  # type: ignore[misc]
            "is the dataset spelled as in BigQuery, and does it lie in this project? `project.dataset` names another's",
        )
    mapped = [warehouse.locate(relation)[0] for relation in warehouse.relations]
    firsts = [f"{name}.{tables[0]}" for name, tables in listed.items() if tables and name not in mapped]
    for relation in (*warehouse.relations, *firsts):
        attempts.attempt(
            f"read {relation}",
            f"grant roles/bigquery.dataViewer on {warehouse.locate(relation)[0]}, and roles/bigquery.readSessionUser "
            "and roles/bigquery.jobUser on the project",
            lambda relation=relation: warehouse.try_reading(relation),  # type: ignore[misc]
            "is the table spelled as in BigQuery?",
        )


@contextmanager
def _probe_client(account: BigQueryAccount, subject: str) -> Iterator[bigquery.Client]:
    with account.client() as client, explained(subject, remedy=""):
        yield client


def _list(account: BigQueryAccount) -> str:
    with _probe_client(account, account.project) as client:
        return f"{len(list(client.list_datasets()))} datasets in {account.project}"


def _describe(account: BigQueryAccount, name: str, listed: dict[str, list[str]]) -> str:
    dataset = dataset_of(name, account.project)
    with _probe_client(account, dataset.path) as client:
        reference = bigquery.DatasetReference(dataset.project, dataset.name)
        details = client.get_dataset(reference)
        tables = sorted(client.list_tables(reference), key=lambda table: (table.table_type != "TABLE", table.table_id))
        listed[dataset.shown(account.project)] = [str(table.table_id) for table in tables]
        return f"{len(tables)} tables in {details.location or 'its location'}"


def _query(account: BigQueryAccount) -> str:
    with _probe_client(account, account.project) as client:
        rows = list(client.query("SELECT 1 AS one", job_retry=None).result(timeout=account.patience, job_retry=None))
    if [tuple(row) for row in rows] != [(1,)]:
        raise WarehouseError(f"{account.project}: SELECT 1 was answered with something else")
    return "SELECT 1 answered 1"


def _write(account: BigQueryAccount, dataset: str) -> str:
    with _probe_client(account, f"{account.project}.{dataset}") as client:
        client.get_dataset(f"{account.project}.{dataset}")
        name = f"{account.project}.{dataset}.heap_assets_preflight_{uuid.uuid4().hex[:8]}"
        table = bigquery.Table(name, [bigquery.SchemaField("n", "INT64")])
        table.expires = datetime.now(UTC) + _PROBE_LIFE
        client.create_table(table)
        client.delete_table(name)
    return "created and removed a temporary table"
