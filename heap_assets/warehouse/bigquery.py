"""Google BigQuery as the warehouse: tables through the Storage Read API, views through a query."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.cloud import bigquery

from heap_assets.warehouse.arrow import first_rows, write_parquet
from heap_assets.warehouse.bigquery_client import BigQueryAccount, explained
from heap_assets.warehouse.model import (
    Column,
    Newer,
    Permission,
    Reading,
    RelationMissingError,
    Table,
    Tally,
    Warehouse,
    WarehouseError,
    choose_columns,
    find_relation,
)

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

_KINDS = {"TABLE": "table", "VIEW": "view", "MATERIALIZED_VIEW": "materialized view", "EXTERNAL": "external table"}
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_PAGE_ROWS = 20_000


@dataclass(frozen=True)
class BigQueryWarehouse(Warehouse):
    """Datasets of a BigQuery project.

    Parameters
    ----------
    datasets
        The datasets to list; empty means all. The first is that of relations named without one.
    maximum_bytes
        A read that is estimated to scan more is refused before it costs anything.
    """

    account: BigQueryAccount
    datasets: tuple[str, ...] = ()
    maximum_bytes: int | None = None
    kind: str = "bigquery"

    def tables(self) -> list[Table]:
        with self.account.client() as client:
            datasets = self.datasets or tuple(dataset.dataset_id for dataset in client.list_datasets())
            return [
                Table(f"{item.dataset_id}.{item.table_id}", _KINDS.get(item.table_type, "table"))
                for dataset in datasets
                for item in client.list_tables(dataset)
            ]

    def table(self, relation: str) -> Table:
        with self.account.client() as client:
            found = self._table(client, relation)
        return Table(
            f"{found.dataset_id}.{found.table_id}",
            _KINDS.get(found.table_type, "table"),
            found.num_rows if found.table_type == "TABLE" else None,
            found.description or "",
            _partition_column(found),
        )

    def resolve(self, relation: str) -> str:
        with self.account.client() as client:
            found = self._table(client, relation)
        return f"{found.dataset_id}.{found.table_id}"

    def columns(self, relation: str) -> list[Column]:
        with self.account.client() as client:
            return [column_of(entry) for entry in self._table(client, relation).schema]

    def version(self, relation: str) -> str | None:
        with self.account.client() as client:
            return self._version(self._table(client, relation))

    def tally(self, relation: str, column: str) -> Tally | None:
        """Ask only of views, which have no version; a table's metadata tell for nothing, this scans a column."""
        with self.account.client() as client, explained(relation):
            table = self._table(client, relation)
            if version_of(table) is not None and not self.account.is_emulated:
                return None
            query = tally_query(table, column, _condition(table, None))
            self._affordable(_estimate(client, query), table)
            config = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes)
            [row] = client.query(query, job_config=config).result()
        return Tally(row[0], str(row[1]))

    def read(
        self,
        relation: str,
        columns: Sequence[str] | None,
        path: Path,
        *,
        newer: Newer | None = None,
        limit: int | None = None,
    ) -> Reading:
        started, observed_at = time.monotonic(), datetime.now(UTC)
        with self.account.client() as client, explained(relation):
            table = self._table(client, relation)
            chosen = choose_columns(columns, [column_of(entry) for entry in table.schema], relation)
            where = _condition(table, newer)
            stored = table.table_type == "TABLE"
            read = self._stored if stored else self._queried
            with read(client, table, chosen.names, where) as (schema, batches, scanned):
                rows = write_parquet(schema, batches if limit is None else first_rows(batches, limit), path)
        name = f"{table.dataset_id}.{table.table_id}"
        seconds = time.monotonic() - started
        return Reading(name, chosen.names, rows, observed_at, seconds, self._version(table), scanned)

    def _version(self, table: bigquery.Table) -> str | None:
        return None if self.account.is_emulated else version_of(table)  # bqemulator's metadata stands still

    def preflight(self) -> list[Permission]:
        from heap_assets.warehouse.bigquery_preflight import preflight

        return preflight(self.account, self.datasets)

    def _table(self, client: bigquery.Client, relation: str) -> bigquery.Table:
        parts = relation.split(".")
        if len(parts) == 1 and self.datasets:
            parts = [self.datasets[0], *parts]
        if len(parts) not in (2, 3):
            raise RelationMissingError(f"{relation!r} is not dataset.table or project.dataset.table")
        try:
            with explained(relation):
                return client.get_table(".".join(parts), timeout=60)
        except RelationMissingError:
            names = [f"{item.dataset_id}.{item.table_id}" for item in _listed(client, parts[-2])]
            resolved = find_relation(".".join(parts[-2:]), names, f"BigQuery dataset {parts[-2]}")
            return client.get_table(resolved, timeout=60)

    @contextmanager
    def _stored(
        self, client: bigquery.Client, table: bigquery.Table, columns: Sequence[str], where: str
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch], int]]:
        """Read a table's storage: one stream, so that rows come in one order and memory holds one message."""
        from google.cloud.bigquery_storage_v1 import types

        with self.account.storage() as storage:
            session = storage.create_read_session(
                parent=f"projects/{self.account.project}",
                read_session=types.ReadSession(
                    table=f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}",
                    data_format=types.DataFormat.ARROW,
                    read_options=types.ReadSession.TableReadOptions(
                        selected_fields=list(columns), row_restriction=where
                    ),
                ),
                max_stream_count=1,
            )
            scanned = int(session.estimated_total_bytes_scanned)
            self._affordable(scanned, table)
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            yield _in_order(schema, columns), _batches(storage, session, schema, columns), scanned

    @contextmanager
    def _queried(
        self, client: bigquery.Client, table: bigquery.Table, columns: Sequence[str], where: str
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch], int]]:
        """Query a view; the result of a large one is fetched through the Storage Read API as well."""
        query = select(table, columns, where)
        self._affordable(_estimate(client, query), table)
        job = client.query(query, job_config=bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes))
        result = job.result(page_size=_PAGE_ROWS)
        if self.account.is_emulated:  # bqemulator serves the results of queries over REST only
            yield *_with_schema(result, result.to_arrow_iterable()), int(job.total_bytes_billed or 0)
            return
        with self.account.storage() as storage:
            batches = result.to_arrow_iterable(storage, max_stream_count=1)
            yield *_with_schema(result, batches), int(job.total_bytes_billed or 0)

    def _affordable(self, scanned: int, table: bigquery.Table) -> None:
        if self.maximum_bytes is not None and scanned > self.maximum_bytes:
            raise WarehouseError(
                f"{table.dataset_id}.{table.table_id}: the read would scan {scanned:,} bytes, more than "
                f"warehouse.max_bytes_billed ({self.maximum_bytes:,}): map fewer columns or raise the limit"
            )


def column_of(entry: bigquery.SchemaField) -> Column:
    """Describe one field, with its type in BigQuery's own words: `ARRAY<STRUCT<sku STRING, qty INT64>>`."""
    fields = tuple(column_of(child) for child in entry.fields)
    repeated = entry.mode == "REPEATED"
    return Column(entry.name, type_text(entry), entry.mode != "REQUIRED", repeated, fields, entry.description or "")


def type_text(entry: bigquery.SchemaField) -> str:
    """Write a field's type as DDL does."""
    kind = _STANDARD.get(entry.field_type, entry.field_type)
    if kind == "STRUCT":
        kind = f"STRUCT<{', '.join(f'{child.name} {type_text(child)}' for child in entry.fields)}>"
    elif entry.precision is not None:
        kind += f"({entry.precision}, {entry.scale})" if entry.scale is not None else f"({entry.precision})"
    return f"ARRAY<{kind}>" if entry.mode == "REPEATED" else kind


def select(table: bigquery.Table, columns: Sequence[str], where: str) -> str:
    """Write the query that reads a view."""
    relation = f"`{table.project}.{table.dataset_id}.{table.table_id}`"
    query = f"SELECT {', '.join(f'`{name}`' for name in columns)} FROM {relation}"
    return f"{query} WHERE {where}" if where else query


def tally_query(table: bigquery.Table, column: str, where: str) -> str:
    """Write the query that counts rows and sums up a column; of small numbers, for a sum of INT64 may overflow."""
    relation = f"`{table.project}.{table.dataset_id}.{table.table_id}`"
    query = f"SELECT COUNT(*), SUM(MOD(FARM_FINGERPRINT(CAST(`{column}` AS STRING)), 1000000000000)) FROM {relation}"
    return f"{query} WHERE {where}" if where else query


def _estimate(client: bigquery.Client, query: str) -> int:
    """Return the bytes that a query would scan, by a dry run, which is free."""
    return int(client.query(query, job_config=bigquery.QueryJobConfig(dry_run=True)).total_bytes_processed or 0)


def version_of(table: bigquery.Table) -> str | None:
    """Return a table's tag, time of change and size; None for views (they read elsewhere) and streamed rows."""
    if table.table_type != "TABLE" or table.streaming_buffer is not None or table.etag is None:
        return None
    modified = table.modified.isoformat() if table.modified else ""
    return f"{table.etag} {modified} {table.num_rows} {table.num_bytes}"


def _condition(table: bigquery.Table, newer: Newer | None) -> str:
    """The row restriction: newer rows only; a table that demands a partition filter gets one that keeps all rows."""
    if newer is not None:
        kind = {entry.name: entry.field_type for entry in table.schema}.get(newer.column, "TIMESTAMP")
        lower = f"`{newer.column}` >= {_moment(newer.since, kind)}"
        upper = "" if newer.until is None else f" AND `{newer.column}` < {_moment(newer.until, kind)}"
        alike = "" if newer.equals is None else f" AND `{newer.equals[0]}` = {_text(newer.equals[1])}"
        return lower + upper + alike
    if not getattr(table, "require_partition_filter", False):
        return ""
    column = _partition_column(table) or "_PARTITIONTIME"
    kinds = {entry.name: entry.field_type for entry in table.schema}
    beginning = _moment(datetime(1, 1, 1, tzinfo=UTC), kinds.get(column, "TIMESTAMP"))
    return f"(`{column}` >= {beginning} OR `{column}` IS NULL)"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _moment(moment: datetime, kind: str) -> str:
    utc = moment.astimezone(UTC)
    if kind == "DATE":
        return f"DATE '{utc.date().isoformat()}'"
    text = utc.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return f"DATETIME '{text}'" if kind == "DATETIME" else f"TIMESTAMP '{text}+00:00'"


def _partition_column(table: bigquery.Table) -> str | None:
    if table.time_partitioning is not None:
        return str(table.time_partitioning.field or "_PARTITIONTIME")
    if table.range_partitioning is not None:
        return str(table.range_partitioning.field)
    return None


def _listed(client: bigquery.Client, dataset: str) -> list[Any]:
    try:
        with explained(dataset):
            client.get_dataset(dataset)
            return list(client.list_tables(dataset))
    except RelationMissingError:
        with explained(client.project):
            names = [found.dataset_id for found in client.list_datasets()]
        find_relation(dataset, names, f"BigQuery project {client.project}", "dataset")
        raise


def _batches(
    storage: BigQueryReadClient, session: Any, schema: pa.Schema, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for stream in session.streams:
        for message in storage.read_rows(stream.name):
            data = message.arrow_record_batch.serialized_record_batch
            yield pa.ipc.read_record_batch(pa.py_buffer(data), schema).select(list(columns))


def _in_order(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


def _with_schema(result: Any, batches: Iterator[pa.RecordBatch]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    first = next(iter(batches), None)
    if first is None:
        return result.to_arrow(create_bqstorage_client=False).schema, iter(())
    return first.schema, itertools.chain([first], batches)
