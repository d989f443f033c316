"""Publishing to BigQuery: tables with an explicit schema, a day's partition replaced by one load job."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from google.api_core import exceptions as google_errors
from google.cloud import bigquery

from heap_assets.lake import Store
from heap_assets.warehouse.bigquery import type_text
from heap_assets.warehouse.bigquery_client import BigQueryAccount, explained
from heap_assets.warehouse.bigquery_types import changes, in_table_order, retyped, schema_of, write_ndjson
from heap_assets.warehouse.publish import (
    DAY_COLUMN,
    Publication,
    Published,
    Publisher,
    PublishStatus,
    resolved_view,
    with_day,
)

_STAGING_LIFE = timedelta(hours=6)


class BigQueryPublisher(Publisher):
    """Publishes into one dataset, which must exist.

    On Google's service a day is loaded into its partition (`table$20261101`, WRITE_TRUNCATE): one free, atomic job.
    bqemulator knows no partition addresses; there the file is loaded beside the table and swapped in by one MERGE.
    """

    def __init__(self, account: BigQueryAccount, dataset: str, store: Store) -> None:
        super().__init__(store, f"bigquery-{account.project}-{dataset}")
        self._account = account
        self.dataset = dataset

    def exists(self, table: str) -> bool:
        with self._account.client() as client:
            try:
                client.get_table(self._name(table))
            except google_errors.NotFound:
                return False
        return True

    def _replace(self, publication: Publication, day: date | None, frame: pl.LazyFrame) -> Published:
        started = time.monotonic()
        rows = with_day(frame, day)
        name = self._name(publication.table)
        with self._account.client() as client, explained(name), tempfile.TemporaryDirectory() as folder:
            fields, added = self._prepare(client, publication, rows.collect_schema())
            path = Path(folder) / "rows"
            ordered = in_table_order(rows, fields)
            if publication.json_columns:
                write_ndjson(ordered, publication.json_columns, path)
            else:
                ordered.sink_parquet(path, engine="streaming")
            if day is not None and self._account.is_emulated:
                loaded = self._swap(client, publication, day, fields, path)
            else:
                loaded = self._load(client, destination(name, day), publication, fields, path)
        seconds = time.monotonic() - started
        return Published(PublishStatus.LOADED, publication.table, day, loaded, tuple(added), seconds)

    def _prepare(
        self, client: bigquery.Client, publication: Publication, schema: pl.Schema
    ) -> tuple[Sequence[bigquery.SchemaField], list[str]]:
        """Create the table, or add and widen columns; refuse before anything is changed."""
        wanted = schema_of(publication, schema)
        name = self._name(publication.table)
        try:
            table = client.get_table(name)
        except google_errors.NotFound:
            client.create_table(new_table(name, publication, wanted))
            return wanted, []
        added, widened = changes(name, table.schema, wanted)
        for column, kind in widened:
            client.query(f"ALTER TABLE `{name}` ALTER COLUMN `{column}` SET DATA TYPE {kind}").result()
        for entry in added:
            client.query(add_column_statement(name, entry)).result()
        kinds = dict(widened)
        kept = [retyped(entry, kinds[entry.name]) if entry.name in kinds else entry for entry in table.schema]
        return [*kept, *added], [entry.name for entry in added]

    def _load(
        self,
        client: bigquery.Client,
        target: str,
        publication: Publication,
        fields: Sequence[bigquery.SchemaField],
        path: Path,
    ) -> int:
        with path.open("rb") as file:
            job = client.load_table_from_file(file, target, job_config=load_config(publication, fields))
        job.result()
        return int(job.output_rows or 0)

    def _swap(
        self,
        client: bigquery.Client,
        publication: Publication,
        day: date,
        fields: Sequence[bigquery.SchemaField],
        path: Path,
    ) -> int:
        with self._staging(client, publication, fields) as staging:
            loaded = self._load(client, staging, publication, fields, path)
            client.query(
                swap_statement(self._name(publication.table), staging, day, [entry.name for entry in fields])
            ).result()
        return loaded

    @contextmanager
    def _staging(
        self, client: bigquery.Client, publication: Publication, fields: Sequence[bigquery.SchemaField]
    ) -> Iterator[str]:
        """A table that expires by itself should this process die."""
        staging = f"{self._name(publication.table)}__{uuid.uuid4().hex[:12]}"
        table = bigquery.Table(staging, fields)
        table.expires = datetime.now(UTC) + _STAGING_LIFE
        client.create_table(table)
        try:
            yield staging
        finally:
            client.delete_table(staging, not_found_ok=True)

    def resolve_views(self, events: Sequence[str], *, into: str = "heap_resolved") -> list[str]:
        """Create the views `heap_resolved.<table>`: event rows with today's user and profile. Returns their names."""
        made = []
        with self._account.client() as client, explained(into):
            client.create_dataset(into, exists_ok=True)
            for table in events:
                client.query(view_statement(self._account.project, self.dataset, table, into)).result()
                made.append(f"{into}.{table}")
        return made

    def _name(self, table: str) -> str:
        return f"{self._account.project}.{self.dataset}.{table}"


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


def view_statement(project: str, dataset: str, table: str, into: str) -> str:
    """Write the statement that creates a `heap_resolved` view."""
    source = f"{project}.{dataset}"
    query = resolved_view(
        f"`{source}.{table}`", f"`{source}.heap_user_migrations`", f"`{source}.identity_graph`", text="STRING"
    )
    return f"CREATE OR REPLACE VIEW `{project}.{into}.{table}` AS\n{query}"
