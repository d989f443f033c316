"""Write the status page of a lake to a file."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from heap_assets import clock
from heap_assets.report.collect import Status, collect
from heap_assets.report.page import render
from heap_assets.storage import Lake


def status_page(lake: Lake, now: datetime | None = None, days: int = 30) -> tuple[str, Status]:
    """Return the status page of the last `days` days as HTML, and what it tells as figures."""
    status = collect(lake, now or clock.now(), days)
    return render(status), status


def write_report(lake: Lake, path: Path, *, now: datetime | None = None, days: int = 30) -> Path:
    """Write the status page of the last `days` days to `path`, whole or not at all, and return the path."""
    page, _ = status_page(lake, now, days)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    staging.write_text(page, encoding="utf-8")
    return staging.replace(path)
