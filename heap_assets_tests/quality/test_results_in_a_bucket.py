"""Results in an object store, where each look is a request: few of them, and none that finds nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest

from heap_assets.quality import CheckContext, CheckResult, Severity, add_stored, result_store
from heap_assets.storage import Lake, Store
from heap_assets_tests.s3_server import s3_server

ASSET, CHECK = "heap/events/signup", "volume"


class Calls:
    """Counts the calls of some methods of every store."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = Counter[str]()
        for name in ("read", "head", "list", "update", "create"):
            patch.setattr(Store, name, self._counting(name, getattr(Store, name)))

    def _counting(self, name: str, method: Any) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            self.count[name] += 1
            return method(*arguments, **more)

        return counted


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with s3_server() as options:
        client = boto3.client("s3", endpoint_url=options["aws_endpoint_url"], region_name="us-east-1",
                              aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip
        client.create_bucket(Bucket="lake")
        yield Lake.open(f"s3://lake/{tmp_path.name}", options)  # moto's buckets outlive its servers


def stored(lake: Lake, day: int, rows: int) -> result_store.StoredResult:
    partition = f"2026-11-{day:02d}"
    return result_store.record(
        lake.store, CheckResult(passed=True, numbers={"rows": rows}), asset=ASSET, check=CHECK, partition=partition,
        version=result_store.partition_version(lake, ASSET, partition), severity=Severity.WARN, blocking=False,
    )  # fmt: skip


def test_only_results_that_there_are_are_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, calls = stored(lake, 3, 7), Calls(monkeypatch)
    shared: dict[str, Any] = {}
    subject = CheckContext(lake, ASSET, "2026-11-10", CHECK, step_shared=shared)
    assert [result.numbers["rows"] for result in subject.earlier(20)] == [7]
    assert calls.count == {"list": 1, "read": 1}
    add_stored(shared, [stored(lake, 10, 8)])
    subject = CheckContext(lake, ASSET, "2026-11-11", CHECK, step_shared=shared)
    assert [result.numbers["rows"] for result in subject.earlier(20)] == [8, 7]
    assert (calls.count["list"], calls.count["read"]) == (1, 3)
    assert earlier.numbers["rows"] == 7


def test_a_first_result_is_one_request_and_a_newer_one_replaces_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    stored(lake, 3, 7)
    assert (calls.count["create"], calls.count["update"], calls.count["read"]) == (1, 0, 0)
    stored(lake, 3, 9)
    assert calls.count["update"] == 1
    result = result_store.read(lake.store, ASSET, CHECK, "2026-11-03")
    assert result is not None
    assert result.numbers["rows"] == 9


def test_checks_of_a_small_partition_read_its_rows_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(ASSET, "2026-11-03", pl.DataFrame({"a": [1, 2]}))
    calls = Calls(monkeypatch)
    subject = CheckContext(lake, ASSET, "2026-11-03", CHECK)
    for _ in range(3):
        assert subject.rows().select(pl.col("a").sum()).collect().item() == 3
    assert calls.count == {"head": 1, "read": 1}
