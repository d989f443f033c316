"""Random tables come out of landing and building as they went in, each in a process that may crash alone.

HEAP_ASSETS_RANDOM_TABLES says how many; from 100 on (`make test-long`: 2,000) each has a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TABLES = int(os.environ.get("HEAP_ASSETS_RANDOM_TABLES", "12"))
SECONDS = 300
SCRIPT = Path(__file__).with_name("random_tables.py")


def land(folder: Path, first: int, count: int) -> str:
    """Return what went wrong with these seeds, or nothing."""
    own = folder / f"from-{first}"
    own.mkdir()
    command = [sys.executable, SCRIPT, own, str(first), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * count, check=False)
    if done.returncode != 0:
        return f"seed {(own / 'seed').read_text()} ended with {done.returncode}: {done.stderr[-2000:]}"
    wrong = json.loads(done.stdout)["wrong"]
    return f"seeds {wrong} came out otherwise" if wrong else ""


def test_random_tables_come_out_as_they_went_in(tmp_path: Path) -> None:
    each = 1 if TABLES >= 100 else -(-TABLES // 2)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(lambda first: land(tmp_path, first, min(each, TABLES - first)), range(0, TABLES, each)))
    assert [one for one in told if one] == []
