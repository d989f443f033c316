"""Memory and cores are those of the container, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heap_assets import machine

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without limits; tests write those they want."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_limits_all_of_the_machine_may_be_used(cgroup: Path) -> None:
    assert machine.memory_limit() == MEMORY
    assert machine.cores() == len(os.sched_getaffinity(0))
    (cgroup / "own").unlink()  # a system without cgroups
    assert machine.memory_limit() == MEMORY


def test_a_container_sees_its_limits_at_the_root(cgroup: Path) -> None:
    write(cgroup / "cgroup/memory.max", "536870912\n")
    write(cgroup / "cgroup/cpu.max", "50000 100000\n")
    assert (machine.memory_limit(), machine.cores()) == (536870912, 1)


def test_no_limit_is_spelled_max(cgroup: Path) -> None:
    write(cgroup / "cgroup/memory.max", "max\n")
    write(cgroup / "cgroup/cpu.max", "max 100000\n")
    assert machine.memory_limit() == MEMORY
    assert machine.cores() == len(os.sched_getaffinity(0))


def test_the_strictest_of_all_groups_above_counts(cgroup: Path) -> None:
    (cgroup / "own").write_text("0::/pods/pod1/main\n")
    write(cgroup / "cgroup/pods/memory.max", "400000000\n")
    write(cgroup / "cgroup/pods/pod1/memory.max", "300000000\n")
    write(cgroup / "cgroup/pods/pod1/main/memory.max", "max\n")
    assert machine.memory_limit() == 300000000


def test_version_1_has_a_folder_per_controller(cgroup: Path) -> None:
    (cgroup / "own").write_text("5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/\n")
    write(cgroup / "cgroup/memory/memory.limit_in_bytes", "200000000\n")  # the path outside is not there inside
    write(cgroup / "cgroup/memory/docker/memory.limit_in_bytes", "9223372036854771712\n")
    write(cgroup / "cgroup/cpu/docker/a/cpu.cfs_quota_us", "-1\n")
    write(cgroup / "cgroup/cpu/cpu.cfs_quota_us", "30000\n")
    write(cgroup / "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert (machine.memory_limit(), machine.cores()) == (200000000, 1)


def test_a_limit_of_address_space_counts() -> None:
    code = """
import resource
from heap_assets import machine

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
before = machine.memory_left()
held = bytearray(200_000_000)
print(before, machine.memory_left())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 1 << 30
    assert 150_000_000 < before - after < 250_000_000
