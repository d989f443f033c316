"""`heap-assets publish`: put what is new into the warehouses of the settings, or say what would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from fnmatch import fnmatchcase

import click

from heap_assets.cli.output import Record, json_option, print_json, progress
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.pipelines.publishing import (
    PublishedTable,
    due_days,
    make_views,
    open_publisher,
    preview_day,
    publish_day,
    published_tables,
    read_only_role,
)
from heap_assets.project import Project, open_project
from heap_assets.sources.warehouse import Publisher, format_counts, format_renames


@click.command(epilog="Status 1: a table or the views could not be published; the others were.")
@click.option("--target", "targets", multiple=True, help="Of the section `publish:` [default: all]")
@click.option("--asset", "assets", multiple=True, help="Asset or table, patterns as in a shell [default: all]")
@click.option("--day", "days", multiple=True, type=click.DateTime(["%Y-%m-%d"]), help="[default: all that are due]")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded and what would change; load nothing")
@click.option("--force", is_flag=True, help="Load also what was loaded already; needs --day")
@click.option("--read-only-role", "role", metavar="NAME", help="Print SQL for a role that may only read; no load")
@click.option("--execute", is_flag=True, help="With --read-only-role: run that SQL as the user who publishes")
@json_option
def publish(
    targets: Sequence[str],
    assets: Sequence[str],
    days: Sequence[datetime],
    dry_run: bool,
    force: bool,
    role: str | None,
    execute: bool,
    as_json: bool,
) -> None:
    """Publish to the warehouses of the settings: every day that is built and was not published as it now is."""
    if force and not days:
        raise click.UsageError("--force needs --day: name the days to load again")
    if execute and role is None:
        raise click.UsageError("--execute needs --read-only-role: it runs that role's SQL")
    if role is not None and (assets or days or dry_run):
        raise click.UsageError("--read-only-role publishes nothing: it goes with --target and --execute alone")
    project = open_project()
    configured = project.settings.publish
    if unknown := [name for name in targets if name not in configured]:
        raise SettingsError(f"publish has no target {unknown[0]!r}. Targets: {', '.join(configured) or 'none'}")
    if not configured:
        raise SettingsError("there is no `publish:` section in the settings: docs/warehouse.md shows one")
    if role is not None:
        _make_role(project, targets or list(configured), role, execute=execute, as_json=as_json)
        return
    outcomes = []
    for target in targets or configured:
        publisher = open_publisher(project, target)
        if not as_json:
            click.echo(f"{target} ({publisher.target})")
        tables = [table for table in published_tables(project, target) if _is_chosen(table, assets)]
        for outcome in _outcomes(project, publisher, target, tables, [day.date() for day in days], dry_run, force):
            outcomes.append(outcome)
            if not as_json:
                click.echo(f"  {outcome['table']:<32} {_text(outcome)}")
    if as_json:
        print_json(outcomes)
    raise SystemExit(1 if any(outcome["status"] == "failed" for outcome in outcomes) else 0)


def _make_role(project: Project, targets: Sequence[str], role: str, *, execute: bool, as_json: bool) -> None:
    rows = [
        {"target": target, "statement": statement, "executed": execute}
        for target in targets
        for statement in read_only_role(project, target, role, execute=execute)
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['statement']};")
    outcome = "was run; the role has no password yet" if execute else "was not run: --execute runs it"
    click.echo(f"This {outcome}.", err=True)


def _outcomes(
    project: Project,
    publisher: Publisher,
    target: str,
    tables: Sequence[PublishedTable],
    days: Sequence[date],
    dry_run: bool,
    force: bool,
) -> Iterator[Record]:
    """Publish (or preview) one table after the other, and the views; yield what became of each."""
    for table in tables:
        outcome: Record = {"target": target, "table": table.publication.table}
        try:
            with progress(f"{target}: {table.publication.table}"):
                chosen = list(days) or due_days(project, publisher, table)
                outcome |= (
                    _previewed(project, publisher, table, chosen)
                    if dry_run
                    else _loaded(project, publisher, table, chosen, force)
                )
        except HeapAssetsError as error:
            outcome |= {"status": "failed", "error": str(error)}
        yield outcome
    if dry_run:
        return
    try:
        with progress(f"{target}: views"):
            views = make_views(project, publisher, target)
        if views:
            yield {"target": target, "table": "views", "status": "made", "views": list(views)}
    except HeapAssetsError as error:
        yield {"target": target, "table": "views", "status": "failed", "error": str(error)}


def _loaded(project: Project, publisher: Publisher, table: PublishedTable, days: Iterable[date], force: bool) -> Record:
    outcomes = [publish_day(project, publisher, table, day, force=force) for day in days]
    loaded = [outcome for outcome in outcomes if outcome.status == "loaded"]
    if not loaded:
        return {"status": "unchanged"}
    lost: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for outcome in loaded:
        lost.update(outcome.lost)
        renamed |= outcome.renamed
    return {
        "status": "loaded",
        "days": len(loaded),
        "rows": sum(outcome.rows for outcome in loaded),
        "bytes": sum(outcome.bytes for outcome in loaded),
        "added_columns": sorted({name for outcome in loaded for name in outcome.added_columns}),
        "renamed": renamed,
        "lost": lost,
    }


def _previewed(project: Project, publisher: Publisher, table: PublishedTable, days: Sequence[date]) -> Record:
    if not days:
        return {"status": "unchanged"}
    preview = preview_day(project, publisher, table, days[-1])
    return {
        "status": "would be loaded",
        "days": len(days),
        "first_day": days[0],
        "last_day": days[-1],
        "creates": preview.creates,
        "added_columns": list(preview.added_columns),
        "widened_columns": list(preview.widened_columns),
        "renamed": dict(preview.renamed),
    }


def _text(outcome: Record) -> str:
    status = outcome["status"]
    if status == "failed":
        return f"FAILED {outcome['error']}"
    if status == "made":
        return ", ".join(outcome["views"])
    if status == "loaded":
        notes = {
            "new": ", ".join(outcome["added_columns"]),
            "renamed": format_renames(outcome["renamed"]),
            "values that the target cannot hold": format_counts(outcome["lost"]),
        }
        summary = f"{outcome['days']} days loaded, {outcome['rows']:,} rows, {outcome['bytes']:,} bytes"
        return ", ".join([summary, *(f"{label}: {text}" for label, text in notes.items() if text)])
    if status == "would be loaded":
        summary = f"{outcome['days']} days would be loaded ({outcome['first_day']} to {outcome['last_day']})"
        renamed = format_renames(outcome["renamed"]) if outcome["renamed"] else ""
        if outcome["creates"]:
            return f"{summary}; the table would be made{f'; columns renamed: {renamed}' if renamed else ''}"
        changes = {
            "added": ", ".join(outcome["added_columns"]),
            "widened": ", ".join(outcome["widened_columns"]),
            "renamed": renamed,
        }
        return "; ".join([summary, *(f"columns {label}: {names}" for label, names in changes.items() if names)])
    return str(status)


def _is_chosen(table: PublishedTable, patterns: Sequence[str]) -> bool:
    names = (table.publication.table, table.asset, *(table.sources if len(table.sources) == 1 else ()))
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
