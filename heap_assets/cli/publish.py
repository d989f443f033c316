"""`heap-assets publish`: put what is new into the warehouses of the settings, or say what would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from fnmatch import fnmatchcase

import click

from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.pipelines.publishing import (
    PublishedTable,
    due_days,
    make_views,
    open_publisher,
    preview_day,
    publish_day,
    published_tables,
)
from heap_assets.project import Project, open_project
from heap_assets.sources.warehouse import Publisher, told_counts, told_names


@click.command()
@click.option("--target", "targets", multiple=True, help="Of the section `publish:` [default: all]")
@click.option("--asset", "assets", multiple=True, help="Asset or table, patterns as in a shell [default: all]")
@click.option("--day", "days", multiple=True, type=click.DateTime(["%Y-%m-%d"]), help="[default: all that are due]")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded and what would change; load nothing")
@click.option("--force", is_flag=True, help="Load also what was loaded already; needs --day")
def publish(
    targets: Sequence[str], assets: Sequence[str], days: Sequence[datetime], dry_run: bool, force: bool
) -> None:
    """Publish to the warehouses of the settings: every day that is built and was not published as it now is."""
    if force and not days:
        raise click.UsageError("--force needs --day: name the days to load again")
    project = open_project()
    known = project.settings.publish
    if unknown := [name for name in targets if name not in known]:
        raise SettingsError(f"publish has no target {unknown[0]!r}. Targets: {', '.join(known) or 'none'}")
    if not known:
        raise SettingsError("there is no `publish:` section in the settings: docs/warehouse.md shows one")
    failed = 0
    for target in targets or known:
        failed += _publish(project, target, assets, [day.date() for day in days], dry_run=dry_run, force=force)
    raise SystemExit(1 if failed else 0)


def _publish(
    project: Project, target: str, assets: Sequence[str], days: Sequence[date], *, dry_run: bool, force: bool
) -> int:
    publisher = open_publisher(project, target)
    tables = [table for table in published_tables(project, target) if _is_chosen(table, assets)]
    click.echo(f"{target} ({publisher.target})")
    failed = 0
    for table in tables:
        try:
            chosen = list(days) or due_days(project, publisher, table)
            outcome = (_previewed if dry_run else _loaded)(project, publisher, table, chosen, force)
        except HeapAssetsError as error:
            failed, outcome = failed + 1, f"FAILED {error}"
        click.echo(f"  {table.publication.table:<32} {outcome}")
    try:
        if not dry_run and (made := make_views(project, publisher, target)):
            click.echo(f"  {'views':<32} {', '.join(made)}")
    except HeapAssetsError as error:
        failed += 1
        click.echo(f"  {'views':<32} FAILED {error}")
    return failed


def _loaded(project: Project, publisher: Publisher, table: PublishedTable, days: Iterable[date], force: bool) -> str:
    done = [publish_day(project, publisher, table, day, force=force) for day in days]
    loaded = [outcome for outcome in done if outcome.status == "loaded"]
    if not loaded:
        return "unchanged"
    rows, size = sum(outcome.rows for outcome in loaded), sum(outcome.bytes for outcome in loaded)
    added = sorted({name for outcome in loaded for name in outcome.added_columns})
    lost: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for outcome in loaded:
        lost.update(outcome.lost)
        renamed |= outcome.renamed
    notes = {
        "new": ", ".join(added),
        "renamed": told_names(renamed),
        "values that the target cannot hold": told_counts(lost),
    }
    summary = f"{len(loaded)} days loaded, {rows:,} rows, {size:,} bytes"
    return ", ".join([summary, *(f"{what}: {text}" for what, text in notes.items() if text)])


def _previewed(project: Project, publisher: Publisher, table: PublishedTable, days: Sequence[date], _: bool) -> str:
    if not days:
        return "unchanged"
    preview = preview_day(project, publisher, table, days[-1])
    summary = f"{len(days)} days would be loaded ({days[0]} to {days[-1]})"
    if preview.creates:
        renamed = f"; columns renamed: {told_names(preview.renamed)}" if preview.renamed else ""
        return f"{summary}; the table would be made{renamed}"
    changes = {
        "added": preview.added_columns,
        "widened": preview.widened_columns,
        "renamed": [told_names(preview.renamed)] if preview.renamed else [],
    }
    return "; ".join([summary, *(f"columns {what}: {', '.join(names)}" for what, names in changes.items() if names)])


def _is_chosen(table: PublishedTable, patterns: Sequence[str]) -> bool:
    names = (table.publication.table, table.asset, *(table.sources if len(table.sources) == 1 else ()))
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
