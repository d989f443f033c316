"""Tries what reading from and publishing to BigQuery needs, one by one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.cloud import bigquery

from heap_assets.warehouse.bigquery_client import BigQueryAccount
from heap_assets.warehouse.model import Permission, WarehouseError

_PROBE_LIFE = timedelta(hours=1)


@dataclass
class _Attempts:
    made: list[Permission] = field(default_factory=list)

    def attempt(self, name: str, remedy: str, action: Callable[[], str]) -> bool:
        try:
            self.made.append(Permission(name, True, action()))
        except WarehouseError as error:
            self.made.append(Permission(name, False, str(error), remedy))
        return self.made[-1].passed


def preflight(account: BigQueryAccount, datasets: Sequence[str], write_to: str | None = None) -> list[Permission]:
    """Try credentials, the API, each dataset, a query, and with `write_to` a temporary table in that dataset.

    The temporary table expires by itself after an hour, should its removal fail.
    """
    attempts = _Attempts()
    reachable = attempts.attempt(
        "credentials and API",
        "enable the BigQuery API; give a service account's key in warehouse.credentials",
        lambda: _list(account),
    )
    if not reachable:
        return attempts.made
    for dataset in datasets:
        attempts.attempt(
            f"dataset {dataset}",
            f"grant roles/bigquery.dataViewer on {dataset} to the service account",
            lambda dataset=dataset: _describe(account, dataset),  # type: ignore[misc]
        )
    attempts.attempt("query", "grant roles/bigquery.jobUser on the project", lambda: _query(account))
    if write_to is not None:
        attempts.attempt(
            f"write to {write_to}",
            f"grant roles/bigquery.dataEditor on {write_to} to the service account",
            lambda: _write(account, write_to),
        )
    return attempts.made


def _list(account: BigQueryAccount) -> str:
    with account.client() as client:
        found = client.list_datasets(timeout=15, retry=bigquery.DEFAULT_RETRY.with_timeout(30))
        return f"{len(list(found))} datasets in {account.project}"


def _describe(account: BigQueryAccount, dataset: str) -> str:
    with account.client() as client:
        found = client.get_dataset(dataset)
        return f"{len(list(client.list_tables(dataset)))} tables in {found.location or 'its location'}"


def _query(account: BigQueryAccount) -> str:
    with account.client() as client:
        [row] = client.query("SELECT 1 AS one").result()
    return f"SELECT 1 answered {row['one']}"


def _write(account: BigQueryAccount, dataset: str) -> str:
    with account.client() as client:
        name = f"{account.project}.{dataset}.heap_assets_preflight_{uuid.uuid4().hex[:8]}"
        table = bigquery.Table(name, [bigquery.SchemaField("n", "INT64")])
        table.expires = datetime.now(UTC) + _PROBE_LIFE
        client.create_table(table)
        client.delete_table(name)
    return "created and removed a temporary table"
