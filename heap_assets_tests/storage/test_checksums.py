"""A file in which a bit was flipped is named: no reader takes it for other values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heap_assets.errors import DamagedFileError
from heap_assets.storage import Inputs, Lake, from_parquet, to_parquet
from heap_assets.storage.sql import LakeSql, SqlError

_RANDOM = Random(5)
ROWS = pl.DataFrame({"id": [_RANDOM.randrange(10**12) for _ in range(99)], "email": [f"p{n}@x.io" for n in range(99)]})


def flipped(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def by_polars(path: Path, metadata: dict[str, str]) -> None:
    ROWS.write_parquet(path, metadata=metadata)


def by_arrow(path: Path, metadata: dict[str, str]) -> None:
    rows = pa.table({"id": pa.array(ROWS["id"].to_list()), "email": pa.array(ROWS["email"].to_list())})
    with pq.ParquetWriter(path, rows.schema, store_schema=False) as file:
        file.write_table(rows)
        file.add_key_value_metadata(metadata)


@pytest.mark.parametrize("written_by", [None, by_polars, by_arrow], ids=["streaming", "polars", "arrow"])
def test_a_partition_is_read_as_it_was_written_or_named(
    tmp_path: Path, written_by: Callable[[Path, dict[str, str]], None] | None
) -> None:
    lake, inputs = Lake.open(str(tmp_path)), Inputs({"a": "1"})
    lake.write("heap/users", "2026-11-01", written_by or ROWS, inputs)  # type: ignore[arg-type]
    assert lake.scan("heap/users", "2026-11-01").collect().equals(ROWS)
    path = tmp_path / "heap" / "users" / "2026-11-01.parquet"
    whole, chance, ended = path.read_bytes(), Random(7), Counter[str]()
    damaged = [flipped(whole, chance) for _ in range(200)]
    for number, content in enumerate([*damaged, whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0"]):
        path.write_bytes(content)
        os.utime(path, (number, number))  # a version of a file is read once
        with pytest.raises(DamagedFileError, match=str(path)):
            lake.scan("heap/users", "2026-11-01")
        try:
            lake.write("heap/users", "2026-11-01", written_by or ROWS, inputs)  # type: ignore[arg-type]
        except DamagedFileError:
            ended["named"] += 1
        else:
            ended["what it says of its inputs was damaged: written anew"] += 1
            assert lake.scan("heap/users", "2026-11-01").collect().equals(ROWS)
    assert ended["named"] > 190, ended


def test_sql_names_a_damaged_file_whatever_asks_for_it(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    for asset in ("heap/users", "heap/pageviews", "profiles"):
        lake.write(asset, "2026-11-01", ROWS)
    path = tmp_path / "heap" / "users" / "2026-11-01.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with LakeSql(str(tmp_path)) as lake_sql:
        assert lake_sql.sql("SELECT * FROM heap.pageviews, profiles").height == 99 * 99
        for statement in (
            "SELECT count(*) FROM Heap.USERS",
            "FROM latest.heap_users",
            "FROM query_table('heap.users')",
        ):
            with pytest.raises(DamagedFileError, match=str(path)):
                lake_sql.sql(statement)
    path.write_bytes(whole)
    with LakeSql(str(tmp_path)) as lake_sql:
        assert lake_sql.sql("SELECT * FROM heap.users").height == 99
        path.unlink()
        with pytest.raises(SqlError, match=path.name):
            lake_sql.sql("SELECT * FROM heap.users")


def test_a_file_of_a_release_without_checksums_is_read(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    ROWS.write_parquet(tmp_path / "t" / "all.parquet")
    assert Lake.open(str(tmp_path)).scan("t").collect().equals(ROWS)
    assert from_parquet((tmp_path / "t" / "all.parquet").read_bytes()).equals(ROWS)


def test_small_tables_are_read_as_they_were_written_or_refused() -> None:
    whole = to_parquet(ROWS, {"about": "x"}, compression="lz4")
    assert from_parquet(whole).equals(ROWS)
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        with pytest.raises(ValueError, match="checksum"):
            from_parquet(damaged)
