"""The status page as HTML: failures first, then freshness, volumes, identity and syncs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from heap_assets import clock
from heap_assets.quality import ALL_PARTITIONS, SIZE_EDGES, StoredResult
from heap_assets.report.charts import bar_chart, line_chart, number, sparkline, strip
from heap_assets.report.collect import Status, collect, outcome
from heap_assets.storage import Lake
from heap_assets.tables import EVENTS

_MARKS = {"pass": "✓ passes", "warn": "! warns", "error": "✕ fails", "unjudged": "– not judged"}
_RUN_COUNTS = ("planned", "sent", "unchanged", "empty", "rejected", "invalid", "held", "withdrawn")


def render(status: Status) -> str:
    """Return the page with style and pictures inside; it loads nothing."""
    return (
        _environment()
        .get_template("status.html.j2")
        .render(
            status=status,
            style=Markup(files("heap_assets.report").joinpath("status.css").read_text()),  # noqa: S704  our own file
            marks=_MARKS,
            whole=ALL_PARTITIONS,
            failing_shown=60,
            runs_shown=12,
            tables_drawn=24,
            run_counts=_RUN_COUNTS,
            run_heads=("Sync", "Day", "Outcome", *(f"#{name.capitalize()}" for name in _RUN_COUNTS)),
            late=sum(result.failed for result in status.freshness),
            people=list(_people(status)),
            strips=list(_strips(status)),
            **_headline(status),
            **_volumes(status),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("heap_assets.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"outcome": outcome, "number": number, "breakable": _breakable, "facts": _facts}
    return environment


def _headline(status: Status) -> dict[str, Any]:
    outcomes = [outcome(result) for result in status.newest]
    errors, warnings, unjudged = (outcomes.count(kind) for kind in ("error", "warn", "unjudged"))
    if not outcomes:
        headline = "Nothing has been judged yet."
    elif not errors and not warnings:
        headline = f"All {len(outcomes) - unjudged} checks pass" + (f", {unjudged} are not judged" if unjudged else ".")
    else:
        headline = f"{errors} of {len(outcomes)} checks fail, {warnings} warn"
        headline += f", {unjudged} are not judged" if unjudged else ""
    tiles = [
        ("people", status.figures.get("profiles")),
        ("known to Heap by identity", status.figures.get("identified")),
        ("on several Heap identities", status.figures.get("duplicated")),
        ("refused links", status.figures.get("conflicts")),
        ("shared values", status.figures.get("shared")),
        ("identifiers of the largest profile", status.figures.get("largest")),
    ]
    return {
        "headline": headline,
        "blocking": sum(result.blocking for result in status.failing if outcome(result) == "error"),
        "tiles": [(name, value) for name, value in tiles if value is not None],
    }


def _people(status: Status) -> Iterator[tuple[str, Markup]]:
    if status.duplicates:
        yield "Duplicates", line_chart(status.duplicates, status.days, "Duplicates by kind over days")
    if status.matches:
        chart = line_chart(status.matches, status.days, "Share of the company's people that Heap knows", share=True)
        yield "People of each system that Heap knows too, by identifier", chart
    if status.cluster_sizes:
        sizes = {_size_name(edge): float(n) for edge, n in status.cluster_sizes.items()}
        yield "Profiles by number of identifiers", bar_chart(sizes, "Profiles by size", "profiles")
    for name, result in status.results.items():
        bars = {str(label): float(value) for label, value in result["bars"].items()}
        title = f"{name.replace('_', ' ')}: {result['title']}"
        yield title, bar_chart(bars, f"Result {name}", str(result["unit"]))
    if status.identity:
        yield "Refused links and shared values", line_chart(status.identity, status.days, "Conflicts over days")


def _size_name(edge: str) -> str:
    least = int(edge)
    after = next((other for other in SIZE_EDGES if other > least), None)
    if after is None:
        return f"{least} and more"
    return str(least) if after == least + 1 else f"{least} to {after - 1}"


def _volumes(status: Status) -> dict[str, Any]:
    largest_first = sorted(status.volumes.items(), key=lambda item: -item[1][max(item[1])])

    def drawn(asset: str, line: Mapping[str, float]) -> tuple[str, Mapping[str, float], Markup]:
        return asset.removeprefix(EVENTS), line, sparkline(line, status.days, f"Rows of {asset} by day")

    return {
        "volumes": [drawn(asset, line) for asset, line in largest_first],
        "newest_volume": max((max(line) for line in status.volumes.values()), default=""),
    }


def _strips(status: Status) -> Iterator[tuple[str, Markup, str]]:
    newest: dict[str, list[str]] = {}
    for result in status.newest:
        newest.setdefault(result.asset, []).append(outcome(result))
    for asset, by_day in status.strips.items():
        outcomes = newest.get(asset, [])
        passed, unjudged = outcomes.count("pass"), outcomes.count("unjudged")
        tally = f"{passed} of {len(outcomes)} pass" + (f", {unjudged} not judged" if unjudged else "")
        yield asset, strip(status.days, by_day, f"Checks of {asset} by day"), tally


def _facts(result: StoredResult) -> str:
    numbers = [f"{name.replace('_', ' ')} {number(value)}" for name, value in result.numbers.items()]
    notes = [f"{name.replace('_', ' ')}: {note}" for name, note in result.notes.items()]
    return ", ".join([*numbers[:6], *notes])


def _breakable(name: str) -> Markup:
    """Let a browser break a long name after a slash or an underscore."""
    return Markup(str(escape(name)).replace("/", "/<wbr>").replace("_", "_<wbr>"))  # noqa: S704  escaped before


def status_page(
    lake: Lake, now: datetime | None = None, days: int = 30, *, remember: bool = False
) -> tuple[str, Status]:
    """Return the status page of the last `days` days as HTML, and what it tells as figures.

    `remember`: see :func:`heap_assets.report.collect.collect`.
    """
    status = collect(lake, now or clock.now(), days, remember=remember)
    return render(status), status


def write_report(lake: Lake, path: Path, *, now: datetime | None = None, days: int = 30) -> Path:
    """Write the status page of the last `days` days to `path`, whole or not at all, and return the path."""
    page, _ = status_page(lake, now, days)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    staging.write_text(page, encoding="utf-8")
    return staging.replace(path)
