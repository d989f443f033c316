"""`catalogue`, `reset`, `rejected` and `usage`: what was landed of Heap's tables."""

from __future__ import annotations

import difflib
from dataclasses import asdict

import click
import polars as pl

from heap_assets.cli.output import (
    COUNT,
    NOT_CONFIRMED,
    CommandGroup,
    json_option,
    print_frame,
    print_json,
    progress,
    records,
    report_option,
)
from heap_assets.errors import SettingsError, SourceError, did_you_mean
from heap_assets.orchestration.code_location import reload_code_locations
from heap_assets.pipelines.catalogue import accept, uncommitted
from heap_assets.pipelines.catalogue import missing as missing_tables
from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.landing import month_quota
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import CATALOGUE_KEY, Project, open_project
from heap_assets.redaction import redact
from heap_assets.sources.heap_connect import (
    files_in_quarantine,
    rows_set_aside,
)
from heap_assets.sources.heap_connect import usage as landed_rows


@click.group(cls=CommandGroup)
def catalogue() -> None:
    """Compare heap_catalogue.yaml with what was landed; accept what is new."""


@catalogue.command("diff", epilog="Status 1: it found something new, or something to be committed.")
@click.option("--file", "as_file", is_flag=True, help="Print the catalogue in use, whole, and nothing more")
@json_option
def catalogue_diff(*, as_file: bool, as_json: bool) -> None:
    """Show landed tables and columns that the catalogue does not know, and what is to be committed.

    Where heap_catalogue.yaml cannot be written, what was taken in is kept in the lake; the patch that is then printed,
    or the file that --file prints, brings it into version control.
    """
    project = open_project()
    if as_file:
        click.echo(project.catalogue.to_yaml(), nl=False)
        return
    with progress("Comparing the catalogue with what was landed"):
        missing = missing_tables(project)
    is_different = bool(missing) or uncommitted(project) is not None
    if as_json:
        tables = [{"table": table, "new": "table", "columns": columns} for table, columns in missing.tables.items()]
        print_json(tables + [{"table": table, "new": "columns", "columns": c} for table, c in missing.columns.items()])
        raise SystemExit(int(is_different))
    for table, columns in missing.tables.items():
        click.echo(f"new table   {table} ({len(columns)} columns)")
    for table, columns in missing.columns.items():
        apart = missing.other_types.get(table, {})
        if plain := [column for column in columns if column not in apart]:
            click.echo(f"new columns {table}: {', '.join(plain)}")
        for column, origin in apart.items():
            click.echo(f"new type    {table}: {origin} came in another type; those values are built as {column}")
    if not missing:
        click.echo("the catalogue knows everything that was landed")
    if not is_exported(project) and project.lake.store.is_missing:
        click.echo(f"nothing was landed: there is no lake in {project.lake.store.url}, or is it not mounted?", err=True)
    _say_uncommitted(project)
    raise SystemExit(int(is_different))


def _say_uncommitted(project: Project) -> None:
    """Print the changes of the catalogue that are in the lake, because its file is read-only, as a patch."""
    text, path = uncommitted(project), project.settings.catalogue
    if text is None:
        return
    current = path.read_text() if path.exists() else ""
    names = f"a/{path.name}" if current else "/dev/null", f"b/{path.name}"
    place = project.lake.store.uri(CATALOGUE_KEY)
    click.echo(f"\n{path} cannot be written: what was taken in is kept in {place}.")
    click.echo("To commit (or: heap-assets catalogue diff --file > heap_catalogue.yaml):\n")
    lines = difflib.unified_diff(current.splitlines(keepends=True), text.splitlines(keepends=True), *names)
    click.echo("".join(lines), nl=False)


@catalogue.command("accept")
@click.argument("tables", nargs=-1, metavar="[TABLE | TABLE.COLUMN]...")
def catalogue_accept(tables: tuple[str, ...]) -> None:
    """Take new tables and columns in (all, or only those named); then reload the code location."""
    project = open_project()
    if not is_exported(project):
        project.require_lake()
    with progress("Comparing the catalogue with what was landed"):
        missing = missing_tables(project)
    if not missing:
        click.echo("the catalogue knows everything that was landed")
        return
    change = accept(project, missing, tables or None)
    shown = reload_code_locations(project.settings.run.ui_url, project.allowed_hosts, seconds=30)
    next_step = "the UI shows the new assets" if shown else "reload the code location in the UI to see the new assets"
    click.echo(f"Wrote {change.uri}: {next_step}; every day they have is then built by itself")


@click.command(epilog=NOT_CONFIRMED)
@click.argument("table")
@click.option("--yes", is_flag=True, help="Do not ask")
def reset(table: str, *, yes: bool) -> None:
    """Forget what was landed of one Heap table, so that its dumps are taken anew."""
    project = open_project()
    if is_exported(project):
        raise SettingsError("heap.source is Heap's export in a warehouse: it has no dumps that could land again")
    landing = project.landing
    dumps = landing.reports().filter(pl.col("state") != "unselected", pl.col("table") != "(manifest)")
    landed_tables = dumps["table"].unique().sort().to_list()
    _require_table(table, landed_tables)
    source = project.source()
    listed = [manifest.dump_id for manifest in source.manifests()]
    current_dumps = landing.index().filter(pl.col("table") == table, "standing")["dump_id"]
    if missing := sorted(set(current_dumps) - set(listed)):
        ids = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise SourceError(
            f"{source.describe()} no longer has the dump{'s' * (len(missing) > 1)} {ids}: rows of {table} that stand "
            "would be lost, so nothing was forgotten"
        )
    if not yes:
        click.confirm("Its dumps will be landed again. Go on?", abort=True)
    count = landing.reset(table)
    click.echo(f"{table}: {count} dumps will land again with the next ticks of the sensor heap_manifests")


@click.command()
@click.argument("table", required=False)
@click.option("--rows", type=COUNT, default=20, show_default=True, help="How many rows to show")
@click.option("--content", is_flag=True, help="Show the rows themselves, as JSON (personal data!)")
@json_option
def rejected(table: str | None, rows: int, content: bool, as_json: bool) -> None:
    """Show what could not be landed: files in quarantine, and rows with an id or a time that cannot be read."""
    project = open_project()
    project.require_lake()
    landing = project.landing
    if table is not None:
        _require_table(table, landing.reports()["table"].unique().sort().to_list())
    with progress("Reading what was set aside"):
        files, aside = files_in_quarantine(landing, table), rows_set_aside(landing, table)
    shown = aside.head(rows) if content else _redacted(aside.drop("content").head(rows))
    if as_json:
        listed = [{"rejected": "file", **record} for record in records(_redacted(files))]
        print_json(listed + [{"rejected": "row", **record} for record in records(shown)])
        return
    if files.height:
        click.echo("Files in quarantine: tried again by themselves, at once if they change\n")
        print_frame(_redacted(files))
        click.echo()
    click.echo(f"{aside.height:,} rows set aside")
    if aside.height:
        click.echo()
        print_frame(aside.group_by("table", "reason").len("rows").sort("table", "rows", descending=[False, True]))
        click.echo()
        print_frame(shown)


@click.command()
@click.option("--days", type=COUNT, default=31, show_default=True, help="How many days to show, newest first")
@report_option
def usage(days: int, as_json: bool) -> None:
    """Show the month's rows against the plan's quota, and rows by day; what landed again counts again."""
    project = open_project()
    project.require_lake()
    with progress("Counting rows"):
        quota_settings, month = project.settings.heap.quota, month_quota(project)
        by_day = landed_rows(project.landing).sort("day", descending=True).head(days)
    if as_json:
        print_json({**asdict(month), "share": month.share, "days": records(by_day)})
        return
    of = "rows, without a limit" if month.limit is None else f"of {month.limit:,} rows ({month.share:.1%})"
    click.echo(f"{month.month}  {month.rows:,} {of}")
    if month.limit is not None:
        consequence = (
            f"the rest waits until {month.resumes}"
            if quota_settings.stop
            else "landing goes on, as heap.quota.stop is not set"
        )
        click.echo(f"         warned at {thresholds(project).quota:.0%}; at the limit {consequence}")
    if by_day.height:
        click.echo()
        print_frame(by_day.rename({"free": "first seven days"}))


def _redacted(frame: pl.DataFrame) -> pl.DataFrame:
    """Blank addresses and secrets in texts: files may be called after anybody."""
    return frame.with_columns(pl.col(pl.String).map_elements(redact, pl.String))


def _require_table(table: str, tables: list[str]) -> None:
    if table not in tables:
        listed, hint = ", ".join(tables) or "none", did_you_mean(table, tables)
        raise SettingsError(f"no dump that landed has a table {table!r}. Tables: {listed}.{hint}")
