"""The commands that print the figures of the documentation can be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
COMMANDS = sorted(path.name for path in FOLDER.glob("*.py") if "argparse.ArgumentParser(" in path.read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_benchmark_starts(command: str) -> None:
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, str(FOLDER / command), "--help"], env=elsewhere, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
