"""`heap-assets dev`: it ends when it is asked to, and tells no warning that is none."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heap_assets.cli.dagster_dev import is_worth_telling

PATIENT, AT_ONCE = 3600.0, 0.1
STUBBORN = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(3600)
"""
GROUP = """
import sys
from heap_assets.cli import dev
dev._PATIENCE_SECONDS = float(sys.argv[1])
sys.exit(dev.run_group([sys.executable, "-c", sys.argv[2]]))
"""


@pytest.mark.parametrize(
    ("patience", "signals"),
    [(AT_ONCE, [signal.SIGINT]), (AT_ONCE, [signal.SIGTERM]), (PATIENT, [signal.SIGTERM, signal.SIGINT])],
)
def test_processes_that_do_not_end_are_killed_at_once_if_asked_twice(
    patience: float, signals: list[signal.Signals]
) -> None:
    command = [sys.executable, "-c", GROUP, str(patience), STUBBORN]
    group = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert group.stdout is not None
    child = int(group.stdout.readline())
    try:
        for number in signals:
            group.send_signal(number)
        assert group.wait(120) == 0
        assert not Path(f"/proc/{child}").exists()
    finally:
        group.kill()


@pytest.mark.parametrize(("used", "told"), [("a: 1", False), ("a: 2", True), (None, True)])
def test_a_dagster_yaml_that_is_not_used_is_told_only_if_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: str | None, told: bool
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "dagster.yaml").write_text("a: 1")
    if used is not None:
        (tmp_path / "home" / "dagster.yaml").write_text(used)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    text = "Found a dagster instance configuration value (%s) in the current folder"
    assert is_worth_telling(logging.makeLogRecord({"msg": text, "args": ("dagster.yaml",)})) is told
    assert is_worth_telling(logging.makeLogRecord({"msg": "Serving"}))


def test_dagster_does_not_call_its_own_command_superseded() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heap_assets.cli.dagster_dev", "dev", "-w", "missing.yaml"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "missing.yaml" in done.stderr
    assert "superseded" not in done.stderr
