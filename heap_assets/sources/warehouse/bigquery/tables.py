"""What lies in BigQuery: datasets, tables, their columns in BigQuery's own words, and how they are told apart."""

from __future__ import annotations

from dataclasses import dataclass

from google.cloud import bigquery

from heap_assets.sources.warehouse.base import Column, RelationMissingError, find_relation
from heap_assets.sources.warehouse.bigquery.errors import READING, explained
from heap_assets.sources.warehouse.bigquery.names import Dataset, Relation, relation_of, shard_of, without_shards

_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


@dataclass(frozen=True)
class Source:
    """What a name of the settings stands for; `table` describes it, of sharded tables the newest."""

    relation: Relation
    table: bigquery.Table
    name: str

    @property
    def kind(self) -> str:
        return "SHARDED" if self.relation.is_sharded else str(self.table.table_type)


def source_of(
    client: bigquery.Client, name: str, default_project: str, dataset: str | None = None, remedy: str = READING
) -> Source:
    """Find what a name stands for; RelationMissingError names what there is instead.

    Parameters
    ----------
    default_project
        The project of names without one.
    dataset
        That of bare tables.
    """
    relation = relation_of(name, default_project, dataset)
    if relation.is_sharded:
        return Source(relation, _newest_shard(client, relation), relation.shown(default_project))
    try:
        with explained(name, remedy):
            table = client.get_table(relation.path, timeout=60)
    except RelationMissingError:
        prefix = f"{relation.dataset.shown(default_project)}."
        names = [f"{prefix}{table}" for table, _, _ in without_shards(listed(client, relation.dataset))]
        existing = find_relation(relation.shown(default_project), names, f"BigQuery dataset {relation.dataset.path}")
        relation = Relation(relation.dataset, existing.removeprefix(prefix))
        table = client.get_table(relation.path, timeout=60)
    return Source(relation, table, relation.shown(default_project))


def version_of(table: bigquery.Table) -> str | None:
    """Return a table's tag, time of change and size; None for views (they read elsewhere) and streamed rows."""
    if table.table_type != "TABLE" or table.streaming_buffer is not None or table.etag is None:
        return None
    modified = table.modified.isoformat() if table.modified else ""
    return f"{table.etag} {modified} {table.num_rows} {table.num_bytes}"


def _newest_shard(client: bigquery.Client, relation: Relation) -> bigquery.Table:
    """Describe the newest of `events_*`: its columns are those that BigQuery gives to all of them."""
    tables = [name for name, _ in listed(client, relation.dataset)]
    shards = [shard for name in tables if (shard := shard_of(name))]
    days = [day for prefix, day in shards if prefix == relation.table.removesuffix("*")]
    if not days:
        sharded = sorted({f"{prefix}*" for prefix, _ in shards})
        where = f"BigQuery dataset {relation.dataset.path}"
        find_relation(relation.table, sharded, where, "tables by day named")
    return client.get_table(relation.shard(max(days)).path, timeout=60)


def listed(client: bigquery.Client, dataset: Dataset) -> list[tuple[str, str]]:
    """Return names and kinds of a dataset's tables; RelationMissingError names the datasets that there are."""
    try:
        with explained(dataset.path):
            reference = bigquery.DatasetReference(dataset.project, dataset.name)
            tables = [(str(item.table_id), str(item.table_type)) for item in client.list_tables(reference)]
            if not tables:
                client.get_dataset(reference)  # that there are no tables may mean that there is no dataset
            return tables
    except RelationMissingError:
        with explained(dataset.project):
            names = [tables.dataset_id for tables in client.list_datasets(dataset.project)]
        find_relation(dataset.name, names, f"BigQuery project {dataset.project}", "dataset")
        raise


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
