"""Views of Heap's dataset that nobody expects: each is named, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from heap_assets.sources.heap_bigquery.export import HeapExport
from heap_assets.sources.heap_bigquery.export_log import ExportLog, LookBack
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.content import FINGERPRINT_SCHEME
from heap_assets.storage import Store

MONDAY = date(2026, 11, 2)
NOW = datetime(2026, 11, 4, tzinfo=UTC)
AT = "TIMESTAMP '2026-11-02 10:00:00+00'"
KEYS = f"{AT} AS time, 7 AS user_id, 8 AS session_id"
VIEWS = {
    "plain": f"SELECT 1 AS event_id, {KEYS}, 'pro' AS plan",
    "text_ids": f"SELECT '17' AS event_id, {KEYS} UNION ALL SELECT 'e-18', {KEYS}",
    "floats": f"SELECT 1 AS event_id, {KEYS}, CAST('nan' AS FLOAT64) AS a, 1e20 AS b, CAST(30 AS FLOAT64) AS c",
    "arrays": f"SELECT 1 AS event_id, {KEYS}, [1, 2] AS tags, STRUCT('x' AS sku) AS item",
    "lasting": f"SELECT 1 AS event_id, {KEYS}, INTERVAL '1-2 3 4:5:6.5' YEAR TO SECOND AS lasted",
    "timeless": "SELECT 1 AS event_id, 7 AS user_id, 8 AS session_id, 'noon' AS time",
}


@pytest.fixture(scope="module")
def export(bigquery_emulator: object) -> Iterator[HeapExport]:
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc)
    dataset = f"strange_{uuid4().hex[:6]}"
    with account.client() as client:
        client.create_dataset(dataset)
        for name, query in VIEWS.items():
            client.query(f"CREATE TABLE {dataset}.{name}_raw AS {query}").result()
            client.query(f"CREATE VIEW {dataset}.{name} AS SELECT * FROM {dataset}.{name}_raw").result()
        client.query(f"CREATE TABLE {dataset}.gone_raw AS {VIEWS['plain']}").result()
        client.query(f"CREATE VIEW {dataset}.plain_raw_view_raw AS SELECT * FROM {dataset}.plain_raw").result()
        yield HeapExport(BigQueryWarehouse(account, (dataset,)), dataset)
        client.delete_dataset(dataset, delete_contents=True)


def values(export: HeapExport, table: str, path: Path) -> dict[str, object]:
    rows, _ = export.read_day(table, MONDAY, None, path / "rows.parquet")
    [row] = rows.frame.drop("event_id", "user_id", "session_id", "time").collect().to_dicts()
    return row


def test_the_table_behind_a_view_that_is_gone_is_no_event(export: HeapExport) -> None:
    assert export.tables() == sorted([*VIEWS, "plain_raw_view_raw"])


# the emulator describes a view's INTERVAL as STRING, so that nobody asks it for text
@pytest.mark.filterwarnings("ignore:Unable to determine Arrow type")
@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("floats", {"a": "NaN", "b": "1e+20", "c": "30"}),
        ("arrays", {"tags": "[1,2]", "item": '{"sku":"x"}'}),
        ("lasting", {"lasted": "1-2 3 4:5:6.5"}),
    ],
)
def test_values_of_strange_types_are_text(
    export: HeapExport, tmp_path: Path, table: str, read: dict[str, object]
) -> None:
    assert values(export, table, tmp_path) == read


def test_a_text_id_is_read_if_it_is_a_number_and_else_its_row_is_set_aside(export: HeapExport, tmp_path: Path) -> None:
    rows, _ = export.read_day("text_ids", MONDAY, None, tmp_path / "rows.parquet")
    assert rows.frame.collect()["event_id"].to_list() == [17]
    assert rows.notes() == {"rejected": 1, "rejected_reasons": {"event_id is not an id": 1}}


def test_a_look_names_the_one_that_cannot_be_looked_at_and_looks_at_the_others(
    export: HeapExport, tmp_path: Path
) -> None:
    log = ExportLog(Store(str(tmp_path / "lake")), export.dataset)
    looks = log.inspect(export, [*VIEWS, "gone"], MONDAY, NOW, "v1", LookBack())
    failures = {look.table: look.failure for look in looks if look.failure}
    assert set(failures) == {"timeless", "gone"}
    assert "column 'time' is STRING" in str(failures["timeless"])
    assert f"has no table '{export.dataset}.gone'" in str(failures["gone"])
    assert {look.table: look.changed for look in looks if not look.failure} == dict.fromkeys(
        ["plain", "text_ids", "floats", "arrays", "lasting"], (MONDAY,)
    )


def test_fingerprints_of_an_older_kind_are_made_anew_once_and_it_is_said_once(
    export: HeapExport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path / "lake"))
    log = ExportLog(store, export.dataset)
    log.inspect(export, ["plain"], MONDAY, NOW, "v1", LookBack())
    key = f"_exports/{export.dataset}/tables/plain.json"
    older = store.read(key).replace(f', "scheme": {FINGERPRINT_SCHEME}'.encode(), b"")
    assert older != store.read(key)
    store.write(key, older)
    seen = log.table("plain")
    changed = []
    for version in ("v2", "v3"):
        [look] = log.inspect(export, ["plain"], MONDAY, NOW, version, LookBack())
        changed.append(look.skipped or not look.changed)
    assert seen.scheme == 1
    assert [record.message for record in caplog.records if "in a new way" in record.message] == [
        "plain: its days are fingerprinted in a new way: those looked at are built once more"
    ]
