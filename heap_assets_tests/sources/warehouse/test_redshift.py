"""Redshift's types both ways, its settings, and what a preflight tries; through the real driver to a strict gateway."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.sources.warehouse.base import WarehouseError
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher
from heap_assets.sources.warehouse.redshift.reader import RedshiftWarehouse
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.strict_redshift import Redshift

MOMENT = datetime(2026, 11, 2, 10, 11, 12, 123456, UTC)
ROLE = "arn:aws:iam::123456789012:role/loads"


def publisher_of(redshift: Redshift, folder: Path, role: str = ROLE) -> RedshiftPublisher:
    files = Store(redshift.bucket, redshift.s3)
    return RedshiftPublisher(RedshiftDatabase(redshift.uri), "pub", Store(str(folder / "lake")), files, role)


def test_what_is_published_is_read_back_in_its_types(redshift: Redshift, tmp_path: Path) -> None:
    rows = pl.LazyFrame(
        {
            "whole": [2**62, None], "big": [2**63, None], "dec": [Decimal("1.50"), None], "f": [0.1, None],
            "text": ["it's \\ 'ü'", ""], "day": [date(2026, 11, 2), None], "tim": [time(23, 59, 59, 999999), None],
            "utc": [MOMENT, None], "naive": [MOMENT.replace(tzinfo=None), None], "list": [[1, 2], None],
            "raw": [b"\x00\xff", None], "flag": [True, None], "oid": [7, None], "long": ["x" * 65_536, "y" * 65_535],
        },
        schema_overrides={"big": pl.UInt64, "dec": pl.Decimal(10, 2)},
    )  # fmt: skip
    published = publisher_of(redshift, tmp_path).publish(Publication("T", by_day=False), None, rows, "v1")
    assert (published.rows, published.lost, published.renamed) == (2, {"long": 1}, {"oid": "property_oid"})
    warehouse = RedshiftWarehouse(RedshiftDatabase(redshift.uri))
    assert warehouse.resolve("PUB.t") == "pub.t"
    path = tmp_path / "t.parquet"
    reading = warehouse.read("pub.t", None, path)
    first, empty = pl.read_parquet(path).drop("long").sort("whole", nulls_last=True).rows(named=True)
    assert first == {
        "whole": 2**62, "big": Decimal(2**63), "dec": Decimal("1.50"), "f": 0.1, "text": "it's \\ 'ü'",
        "day": date(2026, 11, 2), "tim": time(23, 59, 59, 999999), "utc": MOMENT, "naive": MOMENT.replace(tzinfo=None),
        "list": "[1, 2]", "raw": b"\x00\xff", "flag": True, "property_oid": 7,
    }  # fmt: skip
    assert {name: value for name, value in empty.items() if value is not None} == {"text": ""}
    assert (reading.rows, reading.version) == (2, None)
    tally = warehouse.tally("pub.t", "flag")
    assert tally is not None
    assert tally.rows == 2
    assert Store(redshift.bucket, redshift.s3).list() == [], "the file goes afterwards"


def test_what_arrow_lacks_is_read_as_text_and_more_rows_than_a_fetch_are_all_read(
    redshift: Redshift, tmp_path: Path
) -> None:
    with dbapi.connect(redshift.postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE public.many AS SELECT n::int AS id, n::text || '%' AS t FROM generate_series(1, 250001) n"
        )
        cursor.execute("CREATE TABLE public.odd (z time with time zone, s redshift_catalog.super)")
        cursor.execute("INSERT INTO public.odd VALUES ('10:11:12+01', '{\"a\": [1, null]}')")
    warehouse = RedshiftWarehouse(RedshiftDatabase(redshift.uri))
    assert warehouse.read("many", ["id"], tmp_path / "many.parquet").rows == 250_001
    assert pl.read_parquet(tmp_path / "many.parquet")["id"].n_unique() == 250_001
    warehouse.read("odd", None, tmp_path / "odd.parquet")
    assert pl.read_parquet(tmp_path / "odd.parquet").rows() == [("10:11:12+01", '{"a": [1, null]}')]


def test_preflight_loads_a_row_through_s3(redshift: Redshift, tmp_path: Path) -> None:
    tried = publisher_of(redshift, tmp_path).preflight()
    assert [(each.name, each.passed) for each in tried] == [("connect", True), ("write", True), ("copy", True)]
    denied = publisher_of(redshift, tmp_path, "arn:aws:iam::1:role/no").preflight()
    assert [(each.name, each.passed) for each in denied][-1] == ("copy", False)
    assert "iam_role has to be attached" in denied[-1].remedy
    publisher_of(redshift, tmp_path).publish(Publication("t", by_day=False), None, pl.LazyFrame({"a": [1]}), "v1")
    assert all(each.passed for each in RedshiftWarehouse(RedshiftDatabase(redshift.uri)).preflight())
    [away] = RedshiftWarehouse(RedshiftDatabase("postgresql://u:p-4711@127.0.0.1:9/d")).preflight()
    assert (away.passed, "p-4711" in away.detail) == (False, False)


def test_the_gateway_refuses_what_redshift_does_not_know(redshift: Redshift) -> None:
    database = RedshiftDatabase(redshift.uri)
    for statement in (
        "SELECT to_regclass('x')", "SELECT 'x'::jsonb", "CREATE TABLE t (a BYTEA)", "SELECT gen_random_uuid()",
        "CREATE OR REPLACE VIEW v AS SELECT 1", "ALTER TABLE t ALTER COLUMN a TYPE BIGINT",
    ):  # fmt: skip
        with pytest.raises(WarehouseError), database.session("") as cursor:
            cursor.execute(statement)


def test_a_lake_elsewhere_needs_a_folder_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISH_DSN", "postgresql://u:p-4711-x@name.example:5439/d")
    text = """
start_date: 2026-01-01
lake: ./lake
heap: {app_id: "1", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: email, max_per_profile: 3}]}
publish: {there: {kind: redshift, dsn: '${PUBLISH_DSN}'}}
"""
    target = parse_settings(text, tmp_path / "heap_assets.yaml").publish["there"]
    assert list(target.hosts()) == ["name.example:5439"]
    with pytest.raises(SettingsError, match=r"publish\.there\.staging is not set and the lake is not on S3"):
        target.open(Store(str(tmp_path)), "publish.there")
    wrong = text.replace("dsn:", "iam_role: admin, dsn:")
    with pytest.raises(SettingsError, match="iam_role"):
        parse_settings(wrong, tmp_path / "heap_assets.yaml")
