"""The pictures in docs/images: the sample company in Dagster's UI, and its status page, in headless Chromium.

    make screenshots

Makes the company in a folder of its own, lets `heap-assets demo` run on it, opens each page and writes its picture.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ui
import ui_data

IMAGES = ui_data.ROOT / "docs" / "images"
SETTLED_MS = 5_000
PAGES: dict[str, tuple[str, tuple[int, int]]] = {
    "begin": ("/assets/status/report", (1500, 1100)),
    "lineage": ("/asset-groups", (1500, 950)),
    "event_table": ("/assets/heap/events/sign_up", (1500, 1500)),
    "partitions": ("/assets/heap/events/sign_up?view=partitions", (1500, 1000)),
    "failed_check": ("/assets/heap/events/invite_teammate?view=checks&checkDetail=no_personal_data", (1500, 950)),
    "sync_columns": ("/assets/sync/heap_user_properties", (1500, 780)),
    "automation": ("/automation", (1500, 1100)),
}
"""Picture to the page of the UI that it shows, and the width and height of the window."""
REPORT, REPORT_SIZE = "report", (1200, 1400)


def main() -> None:
    """Write every picture, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"Of {', '.join([*PAGES, REPORT])}; all unless given")
    parser.add_argument("--people", type=int, default=1200)
    chosen = parser.parse_args()
    names = chosen.names or [*PAGES, REPORT]
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as made:
        folder = Path(made)
        _company(folder, chosen.people)
        with ui.webserver(folder) as url:
            _pictures(url, folder / f"{REPORT}.html", names)


def _company(folder: Path, people: int) -> None:
    """Run the demo in a folder, with a Dagster home of its own, and write its status page."""
    (folder / "home").mkdir()
    shutil.copy(ui_data.ROOT / "dagster.yaml", folder / "home")
    for name in ("heap_assets.yaml", "heap_catalogue.yaml"):
        shutil.copy(ui_data.ROOT / name, folder)
    commands = (
        ["demo", "--people", str(people), "--folder", str(folder / "demo")],
        ["report", "--out", str(folder / f"{REPORT}.html")],
    )
    for command in commands:
        arguments = [sys.executable, "-m", "heap_assets.cli", *command]
        subprocess.run(arguments, check=True, cwd=folder, env=ui.environment(folder))
    status = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "heap_assets.definitions", "--select"]
    subprocess.run([*status, 'key:"status/report"'], check=True, cwd=folder, env=ui.environment(folder),
                   capture_output=True)  # fmt: skip


def _pictures(url: str, report: Path, names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    addresses = {name: (f"{url}{path}", size) for name, (path, size) in PAGES.items()}
    addresses[REPORT] = (report.as_uri(), REPORT_SIZE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=ui.CHROMIUM, args=ui.ARGUMENTS)
        for name in names:
            _picture(browser, *addresses[name], IMAGES / f"{name}.png")
        browser.close()


def _picture(browser: Any, address: str, size: tuple[int, int], file: Path) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=str(file))
    context.close()
    print(f"Wrote {file.relative_to(ui_data.ROOT)}", flush=True)


if __name__ == "__main__":
    main()
