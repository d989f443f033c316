"""Landing, building, resolving and publishing keep to a peak; out of memory is one table's failure or one run's.

Small here; `HEAP_ASSETS_LONG=1` and `make torture` take more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heap_assets_tests.sources.warehouse import servers
from heap_assets_tests.torture.cgroups import limited_to
from heap_assets_tests.torture.limited import HEAVY, LIGHT, LIMIT_MB, do, do_until, do_within_limits, make, wrong_of
from heap_assets_tests.torture.memory import ROW_BYTES
from heap_assets_tests.torture.read_only import read_only_package

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIZES = HEAVY if "HEAP_ASSETS_LONG" in os.environ else LIGHT


@pytest.mark.parametrize("work", SIZES)
def test_a_gibibyte_is_enough(tmp_path: Path, work: str) -> None:
    make(work, tmp_path, SIZES[work])
    try:
        ended = do_within_limits(work, tmp_path)
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: publishing within limits was NOT tested")
    assert not wrong_of(work, SIZES[work], ended)


@pytest.mark.parametrize("work", SIZES)
def test_a_cgroup_of_a_gibibyte_is_enough(tmp_path: Path, work: str) -> None:
    with limited_to(LIMIT_MB) as within:
        make(work, tmp_path, SIZES[work])
        try:
            ended = do_within_limits(work, tmp_path, within)
        except servers.UnavailableError as missing:
            pytest.skip(f"{missing}: publishing within a cgroup was NOT tested")
    assert not wrong_of(work, SIZES[work], ended)


@pytest.mark.parametrize("work", ["eight files", "links"])
def test_a_container_of_two_gibibytes_with_a_read_only_package_is_enough(tmp_path: Path, work: str) -> None:
    make(work, tmp_path, SIZES[work])
    with limited_to(2 * LIMIT_MB) as within:
        ended = do(work, tmp_path, within=[*read_only_package(), *within], HOME=str(tmp_path))
    assert not wrong_of(work, SIZES[work], ended)


def test_a_cgroup_ends_what_takes_more() -> None:
    with limited_to(100) as within:
        hungry = subprocess.run([*within, sys.executable, "-c", "bytearray(200 << 20)"], check=False)
    assert hungry.returncode in (-9, 137)


def test_memory_that_python_does_not_get_fails_one_table_and_says_so(tmp_path: Path) -> None:
    make("a block out of reach", tmp_path, 250)
    ended = do("a block out of reach", tmp_path, room_mb=200)
    assert ended.code == 0, ended.errors
    assert ended.said["rows"] == {"signups": 100}
    assert list(ended.said["failed"]) == ["pageviews"]
    reason = ended.said["failed"]["pageviews"]
    assert reason.startswith(
        "landing stopped with MemoryError (memory ran out) at sources/heap_connect/avro_container.py:"
    )
    assert reason.endswith("; the table is tried again")


def test_a_run_that_ends_for_want_of_memory_leaves_its_dump_pending_and_the_next_one_lands_it(tmp_path: Path) -> None:
    work, size = "one block", 64
    make(work, tmp_path, size)
    assert do_until(work, tmp_path, 260) == -9, "killed, as by the kernel"
    assert do(work, tmp_path, room_mb=300).code == -6, "aborted by a library that got no memory"
    ended = do(work, tmp_path)
    assert ended.code == 0, ended.errors
    assert ended.said["failed"] == {}
    assert ended.said["rows"] == {"pageviews": (size << 20) // ROW_BYTES, "signups": 100}
