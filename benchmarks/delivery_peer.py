"""The peer of the delivery benchmark: drt-core from PyPI in an environment of its own, DuckDB to the local server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

ENVIRONMENT = Path(__file__).parent.parent / ".venvs" / "drt"
REQUIREMENTS = ("drt-core==1.2.1", "duckdb>=1.4")

_PROJECT = "name: bench\nversion: '0.1'\nprofile: default\n"
_SYNC = """\
name: heap_users
model: SELECT * FROM users
destination:
  type: rest_api
  url: {url}/api/add_user_properties
  headers: {{Content-Type: application/json}}
  body_mode: batch
  batch_template: |
    {{"app_id":"11","users":[{{% for r in rows %}}
    {{"identity":{{{{ r.key|tojson }}}},"properties":{{"Plan":{{{{ r.plan|tojson }}}},"Stage":{{{{ r.stage|tojson }}}},
    "MRR":{{{{ r.mrr|tojson }}}},"Seats":{{{{ r.seats|tojson }}}}}}}}{{{{ "," if not loop.last }}}}{{% endfor %}}]}}
sync:
  mode: full
  batch_size: {batch}
  on_error: skip
  rate_limit: {{requests_per_second: 100000}}
"""


def install() -> None:
    """Create the peer's environment if there is none."""
    if (ENVIRONMENT / "bin" / "drt").exists():
        return
    venv.create(ENVIRONMENT, with_pip=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "-q", *REQUIREMENTS]
    subprocess.run(pip, check=True, stdout=sys.stderr)


def project(folder: Path, rows: Path, url: str, batch: int) -> Path:
    """Write a project that sends the rows of a Parquet file."""
    (folder / ".drt").mkdir(parents=True)
    (folder / "syncs").mkdir()
    database = folder / "users.duckdb"
    (folder / ".drt" / "profiles.yml").write_text(f"default:\n  type: duckdb\n  database: {database}\n")
    (folder / "drt_project.yml").write_text(_PROJECT)
    (folder / "syncs" / "heap_users.yml").write_text(_SYNC.format(url=url, batch=batch))
    load = f"import duckdb; c = duckdb.connect({str(database)!r}); c.execute(\"CREATE TABLE users AS FROM '{rows}'\")"
    subprocess.run([str(ENVIRONMENT / "bin" / "python"), "-c", load], check=True)
    return folder


def start(folder: Path) -> subprocess.Popen[str]:
    """Start one run."""
    environment = {**os.environ, "HOME": str(folder), "NO_COLOR": "1"}
    command = [str(ENVIRONMENT / "bin" / "drt"), "run"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path) -> tuple[float, float]:
    """Run to the end; returns the seconds it reports for the sync, and wall seconds of the process."""
    begun = time.perf_counter()
    process = start(folder)
    said, _ = process.communicate(timeout=600)
    wall = time.perf_counter() - begun
    if process.returncode != 0:
        raise RuntimeError(f"drt failed:\n{said[-2000:]}")
    reported = re.search(r"([\d.]+)\s*s\b", said)
    return float(reported.group(1)) if reported else wall, wall
