"""Erasure outside the lake: files beside the settings that hold identifiers, and tables that are published."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from heap_assets.errors import HeapAssetsError
from heap_assets.identity import blanked_decisions, forget_values
from heap_assets.pipelines.publishing import (
    last_published,
    open_publisher,
    publish_day,
    published_tables,
    unpublished_days,
)
from heap_assets.privacy import PREFIX, Journal, Pair, spelled
from heap_assets.project import Project
from heap_assets.storage import update_file

_log = logging.getLogger("heap_assets.privacy")


def blank_files(project: Project, hashes: Mapping[Pair, str]) -> None:
    """Put tombstones in place of erased values in the files of decisions and of suppressed people; decisions stay."""
    forget_values(project.lake.store, hashes)
    stones = {pair: f"{PREFIX}{stone}" for pair, stone in hashes.items()}
    rules = project.rules_of_settings
    if (decisions := project.settings.identity.decisions) is not None:
        update_file(Path(decisions), lambda data: blanked_decisions(data or b"", Path(decisions), rules, stones))
    if (suppressed := project.settings.identity.suppressed) is not None:
        update_file(Path(suppressed), lambda data: _without_values(project, data or b"", stones))


def _without_values(project: Project, data: bytes, stones: Mapping[Pair, str]) -> bytes:
    lines = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
    rows = list(lines)
    changed = False
    for row in rows:
        kind, value = row.get("identifier_type") or "", row.get("identifier") or ""
        if kind in project.rules_of_settings.types and value:
            stone = stones.get(spelled([(kind, value)], project.rules_of_settings)[0])
            changed |= stone is not None
            row["identifier"] = stone or value
    if not changed:
        return data
    file = io.StringIO()
    writer = csv.DictWriter(file, lines.fieldnames or (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def publish_again(project: Project, journal: Journal) -> dict[str, str]:
    """Load the days anew that were published and have been rewritten.

    Returns what a target still holds and nobody can replace, or why it could not be reached: for the proof.
    """
    unreached: dict[str, str] = {}
    if not project.settings.publish:
        return unreached
    touched = {entry.key.rpartition("/")[0] for entry in journal.entries() if entry}
    for target in project.settings.publish:
        try:
            publisher = open_publisher(project, target)
            for table in published_tables(project, target):
                if not touched & set(table.sources):
                    continue
                published = publisher.published_days(table.publication.table)
                is_whole = table.of is not None and last_published(publisher, table)[1] is not None
                for day in unpublished_days(project, publisher, table):
                    if day in published or is_whole:
                        publish_day(project, publisher, table, day)
                old = published - _days(project, table.sources)
                if old:
                    unreached[table.asset] = (
                        f"{len(old)} days that the lake does not have any more are there: delete them at the target"
                    )
        except HeapAssetsError as error:
            _log.warning("publish.%s: erased rows may still be there: %s", target, error)
            unreached[f"publish/{target}"] = f"could not be loaded anew ({type(error).__name__}): publish it again"
    return unreached


def _days(project: Project, sources: tuple[str, ...]) -> set[date]:
    return {date.fromisoformat(day) for asset in sources for day in project.lake.partitions(asset)}
