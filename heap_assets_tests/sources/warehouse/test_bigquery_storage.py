"""The Storage Read API and uploads when they are away, slow, or answer with something else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import types as storage

from heap_assets.sources.warehouse import WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.bigquery.client import PatientClient, PatientReadClient
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.refusing_google import refusing_google
from heap_assets_tests.sources.warehouse.strict_google import StrictGoogle, strict_google


@pytest.fixture
def google() -> Iterator[StrictGoogle]:
    with strict_google() as server:
        server.hold("t", "id INT64", "SELECT n AS id FROM range(10) AS r(n)", numRows="10")
        yield server


def warehouse(google: StrictGoogle, patience: float) -> BigQueryWarehouse:
    return BigQueryWarehouse(replace(google.account, patience=patience), ("d",))


def rows(google: StrictGoogle, patience: float = 5) -> list[int]:
    with warehouse(google, patience).snapshot("d.t") as snapshot:
        return snapshot.frame.collect()["id"].to_list()


def session(schema: bytes) -> bytes:
    streams = [storage.ReadStream(name="s")]
    told = storage.ReadSession(arrow_schema=storage.ArrowSchema(serialized_schema=schema), streams=streams)
    return storage.ReadSession.serialize(told)  # type: ignore[no-any-return]


def answer(batch: bytes, count: int = 1) -> bytes:
    data = storage.ArrowRecordBatch(serialized_record_batch=batch)
    told = storage.ReadRowsResponse(arrow_record_batch=data, row_count=count)
    return storage.ReadRowsResponse.serialize(told)  # type: ignore[no-any-return]


OWN = session(pa.schema([("id", pa.int64())]).serialize().to_pybytes())
OTHERS = session(pa.schema([("x", pa.int64())]).serialize().to_pybytes())


@pytest.mark.parametrize(
    ("told", "batches"),
    [
        (b"\xff\xfe", []),
        (session(b""), []),
        (session(b"no schema"), []),
        (OTHERS, []),
        (OWN, [b"\xff\xfe"]),
        (OWN, [answer(b"")]),
        (OWN, [answer(b"no batch")]),
    ],
)
def test_what_is_no_answer_is_told_and_names_the_table(
    google: StrictGoogle, tmp_path: Path, told: bytes, batches: list[bytes]
) -> None:
    google.create_read_session = lambda *_: told  # type: ignore[method-assign]
    google.read_rows = lambda *_: iter(batches)  # type: ignore[method-assign]
    with pytest.raises(WarehouseError, match=r"^d\.t: (BigQuery's answer cannot be underst|Exception deserial)"):
        warehouse(google, 2).read("d.t", None, tmp_path / "rows.parquet")
    assert not list(tmp_path.iterdir())


def test_a_stream_that_is_away_is_given_up_and_one_that_comes_back_is_waited_for(
    google: StrictGoogle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Google's client by itself tries a stream for a day and says nothing."""
    read, away = google.read_rows, 1_000

    def sometimes(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        nonlocal away
        away -= 1
        if away >= 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return read(request, context)

    google.read_rows = sometimes  # type: ignore[method-assign]
    started = time.monotonic()
    with pytest.raises(WarehouseBusyError, match=r"^d\.t: BigQuery is not available, given up after retries: away"):
        warehouse(google, 1).try_reading("d.t")
    assert time.monotonic() - started < 10
    away = 2
    monkeypatch.setattr(PatientReadClient, "quiet", 0.0)
    assert rows(google, 30) == list(range(10))
    waits = [record.getMessage() for record in caplog.records if "waiting" in record.getMessage()]
    assert waits[-1] == "BigQuery's Storage API: waiting, attempt 3 (503)"


def test_a_stream_that_outlives_the_patience_is_read_on_from_where_it_was(google: StrictGoogle) -> None:
    """Each call brings three rows and then nothing more."""

    def slowly(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        asked = storage.ReadRowsRequest.deserialize(request)
        ids = list(range(asked.offset, min(asked.offset + 3, 10)))
        batch = pa.record_batch({"id": pa.array(ids, pa.int64())})
        yield answer(batch.serialize().to_pybytes(), len(ids))
        if ids[-1] < 9:
            time.sleep(2)

    google.read_rows = slowly  # type: ignore[method-assign]
    assert rows(google, 1) == list(range(10))


def test_a_stream_that_brings_nothing_is_given_up(google: StrictGoogle) -> None:
    def silent(*_: Any) -> Iterator[bytes]:
        time.sleep(3)
        yield from ()

    google.read_rows = silent  # type: ignore[method-assign]
    with pytest.raises(WarehouseBusyError, match=r"^d\.t: BigQuery is not available"):
        warehouse(google, 1).try_reading("d.t")


def test_an_upload_that_is_refused_is_made_again_which_is_said_and_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PatientClient, "quiet", 0.0)
    people, day, frame = Publication("people"), date(2026, 11, 2), pl.LazyFrame({"id": [1]})
    with refusing_google() as google:
        google.refuses["/upload/"] = (503, "backendError", "tired")
        google.times["/upload/"] = 2
        target = BigQueryPublisher(google.account, "d", Store(str(tmp_path)))
        assert target.publish(people, day, frame, "v1").rows == 1
        assert [record.getMessage() for record in caplog.records if "waiting" in record.getMessage()] == [
            "BigQuery's upload: waiting, attempt 2 (503)",
            "BigQuery's upload: waiting, attempt 3 (503)",
        ]
        google.times["/upload/"] = 1_000
        hasty = BigQueryPublisher(replace(google.account, patience=1), "d", Store(str(tmp_path)))
        with pytest.raises(WarehouseBusyError, match="given up after retries: tired"):
            hasty.publish(people, day, frame, "v2")
