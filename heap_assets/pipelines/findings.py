"""What looks like personal data in the newest day of every table: by value, by name, and by the rules of masking."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Final

import polars as pl

from heap_assets import clock
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import Project, mapping_of, would_mask
from heap_assets.quality import personal_columns, sample_of
from heap_assets.tables import FINDINGS, USERS, heap_asset, is_heap_table, warehouse_asset, warehouse_table

SCHEMA: Final = pl.Schema(
    {
        "table": pl.String(),
        "day": pl.Date(),
        "column": pl.String(),
        "kind": pl.String(),
        "rule": pl.String(),
        "action": pl.String(),
        "values": pl.Int64(),
        "rows_searched": pl.Int64(),
        "share": pl.Float64(),
        "settled_by": pl.String(),
    }
)
"""A row for each table, column and rule; no values."""


def searched_tables(project: Project) -> list[str]:
    """Return the assets whose rows come from outside: of Heap, of the inbox, of sources."""
    return [
        *(heap_asset(table) for table in project.event_tables),
        USERS,
        *project.message_tables,
        *(warehouse_asset(name) for name in project.settings.read_tables),
    ]


def newest_samples(project: Project) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield table, day and a sample of its rows (`checks.personal_rows`), of the newest day of each that has one."""
    for asset in searched_tables(project):
        newest = project.lake.newest_partition(asset, clock.today())
        if newest is not None:
            rows = project.lake.scan(asset, str(newest))
            yield asset, str(newest), sample_of(rows, thresholds(project).personal_rows)


def findings(project: Project) -> pl.DataFrame:
    """Return what looks like personal data: :data:`SCHEMA`, in the order of tables. Writes nothing.

    `settled_by` says why it is there: the column identifies people, the catalogue or `privacy.personal` names it. What
    a rule of masking is about is never settled: it came before the rule.
    """
    allowed = thresholds(project).personal_share
    rows: list[dict[str, Any]] = []
    for asset, day, sample in newest_samples(project):
        on_purpose = _on_purpose(project, asset, sample.columns)
        common = {"table": asset, "day": date.fromisoformat(day), "rows_searched": sample.height}
        for column, kind, by, values, share in personal_columns(sample, allowed):
            hit = {"kind": kind if by == "value" else "", "rule": f"by {by}", "action": ""}
            counts = {"values": values, "share": share, "settled_by": on_purpose.get(column, "")}
            rows.append({**common, "column": column, **hit, **counts})
        for number, action, column, cells in would_mask(project, asset, sample):
            hit = {"kind": "", "rule": f"privacy.rules[{number}]", "action": action}
            counts = {"values": cells, "share": round(cells / sample.height, 4), "settled_by": ""}
            rows.append({**common, "column": column, **hit, **counts})
    return pl.DataFrame(rows, schema=SCHEMA)


def write_findings(project: Project) -> pl.DataFrame:
    """Write :func:`findings` as the table `privacy/findings` of the lake; returns it."""
    table = findings(project)
    project.lake.write(FINDINGS, None, table)
    return table


def _on_purpose(project: Project, asset: str, columns: list[str]) -> dict[str, str]:
    """Return column to what says that it holds personal data."""
    reasons: dict[str, str] = {}
    for pattern, names in project.settings.privacy.personal.items():
        if fnmatchcase(asset, pattern) or fnmatchcase(warehouse_table(asset), pattern):
            chosen = [column for column in columns if any(fnmatchcase(column, name) for name in names)]
            reasons |= dict.fromkeys(chosen, "privacy.personal")
    if is_heap_table(asset) and (table := project.catalogue.tables.get(project.heap_tables[asset])) is not None:
        reasons |= {name: "catalogue" for name, column in table.columns.items() if column.pii}
    mapped = mapping_of(project, asset)
    identifying = [column for mapping in (mapped.mappings if mapped else ()) for column in mapping.columns]
    return reasons | dict.fromkeys(identifying, "identifier")
