"""Publishing to BigQuery: tables with an explicit schema, a day's partition replaced by one load job."""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from google.api_core import exceptions as google_errors
from google.cloud import bigquery

from heap_assets.sources.warehouse.base import Permission
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount, PatientClient
from heap_assets.sources.warehouse.bigquery.errors import WRITING, explained
from heap_assets.sources.warehouse.bigquery.evolution import becomes_float, evolved, kind_of
from heap_assets.sources.warehouse.bigquery.fit import write_fitted
from heap_assets.sources.warehouse.bigquery.load_jobs import NamedJob, is_committed, waited
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.bigquery.sql import every_row
from heap_assets.sources.warehouse.bigquery.tables import type_text
from heap_assets.sources.warehouse.bigquery.types import (
    LONGEST_NAME,
    in_table_order,
    schema_of,
    unsupported_as_text,
    write_ndjson,
)
from heap_assets.sources.warehouse.empty_columns import EmptyColumns
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    with_day,
)
from heap_assets.sources.warehouse.publish_log import Load
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN, ResolvedOn, resolved_view
from heap_assets.storage import Store

_STAGING_LIFE = timedelta(hours=6)


class BigQueryPublisher(Publisher):
    """Publishes into one dataset, which must exist.

    On Google's service a day is loaded into its partition (`table$20261101`, WRITE_TRUNCATE): one free, atomic job.
    bqemulator knows no partition addresses; there the file is loaded beside the table and swapped in by one MERGE.

    Parameters
    ----------
    staging
        A place on gs:// that files go through on their way: BigQuery fetches them from there, instead of having them
        sent by this process. They are removed afterwards.
    """

    longest_name = LONGEST_NAME

    def __init__(self, account: BigQueryAccount, dataset: str, store: Store, staging: Store | None = None) -> None:
        where = f"-{re.sub(r'[^A-Za-z0-9.]+', '-', account.endpoint)}" if account.endpoint else ""
        super().__init__(store, f"bigquery-{account.project}-{dataset}{where}")
        self._account = account
        self._staging_store = staging
        self.dataset = dataset

    def exists(self, table: str) -> bool:
        with self._account.client() as client:
            return _table_or_none(client, self._name(table)) is not None

    def view_origin(self, table: str, into: str) -> str:
        name = f"{self._account.project}.{into}.{table}"
        with self._account.client() as client, explained(name, WRITING):
            view = _table_or_none(client, name)
            query = view and view.view_query
            if view and self._account.is_emulated:  # bqemulator tells it of no table
                query = next(iter(client.query(view_query(self._account.project, into, table)).result()))[0]
        comment = re.match(r"/\* (.*?) \*/", query or "")
        return comment[1] if comment else ""

    def preflight(self) -> list[Permission]:
        from heap_assets.sources.warehouse.bigquery.preflight import preflight

        return preflight(BigQueryWarehouse(self._account), write_to=self.dataset)

    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        started = time.monotonic()
        rows = with_day(frame, day)
        name = self._name(publication.table)
        with self._account.client() as client, explained(name, WRITING), tempfile.TemporaryDirectory() as folder:
            table = _table_or_none(client, name)
            rows = unsupported_as_text(rows, table.schema if table else ())
            empty = EmptyColumns(rows)
            table, fields, added = self._prepare(client, publication, rows.collect_schema(), table, empty)
            path, raw = Path(folder) / "rows", Path(folder) / "raw"
            in_table_order(rows, fields, empty.names).sink_parquet(raw, engine="streaming")
            lost = write_fitted(raw, path, name, fields)
            if publication.json_columns:
                path.rename(raw)
                write_ndjson(pl.scan_parquet(raw), publication.json_columns, path)
            load_job = NamedJob(client, table, begin)
            if path.stat().st_size == 0:
                # a file of no JSON lines cannot be uploaded; whole partitions are removed for free
                jobs = [load_job.run(client.query, delete_statement(name, day))]
            elif day is not None and self._account.is_emulated:
                with self._beside(client, publication, fields) as beside:
                    loaded = self._load(client, waited, beside, publication, fields, path)
                    columns = [entry.name for entry in fields]
                    jobs = [loaded, load_job.run(client.query, swap_statement(name, beside, day, columns))]
            else:
                jobs = [self._load(client, load_job.run, destination(name, day), publication, fields, path)]
            size = path.stat().st_size
        loaded, seconds = int(getattr(jobs[0], "output_rows", 0) or 0), time.monotonic() - started
        ids, ended = tuple(str(job.job_id) for job in jobs), jobs[-1].ended
        return Published(
            PublishStatus.LOADED, publication.table, day, loaded, tuple(added), seconds, size, ids, lost,
            load=ended.isoformat() if ended else "",
        )  # fmt: skip

    def _intact(self, table: str, loads: Sequence[tuple[date | None, Load]], *, every_row: bool) -> set[date | None]:
        """Compare the rows of each partition with the load, and its last write with the end of the load's job."""
        del every_row  # BigQuery keeps count itself
        name = self._name(table)
        with self._account.client() as client, explained(name, WRITING):
            if _table_or_none(client, name) is None or not loads:
                return set()
            by_day = any(day for day, _ in loads)
            query = counted_query(name, by_day=by_day) if self._account.is_emulated else partitions_query(name)
            partitions = {partition or "": (rows, written) for partition, rows, written in client.query(query).result()}
        intact: set[date | None] = set()
        for day, load in loads:
            rows, written = partitions.get("" if day is None else f"{day:%Y%m%d}", (0, None))
            later = written is not None and load.load and written > datetime.fromisoformat(load.load)
            if rows == load.rows and not later:
                intact.add(day)
        return intact

    def _prepare(
        self,
        client: PatientClient,
        publication: Publication,
        schema: pl.Schema,
        table: bigquery.Table | None,
        empty: EmptyColumns,
    ) -> tuple[bigquery.Table, Sequence[bigquery.SchemaField], list[str]]:
        """Create the table, or add and widen columns; refuse before anything is changed."""
        schema_fields = schema_of(publication, schema)
        name = self._name(publication.table)
        if table is None:
            if not schema_fields:
                raise PublishError(
                    f"{name}: no column has a value yet that tells its type: BigQuery makes no such table"
                )
            return client.create_table(new_table(name, publication, schema_fields), exists_ok=True), schema_fields, []
        change = evolved(name, table.schema, schema_fields, empty)
        existing = {entry.name: entry for entry in table.schema}
        for entry in change.widened:
            if becomes_float(existing[entry.name], entry):
                _refuse_rounding(client, name, entry, by_day=publication.by_day)
        if change.grown:  # by DDL no struct gains a field
            table.schema = change.grown
            client.update_table(table, ["schema"])
        for entry in change.widened:
            client.query(widen_column_statement(name, entry)).result()
        for entry in change.added:
            client.query(add_column_statement(name, entry)).result()
        return table, change.fields, [entry.name for entry in change.added]

    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        name = self._name(publication.table)
        with self._account.client() as client, explained(name, WRITING):
            table = _table_or_none(client, name)
        rows = unsupported_as_text(frame, table.schema if table else ())
        schema_fields = schema_of(publication, rows.collect_schema())
        if table is None:
            return Preview(creates=True)
        change = evolved(name, table.schema, schema_fields, EmptyColumns(rows))
        grown = [new.name for old, new in zip(table.schema, change.grown, strict=False) if new != old]
        wider = dict.fromkeys([*grown, *(entry.name for entry in change.widened)])
        return Preview(False, tuple(entry.name for entry in change.added), tuple(wider))

    def _load(
        self,
        client: PatientClient,
        run: Callable[..., Any],
        target: str,
        publication: Publication,
        fields: Sequence[bigquery.SchemaField],
        path: Path,
    ) -> Any:
        config = load_config(publication, fields)
        if self._staging_store is not None:
            with _uploaded(self._staging_store, path) as uri:
                return run(client.load_table_from_uri, uri, target, job_config=config)
        return run(client.upload, path, target, config)

    def _is_committed(self, table: str, load_id: str) -> bool:
        name = self._name(table)
        with self._account.client() as client, explained(name, WRITING):
            target = _table_or_none(client, name)
            return target is None or is_committed(client, load_id, target.location)

    def _await(self, table: str, load_id: str) -> None:
        self._is_committed(table, load_id)

    @contextmanager
    def _beside(
        self, client: PatientClient, publication: Publication, fields: Sequence[bigquery.SchemaField]
    ) -> Iterator[str]:
        """Create a staging table; it expires by itself if this process dies."""
        name = f"{self._name(publication.table)}__{uuid.uuid4().hex[:12]}"
        table = bigquery.Table(name, fields)
        table.expires = datetime.now(UTC) + _STAGING_LIFE
        client.create_table(table)
        try:
            yield name
        finally:
            client.delete_table(name, not_found_ok=True)

    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        with self._account.client() as client, explained(f"{into}.{table}", WRITING):
            source = client.get_table(self._name(table))
            text = {entry.name: kind_of(entry) for entry in source.schema}.get("user_id") == "STRING"
            _make_dataset(client, into, self.dataset)
            statement = view_statement(self._account.project, self.dataset, table, into, on, origin, user_is_text=text)
            client.query(statement).result()

    def _name(self, table: str) -> str:
        return f"{self._account.project}.{self.dataset}.{table}"


def _refuse_rounding(client: PatientClient, table: str, column: bigquery.SchemaField, *, by_day: bool) -> None:
    """PublishError if a column holds integers that FLOAT64 would round."""
    [row] = client.query(rounded_query(table, column, by_day=by_day)).result()
    if row[0]:
        raise PublishError(
            f"{table}: column {column.name!r} holds {row[0]} integers beyond 2^53, which FLOAT64 would round: rename "
            "the column, or drop the table to have it made anew"
        )


def _table_or_none(client: PatientClient, name: str) -> bigquery.Table | None:
    try:
        return client.get_table(name)
    except google_errors.NotFound:
        return None


def _make_dataset(client: PatientClient, name: str, beside: str) -> None:
    """Make a dataset where another one lies; whoever may not make datasets has made it before (docs/bigquery.md)."""
    try:
        client.get_dataset(name)
    except google_errors.NotFound:
        dataset = bigquery.Dataset(f"{client.project}.{name}")
        dataset.location = client.get_dataset(beside).location
        client.create_dataset(dataset, exists_ok=True)


@contextmanager
def _uploaded(staging: Store, path: Path) -> Iterator[str]:
    key = f"{uuid.uuid4().hex}/{path.name}"
    staging.put(key, path)
    try:
        yield staging.uri(key)
    finally:
        staging.delete(key)


def new_table(name: str, publication: Publication, fields: Sequence[bigquery.SchemaField]) -> bigquery.Table:
    """Describe a table: explicit schema, a partition per day, clustered."""
    table = bigquery.Table(name, fields)
    table.description = publication.description or None
    if publication.by_day:
        table.time_partitioning = bigquery.TimePartitioning(field=DAY_COLUMN)
    if publication.cluster_by:
        table.clustering_fields = list(publication.cluster_by)[:4]  # BigQuery clusters by four columns at most
    return table


def destination(name: str, day: date | None) -> str:
    """Address a table, or one partition of it."""
    return name if day is None else f"{name}${day:%Y%m%d}"


def load_config(publication: Publication, fields: Sequence[bigquery.SchemaField]) -> bigquery.LoadJobConfig:
    """Configure a load job that replaces its destination; not one bad row is let pass."""
    config = bigquery.LoadJobConfig(schema=list(fields), write_disposition="WRITE_TRUNCATE", max_bad_records=0)
    if publication.json_columns:
        config.source_format = "NEWLINE_DELIMITED_JSON"
        return config
    config.source_format = "PARQUET"
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config.parquet_options = options
    return config


def add_column_statement(name: str, entry: bigquery.SchemaField) -> str:
    """Write the statement that adds a column; the rows there are get null."""
    options = f" OPTIONS (description = {json.dumps(entry.description)})" if entry.description else ""
    return f"ALTER TABLE `{name}` ADD COLUMN IF NOT EXISTS `{entry.name}` {type_text(entry)}{options}"


def swap_statement(name: str, staging: str, day: date, columns: Sequence[str]) -> str:
    """Write the one statement that puts the rows of `staging` in place of a day's rows."""
    quoted = [f"`{column}`" for column in columns]
    return (
        f"MERGE `{name}` AS t USING `{staging}` AS s ON FALSE "
        f"WHEN NOT MATCHED BY SOURCE AND t.{DAY_COLUMN} = DATE '{day.isoformat()}' THEN DELETE "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(quoted)}) VALUES ({', '.join(f's.{column}' for column in quoted)})"
    )


def delete_statement(name: str, day: date | None) -> str:
    """Write the statement that removes a day's rows, or all."""
    where = "TRUE" if day is None else f"{DAY_COLUMN} = DATE '{day.isoformat()}'"
    return f"DELETE FROM `{name}` WHERE {where}"


def partitions_query(name: str) -> str:
    """Write the query of each partition's rows, and of when it was last written to."""
    dataset, _, table = name.rpartition(".")
    source = f"`{dataset}.INFORMATION_SCHEMA.PARTITIONS`"
    return f"SELECT partition_id, total_rows, last_modified_time FROM {source} WHERE table_name = '{table}'"


def counted_query(name: str, *, by_day: bool) -> str:
    """Write the query that counts rows by day where no one keeps partitions, as the emulator does not."""
    partition = f"FORMAT_DATE('%Y%m%d', {DAY_COLUMN})" if by_day else "CAST(NULL AS STRING)"
    return f"SELECT {partition} AS day, COUNT(*) AS n, CAST(NULL AS TIMESTAMP) AS at FROM `{name}` GROUP BY day"


def rounded_query(name: str, column: bigquery.SchemaField, *, by_day: bool) -> str:
    """Write the query that counts the integers of a column that a double does not hold.

    Of a table by day with the filter that it may have been made to demand.
    """
    repeated = column.mode == "REPEATED"
    value, rows = ("n", f"`{name}`, UNNEST(`{column.name}`) AS n") if repeated else (f"`{column.name}`", f"`{name}`")
    where = f" WHERE {every_row(DAY_COLUMN, 'DATE')}" if by_day else ""
    return f"SELECT COUNTIF({value} NOT BETWEEN -9007199254740992 AND 9007199254740992) FROM {rows}{where}"


def widen_column_statement(name: str, column: bigquery.SchemaField) -> str:
    """Write the statement that gives a column a type which holds all its values."""
    return f"ALTER TABLE `{name}` ALTER COLUMN `{column.name}` SET DATA TYPE {type_text(column)}"


def view_statement(
    project: str, dataset: str, table: str, into: str, on: ResolvedOn, origin: str, *, user_is_text: bool = False
) -> str:
    """Write the statement that creates a `heap_resolved` view; `user_is_text` as in the wide events table.

    It begins with a comment that says its `origin`.
    """
    source = f"{project}.{dataset}"
    query = resolved_view(
        f"`{source}.{table}`",
        f"`{source}.heap_user_migrations`",
        f"`{source}.identity_graph`",
        on,
        user="CAST(e.user_id AS INT64)" if user_is_text else "e.user_id",
        text="STRING",
    )
    return f"CREATE OR REPLACE VIEW `{project}.{into}.{table}` AS\n/* {origin} */\n{query}"


def view_query(project: str, into: str, table: str) -> str:
    """Write the query of the text of a view."""
    return f"SELECT view_definition FROM `{project}.{into}.INFORMATION_SCHEMA.VIEWS` WHERE table_name = '{table}'"
