"""Partitions know what they were built from; what has seen more is never overwritten."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.errors import DamagedFileError, MissingInputError, SettingsError, StaleWriterError
from heap_assets.storage import SCRATCH, Inputs, Lake, Status, Store, folder_name, remove_scratch_folders

ROWS = pl.DataFrame({"a": [1, 2]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path))


def test_a_lake_that_is_only_read_is_not_made(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "new" / "lake"))
    assert lake.partitions("heap/users") == []
    assert lake.find("heap/users", "2026-01-01") is None
    assert lake.store.child("_sync").list() == []
    lake.delete("heap/users", "2026-01-01")
    with pytest.raises(FileNotFoundError):
        lake.store.read("_record")
    assert lake.store.tidy() == 0
    assert list(tmp_path.iterdir()) == []

    assert lake.store.create("_record", b"1")
    assert not lake.store.create("_record", b"2")
    lake.write("heap/users", "2026-01-01", ROWS)
    assert lake.partitions("heap/users") == ["2026-01-01"]


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    (tmp_path / "lake").write_bytes(b"")
    with pytest.raises(SettingsError, match="is a file"):
        Lake.open(str(tmp_path / "lake"))


def test_equal_inputs_write_nothing(lake: Lake) -> None:
    inputs = Inputs({"dump 1": "x"}, frozenset({"dump 1"}))
    first = lake.write("heap/users", "2026-01-01", ROWS, inputs)
    again = lake.write("heap/users", "2026-01-01", ROWS.head(1), inputs)
    assert (first.status, again.status) == (Status.WRITTEN, Status.UNCHANGED)
    assert again.partition.version == first.partition.version
    assert lake.scan("heap/users", "2026-01-01").collect().height == 2


def test_a_writer_that_has_seen_less_is_refused(lake: Lake) -> None:
    lake.write("heap/users", "2026-01-01", ROWS, Inputs({"dump 2": "y"}, frozenset({"dump 1", "dump 2"})))
    with pytest.raises(StaleWriterError, match="dump 2"):
        lake.write("heap/users", "2026-01-01", ROWS, Inputs({"dump 1": "x"}, frozenset({"dump 1"})))


def test_a_stale_writer_is_told_what_it_has_not_seen(lake: Lake) -> None:
    lake.write("profiles", "2026-01-01", ROWS, Inputs({"a": "1"}, frozenset({"heap/users@2026-01-01"})))
    with pytest.raises(StaleWriterError, match="such as heap/users of 2026-01-01"):
        lake.write("profiles", "2026-01-01", ROWS, Inputs({"a": "2"}))


def test_a_missing_partition_is_not_an_empty_one(lake: Lake) -> None:
    lake.write("heap/users", "2026-01-01", ROWS.clear())
    assert lake.scan("heap/users", "2026-01-01").collect().schema == ROWS.schema
    with pytest.raises(MissingInputError, match="2026-01-02"):
        lake.scan("heap/users", ["2026-01-01", "2026-01-02"])


def test_partitions_of_different_columns_are_one_frame(lake: Lake) -> None:
    lake.write("t", "2026-01-01", ROWS)
    lake.write("t", "2026-01-02", ROWS.with_columns(b=pl.lit("x")))
    both = lake.scan("t", ["2026-01-01", "2026-01-02"]).collect()
    assert both["b"].to_list() == [None, None, "x", "x"]


def test_nothing_half_written_is_visible(lake: Lake) -> None:
    broken = ROWS.lazy().with_columns(pl.lit("x").str.to_integer())
    with pytest.raises(pl.exceptions.PolarsError):
        lake.write("t", "2026-01-01", broken)
    assert lake.partitions("t") == []
    assert lake.store.list() == []


def test_only_the_first_creates(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.create("lease", b"a")
    assert not store.create("lease", b"b")
    assert store.read("lease") == b"a"


def test_a_damaged_partition_is_named(lake: Lake) -> None:
    lake.write("t", "2026-01-01", ROWS)
    Path(lake.uri("t", "2026-01-01")).write_bytes(b"PAR1 no more")
    with pytest.raises(DamagedFileError, match=r"t/2026-01-01\.parquet"):
        lake.find("t", "2026-01-01")
    with pytest.raises(DamagedFileError, match="delete it"):
        lake.write("t", "2026-01-01", ROWS, Inputs({"a": "b"}))


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(lake: Lake) -> None:
    lake.write("t", "2026-01-01", ROWS, Inputs({"a": "b"}))
    folder = Path(lake.uri("t", "2026-01-01")).parent
    dead, own, alive = folder / ".tmp-1-a.parquet", folder / "a.json#1", folder / ".tmp-2-a.parquet"
    for path in (dead, own, alive):
        path.write_bytes(b"half")
    (lock,) = Path(lake.store.url).glob(".tmp-lock*")
    for path in (dead, own, lock):
        os.utime(path, (0, 0))
    assert lake.store.tidy() == 2
    assert {path.name for path in folder.iterdir()} == {"2026-01-01.parquet", alive.name}
    assert lock.exists(), "others may be waiting for it"


def test_scratch_folders_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, alive = (Path(tempfile.mkdtemp(prefix=SCRATCH)) for _ in range(2))
    for folder in (dead, alive):
        (folder / "0.avro").write_bytes(b"rows")
    for path in (dead / "0.avro", dead, alive):
        os.utime(path, (0, 0))
    assert remove_scratch_folders() == [dead]
    assert (alive / "0.avro").exists()


@given(st.lists(st.text(st.characters(), max_size=300), min_size=1, max_size=20, unique=True))
def test_names_become_different_safe_folders(names: list[str]) -> None:
    folders = [folder_name(name, {"_dumps"}) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]{1,167}", folder)
        assert folder not in {".", "..", "_dumps"}
        assert not folder.startswith(".tmp-")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("sign_up", "sign_up"),
        ("_private", "_private"),
        ("Sign Up", "Sign%20Up"),
        ("café", "caf%C3%A9"),
        ("a/../b", "a%2F..%2Fb"),
        ("..", "%2E."),
        ("_dumps", "%5Fdumps"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_ordinary_names_stay_as_they_are(name: str, folder: str) -> None:
    assert folder_name(name, {"_dumps"}) == folder
