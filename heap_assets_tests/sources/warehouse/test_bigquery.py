"""BigQuery as a source: the real client against an emulator; SQL judged by its own dialect, not by the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import google.auth.exceptions
import polars as pl
import pytest
import sqlglot
from google.api_core import exceptions as google_errors
from google.cloud import bigquery as gcp

from heap_assets.sources.warehouse import AccessError, Newer, RelationMissingError, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.base import ColumnMissingError
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.errors import explained
from heap_assets.sources.warehouse.bigquery.names import relation_of
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.bigquery.sql import condition, select
from heap_assets.sources.warehouse.bigquery.tables import version_of
from heap_assets.sources.warehouse.refresh import Observation, refreshed

CONTACTS = """
CREATE TABLE {d}.contacts (
    contact_id INT64 NOT NULL, email STRING, amount NUMERIC(12, 2), birthday DATE, updated_at TIMESTAMP,
    local DATETIME, clock TIME, extra JSON, raw BYTES, flag BOOL,
    addr STRUCT<email STRING, geo STRUCT<lat FLOAT64>>, items ARRAY<STRUCT<sku STRING, qty INT64>>, tags ARRAY<STRING>
);
INSERT INTO {d}.contacts VALUES
    (1, 'ann@example.com', 1.25, '2026-02-28', '2026-11-01 10:00:00.123456+00', '2026-01-01 10:00:00', '23:59:59.5',
     JSON '{{"a": 1}}', b'ab', true, STRUCT('a@x' AS email, STRUCT(1.5 AS lat) AS geo),
     [STRUCT('s' AS sku, 2 AS qty)], ['t']),
    (2, NULL, NULL, NULL, '2026-11-02 00:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, [], []);
CREATE VIEW {d}.emails AS SELECT contact_id, email, addr FROM {d}.contacts
"""


@pytest.fixture
def source(bigquery_emulator: object) -> Iterator[BigQueryWarehouse]:
    emulator = bigquery_emulator
    account = BigQueryAccount(
        "demo",
        endpoint=emulator.rest,  # type: ignore[attr-defined]
        storage_endpoint=emulator.grpc,  # type: ignore[attr-defined]
    )
    dataset = f"crm_{uuid4().hex[:8]}"
    with account.client() as client:
        client.create_dataset(dataset)
        for statement in CONTACTS.format(d=dataset).split(";\n"):
            sqlglot.parse_one(statement, dialect="bigquery")
            client.query(statement).result()
        yield BigQueryWarehouse(account, (dataset,))
        client.delete_dataset(dataset, delete_contents=True)


def read(source: BigQueryWarehouse, relation: str, *columns: str, newer: Newer | None = None) -> pl.DataFrame:
    with source.snapshot(relation, columns or None, newer=newer) as snapshot:
        return snapshot.frame.collect()


def test_tables_are_listed_and_described(source: BigQueryWarehouse) -> None:
    [dataset] = source.datasets
    assert {table.name: table.kind for table in source.tables()} == {
        f"{dataset}.contacts": "table",
        f"{dataset}.emails": "view",
    }
    assert source.table("emails").rows is None
    columns = {column.name: column for column in source.columns("contacts")}
    assert columns["contact_id"].nullable is False
    assert columns["items"].type == "ARRAY<STRUCT<sku STRING, qty INT64>>"
    assert columns["addr"].paths() == ["addr", "addr.email", "addr.geo", "addr.geo.lat"]
    assert columns["items"].paths() == ["items[]", "items[].sku", "items[].qty"]


def test_values_and_types_are_kept_over_the_storage_api(source: BigQueryWarehouse) -> None:
    frame = read(source, "contacts").sort("contact_id")
    first = frame.row(0, named=True)
    assert json.loads(first.pop("extra")) == {"a": 1}
    assert first == {
        "contact_id": 1,
        "email": "ann@example.com",
        "amount": Decimal("1.25"),
        "birthday": date(2026, 2, 28),
        "updated_at": datetime(2026, 11, 1, 10, 0, 0, 123456, tzinfo=UTC),
        "local": datetime(2026, 1, 1, 10),
        "clock": clock(23, 59, 59, 500000),
        "raw": b"ab",
        "flag": True,
        "addr": {"email": "a@x", "geo": {"lat": 1.5}},
        "items": [{"sku": "s", "qty": 2}],
        "tags": ["t"],
    }
    assert frame.row(1, named=True)["items"] == []
    assert frame.schema["updated_at"] == pl.Datetime("us", "UTC")


def test_only_mapped_columns_are_read_from_tables_and_views(source: BigQueryWarehouse) -> None:
    assert read(source, "contacts", "items[].sku", "email").columns == ["email", "items"]
    assert read(source, "emails", "addr.email").to_dict(as_series=False) == {
        "addr": [{"email": "a@x", "geo": {"lat": 1.5}}, None]
    }


def test_an_empty_view_keeps_its_schema(source: BigQueryWarehouse) -> None:
    with source.account.client() as client:
        client.query(f"CREATE VIEW {source.datasets[0]}.none AS SELECT 1 AS a, 'x' AS b LIMIT 0").result()
    assert read(source, "none").schema == {"a": pl.Int64, "b": pl.String}


def test_newer_rows_only(source: BigQueryWarehouse) -> None:
    newer = Newer("updated_at", datetime(2026, 11, 2, tzinfo=UTC))
    assert read(source, "contacts", "contact_id", newer=newer)["contact_id"].to_list() == [2]


def test_what_is_missing_is_named_with_the_nearest(source: BigQueryWarehouse) -> None:
    [dataset] = source.datasets
    with pytest.raises(RelationMissingError, match=rf"Did you mean '{dataset}\.contacts'"):
        source.columns("contact")
    with pytest.raises(RelationMissingError, match=rf"Did you mean '{dataset}'"):
        source.columns(f"{dataset}x.contacts")
    with pytest.raises(ColumnMissingError, match=r"Did you mean 'addr\.geo\.lat'"):
        read(source, "contacts", "addr.geo.lon")
    with pytest.raises(RelationMissingError, match="is not dataset"):
        BigQueryWarehouse(source.account).columns("contacts")


def test_the_version_changes_with_the_table_where_metadata_tell(source: BigQueryWarehouse) -> None:
    def described(**facts: object) -> str | None:
        place = {"projectId": "p", "datasetId": "d", "tableId": "t"}
        common = {"tableReference": place, "type": "TABLE", "etag": "e1", "lastModifiedTime": "1767225600000"}
        return version_of(gcp.Table.from_api_repr({**common, "numRows": "3", "numBytes": "9", **facts}))

    assert described() is not None
    assert described() == described()
    assert described(etag="e2") != described() != described(numRows="4")
    assert described(lastModifiedTime="1767225600001") != described()
    assert described(type="VIEW") is None
    assert described(streamingBuffer={"estimatedRows": "1"}) is None
    assert source.version("contacts") is None, "the emulator's metadata stand still whatever is written"


def test_a_read_over_the_limit_is_refused_before_it_costs(source: BigQueryWarehouse, tmp_path: Path) -> None:
    small = BigQueryWarehouse(source.account, source.datasets, maximum_bytes=1)
    with pytest.raises(WarehouseError, match=r"would scan .* more than warehouse\.max_bytes_billed \(1\)"):
        small.read("contacts", None, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


class TestCredentials:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("/nowhere/key.json", "key file /nowhere/key.json cannot be read"),
            ('{"private_key": "s3cret"', "is not JSON"),
            ('{"private_key": "s3cret"}', "lacks client_email, token_uri"),
        ],
    )
    def test_a_bad_key_is_explained_without_its_text(self, text: str, said: str) -> None:
        account = BigQueryAccount("demo", credentials=text)
        with pytest.raises(AccessError, match=said) as caught, account.client():
            pass
        assert "s3cret" not in str(caught.value) + repr(account)

    def test_a_key_whose_private_key_is_broken_is_an_access_error(self) -> None:
        key = {"client_email": "a@b.iam", "private_key": "s3cret", "token_uri": "https://oauth2.example/token"}
        with pytest.raises(AccessError) as caught, BigQueryAccount("demo", credentials=json.dumps(key)).client():
            pass
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "error", "said"),
    [
        (google_errors.Forbidden("Access Denied: Table t: User does not have permission"), AccessError, "dataViewer"),
        (google_errors.Forbidden("Quota exceeded", errors=[{"reason": "quotaExceeded"}]), WarehouseBusyError, "quota"),
        (google_errors.TooManyRequests("slow down"), WarehouseBusyError, "not available now"),
        (google_errors.Unauthorized("Invalid Credentials"), AccessError, "revoked"),
        (google.auth.exceptions.RefreshError("invalid_grant: s3cret"), AccessError, "revoked"),
        (google_errors.BadRequest("Bad int64 value: ann@example.com"), WarehouseError, "Bad int64 value …"),
    ],
)
def test_googles_errors_become_one_clear_one(raised: Exception, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught, explained("crm.contacts"):
        raise raised
    assert "crm.contacts" in str(caught.value)
    assert "ann@" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


TABLE = relation_of("p.d.t", "p")
NOON = Newer("at", datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))


def _table(*fields: gcp.SchemaField, partition: str | None = None, required: bool = False) -> gcp.Table:
    table = gcp.Table("p.d.t", list(fields))
    if partition:
        table.time_partitioning = gcp.TimePartitioning(field=partition)
        table.require_partition_filter = required
    return table


@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATETIME", "DATE"])
@pytest.mark.parametrize("newer", [None, NOON])
def test_conditions_compare_equal_types_and_parse_in_bigquerys_dialect(kind: str, newer: Newer | None) -> None:
    table = _table(gcp.SchemaField("at", kind), partition="at", required=True)
    statement = select(TABLE, table.schema, condition(TABLE, table, newer))
    where = sqlglot.parse_one(statement, dialect="bigquery").find(sqlglot.exp.Where)
    assert where is not None
    assert f"{kind} '" in statement


def test_a_table_without_a_demanded_partition_filter_is_read_whole() -> None:
    assert condition(TABLE, _table(gcp.SchemaField("at", "DATE"), partition="at"), None) == ""


@pytest.mark.parametrize("partition", ["day", "at", None])
def test_a_demanded_partition_filter_stays_when_only_changes_are_read(partition: str | None) -> None:
    """Refused otherwise: "Cannot query over table without a filter over column(s) 'day'"."""
    table = _table(gcp.SchemaField("at", "TIMESTAMP"), gcp.SchemaField("day", "DATE"), required=True)
    table.time_partitioning = gcp.TimePartitioning(field=partition)
    table.require_partition_filter = True
    where = condition(TABLE, table, NOON)
    assert "`at` >= TIMESTAMP '2026-11-01 12:00:00" in where
    assert f"`{partition or '_PARTITIONTIME'}` >= " in where
    assert ("IS NULL" in where) is (partition != "at"), "one filter on a column is enough"


def test_a_range_of_integers_is_filtered_by_an_integer() -> None:
    table = _table(gcp.SchemaField("at", "TIMESTAMP"), gcp.SchemaField("shop", "INTEGER"))
    table.range_partitioning = gcp.RangePartitioning(gcp.PartitionRange(0, 100, 10), "shop")
    table.require_partition_filter = True
    assert condition(TABLE, table, None) == "(`shop` >= -9223372036854775808 OR `shop` IS NULL)"
    assert condition(TABLE, table, NOON).endswith(" AND (`shop` >= -9223372036854775808 OR `shop` IS NULL)")


@pytest.mark.parametrize("kind", ["STRING", "INTEGER", "JSON"])
def test_a_column_that_is_no_time_is_named_with_its_type(kind: str) -> None:
    with pytest.raises(WarehouseError, match=rf"p\.d\.t: column 'at' is {kind}"):
        condition(TABLE, _table(gcp.SchemaField("at", kind)), NOON)


@pytest.mark.parametrize("kind", ["STRING", "INT64", "TIMESTAMP", "DATE"])
def test_a_table_is_read_in_the_night_after_it_changed_whatever_tells_the_change(
    source: BigQueryWarehouse, kind: str
) -> None:
    [dataset] = source.datasets
    value = {"STRING": "'2026-10-0{}'", "INT64": "177{}", "TIMESTAMP": "TIMESTAMP '2026-10-0{} 00:00:00+00'"}
    at = value.get(kind, "DATE '2026-10-0{}'").format
    with source.account.client() as client:
        client.query(f"CREATE TABLE {dataset}.deals AS SELECT 1 AS id, 'a' AS plan, {at(5)} AS updated_at").result()
        with refreshed(source, "deals", None, key="id", updated_at="updated_at") as first:
            before = Observation(first.frame.collect().lazy(), first.observed_at, first.version, first.tally)
        # loaded late: its time is older than what was read
        client.query(f"INSERT INTO {dataset}.deals VALUES (2, 'b', {at(1)})").result()
        with refreshed(source, "deals", None, key="id", updated_at="updated_at", previous=before) as found:
            assert sorted(found.frame.select("id", "plan").collect().rows()) == [(1, "a"), (2, "b")]
