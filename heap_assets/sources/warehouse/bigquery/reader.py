"""Google BigQuery as the warehouse: tables through the Storage Read API, views through a query."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from google.api_core import exceptions as google_errors
from google.cloud import bigquery

from heap_assets.sources.warehouse.arrow import SourceFailedError, Stored, first_rows, write_parquet
from heap_assets.sources.warehouse.base import (
    Column,
    Permission,
    ReadRequest,
    ReadResult,
    Sample,
    Table,
    Tally,
    Warehouse,
    WarehouseError,
    choose_columns,
)
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.errors import READING, explained, understood
from heap_assets.sources.warehouse.bigquery.names import (
    Dataset,
    Relation,
    dataset_of,
    is_dataset,
    relation_of,
    without_shards,
)
from heap_assets.sources.warehouse.bigquery.sql import (
    condition,
    demanded_columns,
    every_row,
    has_interval,
    recent,
    select,
    tally_query,
)
from heap_assets.sources.warehouse.bigquery.tables import Source, column_of, listed, source_of, version_of
from heap_assets.sources.warehouse.bigquery.types import readable

_KINDS = {
    "TABLE": "table", "VIEW": "view", "MATERIALIZED_VIEW": "materialized view", "EXTERNAL": "external table",
    "SHARDED": "sharded table",
}  # fmt: skip
_PAGE_ROWS = 20_000

Batches = tuple[pa.Schema, Iterator[pa.RecordBatch], int]
"""Schema, rows, and the bytes that they cost."""


@dataclass(frozen=True)
class BigQueryWarehouse(Warehouse):
    """Datasets of a BigQuery project, and by their full name those of others.

    Parameters
    ----------
    datasets
        The datasets to list, as `dataset` or `project.dataset`; empty means all of the project. The first is that of
        relations named without one.
    maximum_bytes
        A read that is estimated to scan more is refused before it costs anything.
    relations
        What the settings map, for the preflight to try.
    """

    account: BigQueryAccount
    datasets: tuple[str, ...] = ()
    maximum_bytes: int | None = None
    relations: tuple[str, ...] = ()
    kind: str = "bigquery"
    timestamps_are_instants = True

    def tables(self) -> list[Table]:
        with self.account.client() as client:
            if self.datasets:
                datasets = [dataset_of(name, self.account.project) for name in self.datasets]
            else:
                datasets = [Dataset(item.project, item.dataset_id) for item in client.list_datasets()]
            return [
                Table(Relation(dataset, name).shown(self.account.project), _KINDS.get(kind, "table"))
                for dataset in datasets
                for name, kind, _ in without_shards(listed(client, dataset))
            ]

    def locate(self, name: str) -> tuple[str, str | None]:
        project = self.account.project
        if is_dataset(name, project):
            return dataset_of(name, project).shown(project), None
        relation = relation_of(name, project)
        return relation.dataset.shown(project), relation.table

    def table(self, relation: str) -> Table:
        with self.account.client() as client:
            source = self._source(client, relation)
        table, kind = source.table, source.kind
        return Table(
            source.name,
            _KINDS.get(kind, "table"),
            table.num_rows if kind == "TABLE" else None,
            table.description or "",
        )

    def resolve(self, relation: str) -> str:
        with self.account.client() as client:
            return self._source(client, relation).name

    def columns(self, relation: str) -> list[Column]:
        with self.account.client() as client:
            return [column_of(entry) for entry in self._source(client, relation).table.schema]

    def version(self, relation: str) -> str | None:
        with self.account.client() as client:
            return self._version(self._source(client, relation))

    def tally(self, relation: str, column: str) -> Tally | None:
        """Ask only of views, which have no version; a table's metadata tell for nothing, this scans a column."""
        with self.account.client() as client, explained(relation):
            source = self._source(client, relation)
            if self._version(source) is not None:
                return None
            where = condition(source.relation, source.table, None)
            query, scanned = _planned(client, source, where, partial(tally_query, source.relation, column))
            self._affordable(scanned, source)
            config = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes)
            [row] = client.query(query, job_config=config).result()
        return Tally(row[0], str(row[1]))

    def _read(self, request: ReadRequest, path: Path) -> ReadResult:
        relation, limit = request.relation, request.limit
        with self.account.client() as client, explained(relation):
            source = self._source(client, relation)
            names = choose_columns(request.columns, [column_of(entry) for entry in source.table.schema], relation)
            where = condition(source.relation, source.table, request.newer)
            read = self._stored if source.kind == "TABLE" else self._queried
            with read(client, source, names, where) as (schema, batches, scanned):
                stored = _written(source, schema, batches if limit is None else first_rows(batches, limit), path)
        return ReadResult(source.name, names, stored.rows, stored.lost, self._version(source), scanned)

    def _version(self, source: Source) -> str | None:
        if self.account.is_emulated or source.relation.is_sharded:  # bqemulator's metadata stand still
            return None
        return version_of(source.table)

    def preflight(self) -> list[Permission]:
        from heap_assets.sources.warehouse.bigquery.preflight import preflight

        return preflight(self)

    def try_reading(self, relation: str) -> str:
        """Read one row of a table's storage, or have the query of a view estimated; both cost nothing.

        Returns
        -------
        str
            What was done.
        """
        with self.account.client() as client, explained(relation, remedy=""):
            source = self._source(client, relation, remedy="")
            names = [entry.name for entry in source.table.schema][:1]
            where = condition(source.relation, source.table, None)
            if source.kind == "TABLE":
                with self._stored(client, source, names, where) as (_, batches, _):
                    next(iter(batches), None)
                return "a session of the Storage Read API, and a row" if source.table.num_rows else "no row"
            _, scanned = _planned(client, source, where, partial(select, source.relation, source.table.schema[:1]))
            return f"a query would scan {scanned:,} bytes"

    def sample(self, relation: str, rows: int) -> Sample:
        """Take rows of a table from its listing, which is free; of a view by one query, of newest rows if need be.

        Of tables by day the newest is listed.
        """
        with self.account.client() as client, explained(relation), tempfile.TemporaryDirectory() as folder:
            source = self._source(client, relation)
            path = Path(folder) / "sample.parquet"
            if source.kind in ("TABLE", "SHARDED"):
                fields = [entry for entry in source.table.schema if not has_interval(entry)]
                result = client.list_rows(source.table, selected_fields=fields, max_results=rows)
                _written(source, *_with_schema(result, result.to_arrow_iterable()), path)
                frame = pl.read_parquet(path)
                of = f" of {source.table.table_id}" if source.kind == "SHARDED" else ""
                return Sample(frame, f"{frame.height} rows{of} listed, which costs nothing")
            query, scanned = self._affordable_sample(client, source, rows)
            if query is None:
                limit = f"{self.account.section}.max_bytes_billed ({self.maximum_bytes:,})"
                return Sample(None, f"no rows: a query would scan {scanned:,} bytes, more than {limit}")
            job = client.query(query, job_config=bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes))
            result = job.result()
            _written(source, *_with_schema(result, result.to_arrow_iterable()), path)
            frame = pl.read_parquet(path)
            return Sample(frame, f"{frame.height} rows queried, {int(job.total_bytes_billed or 0):,} bytes billed")

    def _affordable_sample(self, client: bigquery.Client, source: Source, rows: int) -> tuple[str | None, int]:
        """Return a query within the limit and what it scans; if there is none, None and what the cheapest would scan.

        A LIMIT makes no query cheaper, a time from which rows are asked for may, where days are partitions.
        """
        no_restriction = condition(source.relation, source.table, None)
        estimates = []
        for where in (no_restriction, *recent(source.relation, source.table)):
            build_query = partial(select, source.relation, source.table.schema, limit=rows)
            query, scanned = _planned(client, source, where, build_query)
            estimates.append(scanned)
            if self.maximum_bytes is None or estimates[-1] <= self.maximum_bytes:
                return query, estimates[-1]
        return None, min(estimates)

    def _source(self, client: bigquery.Client, name: str, remedy: str = READING) -> Source:
        return source_of(client, name, self.account.project, self.datasets[0] if self.datasets else None, remedy)

    @contextmanager
    def _stored(self, client: bigquery.Client, source: Source, columns: Sequence[str], where: str) -> Iterator[Batches]:
        """Read a table's storage: one stream, so that rows come in one order and memory holds one message."""
        from google.cloud.bigquery_storage_v1 import types

        table = source.table
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
            self._affordable(scanned, source)
            with understood(source.name):
                schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
                selected = pa.schema([schema.field(name) for name in columns])
            yield selected, _batches(storage.messages(session), schema, columns, source.name), scanned

    @contextmanager
    def _queried(
        self, client: bigquery.Client, source: Source, columns: Sequence[str], where: str
    ) -> Iterator[Batches]:
        """Query a view; the result of a large one is fetched through the Storage Read API as well."""
        entries = {entry.name: entry for entry in source.table.schema}
        selected = [entries[name] for name in columns]
        query, scanned = _planned(client, source, where, partial(select, source.relation, selected))
        self._affordable(scanned, source)
        job = client.query(query, job_config=bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes))
        result = job.result(page_size=_PAGE_ROWS)
        if self.account.is_emulated:  # bqemulator serves the results of queries over REST only
            yield *_with_schema(result, result.to_arrow_iterable()), int(job.total_bytes_billed or 0)
            return
        with self.account.storage() as storage:
            batches = result.to_arrow_iterable(storage, max_stream_count=1)
            yield *_with_schema(result, batches), int(job.total_bytes_billed or 0)

    def _affordable(self, scanned: int, source: Source) -> None:
        if self.maximum_bytes is not None and scanned > self.maximum_bytes:
            raise WarehouseError(
                f"{source.name}: the read would scan {scanned:,} bytes, more than {self.account.section}."
                f"max_bytes_billed ({self.maximum_bytes:,}): map fewer columns or raise the limit"
            )


def _planned(client: bigquery.Client, source: Source, where: str, build_query: Callable[[str], str]) -> tuple[str, int]:
    """Return a query, `build_query` with a condition, and the bytes that it would scan.

    That a table behind a view demands a partition filter shows in BigQuery's refusal alone. It names the columns; if
    the view has one of them, all of its rows are asked for by it.

    Raises
    ------
    WarehouseError
        If the view has none, or keeps the filter from the table.
    """
    query = build_query(where)
    try:
        return query, _estimate(client, query)
    except google_errors.BadRequest as refused:
        demanded = demanded_columns(str(refused.message))
        if not demanded:
            raise
    filter_column = next((entry for entry in source.table.schema if entry.name in demanded), None)
    if filter_column is not None:
        always_true = every_row(filter_column.name, filter_column.field_type)
        query = build_query(f"{where} AND {always_true}" if where else always_true)
        try:
            return query, _estimate(client, query)
        except google_errors.BadRequest as refused:
            if not demanded_columns(str(refused.message)):
                raise
    raise WarehouseError(
        f"{source.name} reads a table that demands a filter on {' or '.join(demanded)}, and "
        + ("keeps one from reaching it" if filter_column else "has no such column")
        + ": have the view itself filter that table, or map the table"
    )


def _estimate(client: bigquery.Client, query: str) -> int:
    """Return the bytes that a query would scan, by a dry run, which is free."""
    return int(client.query(query, job_config=bigquery.QueryJobConfig(dry_run=True)).total_bytes_processed or 0)


def _written(source: Source, schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> Stored:
    """Write rows into a file; WarehouseError names the table, and the column whose values cannot be kept."""
    try:
        return write_parquet(*readable(schema, batches), path)
    except (pa.ArrowException, SourceFailedError, ValueError) as error:
        raise WarehouseError(f"{source.name}: its rows cannot be read: {error}") from None


def _batches(
    messages: Iterable[Any], schema: pa.Schema, columns: Sequence[str], relation: str
) -> Iterator[pa.RecordBatch]:
    for message in messages:
        with understood(relation):
            data = message.arrow_record_batch.serialized_record_batch
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), schema).select(list(columns))
        yield batch


def _with_schema(result: Any, batches: Iterator[pa.RecordBatch]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    first = next(iter(batches), None)
    if first is None:
        return result.to_arrow(create_bqstorage_client=False).schema, iter(())
    return first.schema, itertools.chain([first], batches)
