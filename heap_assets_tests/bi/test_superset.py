"""Superset's own importer takes the files, and takes them twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from heap_assets.bi import TOOLS
from heap_assets_tests.bi.test_files import EVENTS, LAYER, PEOPLE
from heap_assets_tests.environments import environment


def test_superset_imports_the_files_and_updates_them(tmp_path: Path) -> None:
    venv = environment("superset", "apache-superset>=6.1,<7", "flask-caching<2.4", "cachetools", "psycopg2-binary")
    for name, text in TOOLS["superset"](LAYER):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("duckdb://", "postgresql://127.0.0.1:9/none"))
    command = [str(venv / "bin" / "python"), str(Path(__file__).with_name("superset_import.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    imported = json.loads(done.stdout.splitlines()[-1])
    joined = len(EVENTS.columns) + len(PEOPLE.columns)
    assert imported == {
        "databases": 1,
        "tables": {"visits": [joined, 2, True], "people": [len(PEOPLE.columns), 2, True]},
    }
