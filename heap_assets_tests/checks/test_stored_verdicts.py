"""Damaged verdict files are named and stop only who needs them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from heap_assets.checks import verdicts
from heap_assets.checks.verdict import Severity, Verdict
from heap_assets.errors import DamagedFileError
from heap_assets.lake import Lake

DAY = "2026-11-01"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.open(str(tmp_path))
    lake.write("profiles", DAY, pl.DataFrame({"a": [1]}))
    for check in ("one", "two"):
        verdicts.record(
            lake.store,
            Verdict(passed=True),
            asset="profiles",
            check=check,
            partition=DAY,
            version=verdicts.partition_version(lake, "profiles", DAY),
            severity=Severity.ERROR,
            blocking=True,
        )
    return lake


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"severity": "ERROR"}', b"\xff"])
def test_a_damaged_verdict_is_named_and_stops_only_who_needs_it(
    lake: Lake, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = Path(lake.store.uri(verdicts.object_key("profiles", "one", DAY)))
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"{path} is damaged"):
        verdicts.read(lake.store, "profiles", "one", DAY)
    assert [found.check for found in verdicts.newest(lake.store)] == ["two"]
    assert verdicts.read_many(lake.store, "profiles", "one", [DAY]) == []
    assert str(path) in caplog.text
    assert verdicts.gate(lake, "profiles", DAY, ["two"]) == []
    [reason] = verdicts.gate(lake, "profiles", DAY, ["one", "two"])
    assert "run the check one of profiles 2026-11-01 again" in reason


def test_a_damaged_hash_key_is_named(lake: Lake) -> None:
    assert len(verdicts.hash_key(lake.store)) == 32
    lake.store.write("_verdicts/.key", b"short")
    with pytest.raises(DamagedFileError, match=r"_verdicts/\.key is damaged"):
        verdicts.hash_key(lake.store)
