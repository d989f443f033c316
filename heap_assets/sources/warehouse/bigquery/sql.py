"""The statements that reading asks of BigQuery, and the restrictions that choose rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from google.cloud import bigquery

from heap_assets.sources.warehouse.base import Newer, WarehouseError
from heap_assets.sources.warehouse.bigquery.names import Relation

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_TIMES = ("TIMESTAMP", "DATETIME", "DATE")
_INTEGERS = ("INTEGER", "INT64")
_DEMAND = re.compile(r"without a filter over column\(s\) (?P<columns>'[^']+'(?:, '[^']+')*)")
"""How BigQuery refuses a query that lacks a partition filter, also if a view reads the table."""
_DAY_SUFFIX = "REGEXP_CONTAINS(_TABLE_SUFFIX, r'^[0-9]{8}$')"
"""`events_*` matches `events_intraday_20260101` as well, which holds the newest day once more."""


def select(relation: Relation, columns: Sequence[bigquery.SchemaField], where: str, limit: int | None = None) -> str:
    """Write the query that reads a view, or tables that are sharded by day."""
    query = f"SELECT {', '.join(map(_selected, columns))} FROM `{relation.path}`"
    query = f"{query} WHERE {where}" if where else query
    return query if limit is None else f"{query} LIMIT {limit}"


def tally_query(relation: Relation, column: str, where: str) -> str:
    """Write the query that counts rows and sums up a column; of small numbers, for a sum of INT64 may overflow."""
    digest = f"MOD(FARM_FINGERPRINT(CAST(`{column}` AS STRING)), 1000000000000)"
    query = f"SELECT COUNT(*), SUM({digest}) FROM `{relation.path}`"
    return f"{query} WHERE {where}" if where else query


def condition(relation: Relation, table: bigquery.Table, newer: Newer | None) -> str:
    """Write the row restriction.

    A table that demands a partition filter gets one beside the others: on its partition column, keeping all rows.
    """
    kinds = {entry.name.casefold(): entry.field_type for entry in table.schema}
    restrictions = [_DAY_SUFFIX] if relation.is_sharded else []
    if newer is not None:
        restrictions += _newer(relation, newer, kinds)
    partition = partition_column(table)
    demanded = bool(getattr(table, "require_partition_filter", False))
    if demanded and (newer is None or newer.column.casefold() != str(partition).casefold()):
        column = partition or "_PARTITIONTIME"
        restrictions.append(every_row(column, kinds.get(column.casefold(), "TIMESTAMP")))
    return " AND ".join(restrictions)


def every_row(column: str, kind: str) -> str:
    """Write a filter on a partition column that keeps all rows, those of no partition among them."""
    return f"(`{column}` >= {_lowest(kind)} OR `{column}` IS NULL)"


def demanded_columns(refusal: str) -> list[str]:
    """Return the columns of which BigQuery says that one must be filtered by; empty if it refuses for another cause."""
    demand = _DEMAND.search(refusal)
    return re.findall("'([^']+)'", demand["columns"]) if demand else []


def recent(relation: Relation, table: bigquery.Table) -> Iterator[str]:
    """Yield restrictions to the last week, by each column that tells a time."""
    since = datetime.now(UTC) - timedelta(days=7)
    for entry in table.schema:
        if entry.field_type in _TIMES and entry.mode != "REPEATED":
            yield condition(relation, table, Newer(entry.name, since))


def partition_column(table: bigquery.Table) -> str | None:
    """Return the column that a table is partitioned by, `_PARTITIONTIME` for the time of loading; None without."""
    if table.time_partitioning is not None:
        return str(table.time_partitioning.field or "_PARTITIONTIME")
    if table.range_partitioning is not None:
        return str(table.range_partitioning.field)
    return None


def _selected(entry: bigquery.SchemaField) -> str:
    """Have INTERVAL written as text by BigQuery: of a small result the client knows no Arrow type for it."""
    name = f"`{entry.name}`"
    if not has_interval(entry):
        return name
    scalar = entry.field_type == "INTERVAL" and entry.mode != "REPEATED"
    return f"{f'CAST({name} AS STRING)' if scalar else f'TO_JSON_STRING({name})'} AS {name}"


def has_interval(entry: bigquery.SchemaField) -> bool:
    """Whether a field or one below it is an INTERVAL."""
    return entry.field_type == "INTERVAL" or any(map(has_interval, entry.fields))


def _newer(relation: Relation, newer: Newer, kinds: dict[str, str]) -> list[str]:
    kind = kinds.get(newer.column.casefold(), "TIMESTAMP")
    if kind not in _TIMES:
        raise WarehouseError(
            f"{relation.path}: column {newer.column!r} is {kind}, which cannot be compared with a time: "
            "TIMESTAMP, DATETIME and DATE can"
        )
    restrictions = [f"`{newer.column}` >= {_moment(newer.since, kind)}"]
    if newer.until is not None:
        restrictions.append(f"`{newer.column}` < {_moment(newer.until, kind)}")
    if newer.equals is not None:
        restrictions.append(f"`{newer.equals[0]}` = {_text(newer.equals[1])}")
    return restrictions


def _lowest(kind: str) -> str:
    if kind == "STRING":  # of files in folders that are named by a value
        return "''"
    return str(-(2**63)) if kind in _INTEGERS else _moment(_BEGINNING, kind)


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"


def _moment(moment: datetime, kind: str) -> str:
    utc = moment.astimezone(UTC)
    if kind == "DATE":
        return f"DATE '{utc.date().isoformat()}'"
    text = utc.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return f"DATETIME '{text}'" if kind == "DATETIME" else f"TIMESTAMP '{text}+00:00'"
