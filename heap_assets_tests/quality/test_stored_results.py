"""Damaged result files are named and stop only who needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from heap_assets.errors import DamagedFileError
from heap_assets.quality import result_store
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.storage import Lake, Store, to_parquet

DAY = "2026-11-01"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.open(str(tmp_path))
    lake.write("profiles", DAY, pl.DataFrame({"a": [1]}))
    for check in ("one", "two"):
        _record(lake, check, result_store.partition_version(lake, "profiles", DAY))
    return lake


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"severity": "ERROR"}', b"\xff"])
def test_a_damaged_verdict_is_named_and_stops_only_who_needs_it(
    lake: Lake, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = Path(lake.store.uri(result_store.object_key("profiles", "one", DAY)))
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"{path} is damaged"):
        result_store.read(lake.store, "profiles", "one", DAY)
    assert [found.check for found in result_store.newest(lake.store)] == ["two"]
    assert result_store.read_many(lake.store, "profiles", "one", [DAY]) == []
    assert str(path) in caplog.text
    assert result_store.gate(lake, "profiles", DAY, ["two"]) == []
    [reason] = result_store.gate(lake, "profiles", DAY, ["one", "two"])
    assert "run the check one of profiles 2026-11-01 again" in reason


def test_a_damaged_hash_key_is_named(lake: Lake) -> None:
    assert len(result_store.hash_key(lake.store)) == 32
    lake.store.write("_verdicts/.key", b"short")
    with pytest.raises(DamagedFileError, match=r"_verdicts/\.key is damaged"):
        result_store.hash_key(lake.store)


STALE = """
import sys
from heap_assets.quality import result_store
from heap_assets.quality.results import Severity, CheckResult
from heap_assets.storage import Lake, Store, to_parquet
lake, own = Lake.open(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    result_store.record(lake.store, CheckResult(passed=False), asset="profiles", check="one", partition="2026-11-01",
                    version=own, severity=Severity.ERROR, blocking=True)
"""


def test_runs_that_judged_what_stands_no_more_do_not_replace_the_verdict_on_what_stands(lake: Lake) -> None:
    older = result_store.partition_version(lake, "profiles", DAY)
    assert older is not None
    stale = [
        subprocess.Popen(
            [sys.executable, "-c", STALE, lake.store.url, version],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for version in (older, "older still", older)
    ]  # fmt: skip
    for process in stale:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    lake.write("profiles", DAY, pl.DataFrame({"a": [1, 2]}))
    standing = result_store.partition_version(lake, "profiles", DAY)
    for process in stale:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for _ in range(20):
        _record(lake, "one", standing)
    for process in stale:
        process.communicate(timeout=60)
    assert [process.returncode for process in stale] == [0, 0, 0]
    found = result_store.read(lake.store, "profiles", "one", DAY)
    assert found is not None
    assert (found.version, found.passed) == (standing, True)
    assert result_store.gate(lake, "profiles", DAY, ["one"]) == []


def _record(lake: Lake, check: str, version: str | None) -> None:
    result_store.record(
        lake.store,
        CheckResult(passed=True),
        asset="profiles",
        check=check,
        partition=DAY,
        version=version,
        severity=Severity.ERROR,
        blocking=True,
    )


def test_results_that_did_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.open(str(tmp_path))

    def judged(day: str, *, passed: bool = True) -> None:
        result_store.record(
            lake.store, CheckResult(passed, numbers={"rows": 2**60, "share": float("nan")}), asset="a", check="c",
            partition=day, version="v", severity=Severity.ERROR, blocking=True,
        )  # fmt: skip

    def read_anew(*, remember: bool = True, since: str = "2026-01-02") -> list[str]:
        read: list[str] = []
        original = Store.read
        with monkeypatch.context() as patch:
            patch.setattr(Store, "read", lambda store, key: (read.append(key), original(store, key))[1])
            found = result_store.newest_remembered(lake.store, since, remember=remember)
        assert repr(found) == repr(result_store.newest(lake.store, since))
        return [key.rpartition("/")[2] for key in read if key.startswith(result_store.ROOT)]

    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        judged(day)
    assert read_anew(remember=False) == read_anew() == ["2026-01-02.json", "2026-01-03.json"]
    assert read_anew() == []
    judged("2026-01-03", passed=False)
    judged("2026-01-04")
    assert read_anew() == ["2026-01-03.json", "2026-01-04.json"]
    lake.store.delete(result_store.object_key("a", "c", "2026-01-02"))
    assert read_anew() == []
    assert read_anew(since="2026-01-04") == []
    assert read_anew(since="2026-01-03") == ["2026-01-03.json"], "what nobody asked for is not kept"
    for damage in (b"no parquet", to_parquet(pl.DataFrame({"key": [1]}))):
        lake.store.write("_status/results.parquet", damage)
        assert read_anew(since="2026-01-03") == ["2026-01-03.json", "2026-01-04.json"]
    lake.store.write(result_store.object_key("a", "c", "2026-01-05"), b"{")
    read_anew()
