"""What an installation costs before the demo says anything: with pip and everything at once, and with `make install`.

    make bench-install

Clones the repository as it is committed, twice, and installs each into a new virtual environment with empty caches:
"before" with pip and the tools of the tests, as `make demo` did until uv; "now" with `make install`. Then starts the
demo and stops it after its first line: whatever was not compiled while it was installed is compiled there. Prints one
JSON line of wall and CPU seconds (of all processes), and "now" as a share of "before".
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "HEAP_ASSETS_SETTINGS", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
Cost = dict[str, float]


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="Of which the environments are made")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as folder:
        before = installed(Path(folder) / "before", install_as_before, python)
        now = installed(Path(folder) / "now", install_as_now, python)
    ratios = {step: {unit: round(now[step][unit] / before[step][unit], 3) for unit in now[step]} for step in now}
    print(json.dumps({"before": before, "now": now, "now_to_before": ratios}))


def installed(folder: Path, install: Callable[[Path, str, dict[str, str]], None], python: str) -> dict[str, Cost]:
    """Return what installing a new clone took, what the demo's first line took then, and both."""
    folder.mkdir()
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    caches = {name: str(folder / name) for name in ("PIP_CACHE_DIR", "UV_CACHE_DIR", "XDG_CACHE_HOME")}
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    environment = {**kept, **caches, "DAGSTER_HOME": str(folder / "home"), "HEAP_ASSETS_DEMO": str(folder / "demo")}
    steps = {
        "install": cost(lambda: install(clone, python, environment)),
        "first_line": cost(lambda: first_line(clone, environment)),
    }
    both = {unit: round(sum(step[unit] for step in steps.values()), 1) for unit in ("wall", "cpu")}
    return {**steps, "both": both}


def install_as_before(clone: Path, python: str, environment: dict[str, str]) -> None:
    """Install with pip, the tools of the tests as well."""
    subprocess.run([python, "-m", "venv", ".venv"], cwd=clone, env=environment, check=True)
    command = [".venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    subprocess.run([*command, "--editable", ".[dev]"], cwd=clone, env=environment, check=True, stderr=subprocess.PIPE)


def install_as_now(clone: Path, python: str, environment: dict[str, str]) -> None:
    """Install with `make install`."""
    command = ["make", "--silent", "install", f"PYTHON={python}"]
    subprocess.run(command, cwd=clone, env=environment, check=True, stdout=sys.stderr)


def first_line(clone: Path, environment: dict[str, str]) -> None:
    """Start the demo and interrupt it after its first line."""
    with subprocess.Popen(
        [".venv/bin/heap-assets", "demo"], cwd=clone, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        assert demo.stderr is not None
        line = demo.stdout.readline()
        os.killpg(demo.pid, signal.SIGINT)
        assert b"Wrote a company" in line, demo.stderr.read().decode()


def cost(action: Callable[[], None]) -> Cost:
    """Return wall seconds, and CPU seconds of all processes that were started and have ended."""
    started, used = time.monotonic(), _cpu_of_children()
    action()
    return {"wall": round(time.monotonic() - started, 1), "cpu": round(_cpu_of_children() - used, 1)}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
