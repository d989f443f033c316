"""How long the UI keeps one waiting with many event tables and years of days: definitions, and one table's page.

    make bench-ui

Writes a Dagster home with TABLES event tables and YEARS years of daily materializations in bulk, starts Dagster's
webserver on it, and opens the page of one table in headless Chromium. A page counts as open when its grid of partitions
says how many are materialized. Prints one JSON line; `--folder` keeps what was written for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ui_data

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
LOADING = """
import json, time
started = time.monotonic()
import dagster, polars
imported = time.monotonic()
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.project.project import open_project
ours = time.monotonic()
assets = len(build_definitions(open_project()).get_repository_def().asset_graph.get_all_asset_keys())
done = time.monotonic()
print(json.dumps({"assets": assets, "seconds_import_dagster": round(imported - started, 2),
                  "seconds_import": round(ours - imported, 2), "seconds_definitions": round(done - ours, 2)}))
"""


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--years", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Keep the home here, and use it again")
    parser.add_argument("--prepare", action="store_true", help="Only write the home")
    chosen = parser.parse_args()
    with _folder(chosen.folder) as folder:
        days = ui_data.days_until_today(chosen.years)
        written = prepare(folder, chosen.tables, days)
        if chosen.prepare:
            return
        result = {"tables": chosen.tables, "days": len(days), "materializations": written, **loading(folder)}
        with webserver(folder) as url:
            result |= pages(url, days, chosen.repeat)
        print(json.dumps(result))


def prepare(folder: Path, tables: int, days: list[Any]) -> int:
    """Write the home unless it is there; return the number of materializations."""
    counted = folder / "written.json"
    ui_data.write_settings(folder, tables, days[0])
    if not counted.exists():
        home = folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        shutil.copy(ui_data.ROOT / "dagster.yaml", home / "dagster.yaml")
        counted.write_text(json.dumps(ui_data.write_history(home, tables, days)))
    return int(json.loads(counted.read_text()))


def loading(folder: Path) -> dict[str, Any]:
    """Load the definitions in a process of its own, as every worker does; the best of three."""
    runs = []
    for _ in range(3):
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOADING],
            env=environment(folder), cwd=ui_data.ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        runs.append(json.loads(told.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["seconds_definitions"])


def pages(url: str, days: list[Any], repeat: int) -> dict[str, float]:
    """Open a table's pages: each time in a browser without a cache, the server warm but for the first time."""
    from playwright.sync_api import sync_playwright

    asset = f"{url}/assets/heap/events/{ui_data.table_name(0)}"
    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        partitions = [
            _opened(browser, f"{asset}?view=partitions", f"Materialized ({len(days)})") for _ in range(repeat + 1)
        ]
        overview = [_opened(browser, asset, str(days[-1])) for _ in range(repeat)]
        browser.close()
    found["seconds_partitions_first"] = partitions[0]
    found["seconds_partitions_median"] = round(statistics.median(partitions[1:]), 2)
    found["seconds_overview_median"] = round(statistics.median(overview), 2)
    return found


def _opened(browser: Any, address: str, told: str) -> float:
    """Return the seconds until a page says something; the browser's cache is empty, as for a newcomer."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    started = time.monotonic()
    page.goto(address, wait_until="commit")
    page.get_by_text(told).first.wait_for(timeout=60_000)
    seconds = time.monotonic() - started
    context.close()
    return round(seconds, 2)


@contextmanager
def webserver(folder: Path) -> Iterator[str]:
    """Run Dagster's webserver on the home until the block ends; ready when it has loaded the definitions."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "webserver.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_webserver", "-m", "heap_assets.definitions", "-p", str(port)],
        env=environment(folder), cwd=ui_data.ROOT, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}", process, folder / "webserver.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + 180
    query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            if httpx.post(f"{url}/graphql", json=query, timeout=30, trust_env=False).json()["data"]:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise SystemExit(f"the webserver did not start:\n{log.read_text(errors='replace')[-2000:]}")


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of everything that loads the definitions."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(folder / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "HEAP_ASSETS_SETTINGS": str(folder / "heap_assets.yaml"),
        "HEAP_ASSETS_DEMO": str(folder / "demo"),
    }


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="heap-assets-ui-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
