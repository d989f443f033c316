"""Memory: arrays grow where they lie, the peak is as documented, and too little of it is told.

What is measured here runs in a process of its own, as users run it: compiled without bounds checks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.identity import IdentifierRule, MemoryLimitError, Rules, resolve
from heap_assets.identity.engine.native import encode
from heap_assets.identity.engine.native.memory import Growing, aligned, failing_clearly

LINKS = 400_000
MEASURED = """
import resource, sys
from pathlib import Path
import polars as pl
from heap_assets.identity import IdentifierRule, MemoryLimitError, Rules, resolve

rules = Rules((IdentifierRule("email"), IdentifierRule("device")))
folder = Path(sys.argv[1])

def written(links, file):
    number = pl.int_range(links, eager=True).alias("n").to_frame().lazy()
    number.select(
        type_a=pl.lit("email"), value_a=pl.format("person{}@acme.io", pl.col("n") // 2),
        type_b=pl.lit("device"), value_b=pl.format("device-{}", "n"),
    ).sink_parquet(file)
    return pl.scan_parquet(file)

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def solved(links):
    found = resolve(links, rules)
    found.write_graph(folder / "graph.parquet")
    return pl.read_parquet(folder / "graph.parquet")["profile_id"].n_unique()

assert solved(written(1000, folder / "few.parquet")) == 500
"""


def run(code: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment["MALLOC_ARENA_MAX"] = "1"  # each thread's arena would reserve address space that it does not use
    done = subprocess.run(
        [sys.executable, "-c", MEASURED + code, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_as_documented(tmp_path: Path) -> None:
    """docs/identity.md, "Memory"."""
    code = f"""
links = written({LINKS}, folder / "many.parquet")
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
assert solved(links) == {LINKS // 2}
print(status("VmHWM") - before)
"""
    identifiers, text = LINKS * 3 // 2, LINKS * (13 + 18 // 2)
    assert int(run(code, tmp_path)) < 46 * identifiers + text + 18 * LINKS + 150_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_little_more_address_space_than_libraries_take_is_enough_and_too_little_is_told(tmp_path: Path) -> None:
    code = """
def limited(more):
    limit = status("VmSize") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

some = written(50_000, folder / "some.parquet")
limited(300_000_000)
print(solved(some))
limited(1 << 40)
many = written(5_000_000, folder / "many.parquet")
limited(600_000_000)
try:
    resolve(many, rules)
except MemoryLimitError as error:
    print(error)
"""
    enough, too_little = run(code, tmp_path).splitlines()
    assert enough == "25000"
    assert "identifiers: what is kept of them would take more than" in too_little
    assert "give it more" in too_little


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=8))
def test_an_array_that_grows_keeps_what_it_has_and_is_zero_beyond(sizes: list[int]) -> None:
    room = Growing(np.int64, 1)
    known = 0
    for size in sizes:
        room.grow(size)
        assert room.size >= size
        array = room.array
        assert (array[:known] == np.arange(1, known + 1)).all()
        assert not array[known:].any()
        known = max(known, size)
        array[:known] = np.arange(1, known + 1)
        del array


def test_memory_that_duckdb_does_not_get_is_told_as_any_other() -> None:
    with (
        pytest.raises(
            MemoryLimitError, match=r"hashing needs more memory than this process may use \(\d+ MB\): give it more"
        ),
        failing_clearly("hashing"),
        duckdb.connect(config={"memory_limit": "10MB", "max_temp_directory_size": "0B"}) as database,
    ):
        database.sql("SELECT list(range) FROM range(10000000)").fetchall()


def test_what_cannot_grow_stays_as_it_was() -> None:
    room = Growing(np.uint8, 10)
    room.array[:10] = 7
    with pytest.raises(MemoryError):
        room.grow(1 << 60)
    assert room.array[:10].tolist() == [7] * 10


def test_rows_of_the_facts_never_lie_across_two_lines_of_the_cache() -> None:
    rows = aligned((100, 4), np.int64)
    assert rows.shape == (100, 4)
    assert not rows.any()
    assert rows.__array_interface__["data"][0] % 64 == 0


def test_identifiers_that_32_bits_do_not_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MOST_NUMBERS", 100)
    ends = {"value_a": [f"p{n}@acme.example" for n in range(60)], "value_b": [f"d{n}" for n in range(60)]}
    links = pl.LazyFrame(ends).with_columns(type_a=pl.lit("email"), type_b=pl.lit("device"))
    rules = Rules((IdentifierRule("email"), IdentifierRule("device")))
    with pytest.raises(MemoryLimitError, match="numbers 100 at most: resolve them on Spark"):
        resolve(links, rules)
