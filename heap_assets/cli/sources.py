"""`preflight`, `discover`, `browse`, `catalogue` and `reset`: the sources, before and while they are used."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import click
import polars as pl
from obstore.exceptions import BaseError

from heap_assets.cli.groups import COUNT, CommandGroup
from heap_assets.cli.output import (
    NOT_CONFIRMED,
    Record,
    json_option,
    print_json,
    print_rows,
    progress,
    records,
    report_option,
)
from heap_assets.errors import SettingsError, SourceError
from heap_assets.orchestration.code_location import reload_code_locations
from heap_assets.pipelines.catalogue import accept, first_day_of_source, uncommitted
from heap_assets.pipelines.catalogue import missing as missing_tables
from heap_assets.pipelines.exports import is_exported, open_export
from heap_assets.pipelines.landing import month_quota
from heap_assets.pipelines.publishing import open_publisher
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import CATALOGUE_KEY, Project, open_project, s3_access
from heap_assets.redaction import redact
from heap_assets.sources.heap_connect import (
    Selection,
    caller_of,
    files_in_quarantine,
    read_policy,
    rows_set_aside,
    trust_policy,
)
from heap_assets.sources.heap_connect import discover as discover_source
from heap_assets.sources.heap_connect import preflight as preflight_source
from heap_assets.sources.heap_connect import usage as landed_rows
from heap_assets.sources.warehouse import (
    SAMPLE_ROWS,
    AccessError,
    Permission,
    datasets,
    declare_yaml,
    describe,
    inspect_table,
    propose,
    propose_yaml,
    tables_of,
)
from heap_assets.storage import Store, state_keys
from heap_assets.tables import WAREHOUSE_SOURCE, source_title, warehouse_table


@click.command(epilog="Status 1: a connection or a permission failed.")
@click.option("--policy", is_flag=True, help="Print the IAM policy that reading needs, and nothing more")
@click.option("--trust", metavar="PRINCIPAL_ARN", help="Print the trust policy for a role that this principal assumes")
@json_option
def preflight(policy: bool, trust: str | None, as_json: bool) -> None:
    """Try every connection and permission, one result each; nothing stays written."""
    import json

    project = open_project()
    source = project.settings.heap.source
    if policy or trust:
        if source.kind != "s3":
            raise click.UsageError("heap.source is not s3")
        external = source.external_id.get_secret_value() if source.external_id else "choose-an-external-id"
        document = read_policy(source.bucket) if policy else trust_policy(str(trust), external)
        click.echo(json.dumps(document, indent=2))
        return
    results = []
    tries = _tries(project)
    while True:
        with progress("Trying connections and permissions"):
            result = next(tries, None)
        if result is None:
            break
        results.append(result)
        if not as_json:
            _say(result)
    if as_json:
        print_json(asdict(result) for result in results)
    raise SystemExit(0 if all(result.passed for result in results) else 1)


def _tries(project: Project) -> Iterator[Permission]:
    """Try one connection or permission after the other."""
    source = project.settings.heap.source
    access = s3_access(source) if source.kind == "s3" else None
    yield from _of("lake", [_lake(project.lake.store)])
    if is_exported(project):
        yield from _of("heap", open_export(project).preflight())
    else:
        for result in preflight_source(project.source(), (lambda: caller_of(access)) if access else None):
            yield Permission(f"heap: {result.step}", result.passed, result.detail)
    for name in project.settings.all_sources:
        tried = list(project.warehouse(name).preflight())
        yield from _of(name, tried)
        if all(permission.passed for permission in tried):
            yield from _of(name, _tables(project, name))
    for target in project.settings.publish:
        yield from _of(f"publish {target}", open_publisher(project, target).preflight())


def _of(subject: str, permissions: Iterable[Permission]) -> Iterator[Permission]:
    yield from (replace(permission, name=f"{subject}: {permission.name}") for permission in permissions)


def _lake(store: Store) -> Permission:
    """Try whether the lake can be written; a folder is only looked at, so that nothing changes in it."""
    if store.is_local:
        if store.is_missing:
            return Permission("writing", True, f"there is nothing in {store.url} yet: the first landing makes it")
        remedy = "mount its disk for writing, or let the user of this process write to it"
        passed = os.access(store.url, os.R_OK | os.W_OK | os.X_OK)
        return Permission("writing", passed, f"{store.url} {'can' if passed else 'cannot'} be written", remedy)
    key = f"{state_keys.STATUS}/preflight-{uuid4().hex}"
    try:
        store.create(key, b"")
        store.delete(key)
    except BaseError as error:
        remedy = "let it list, read, write and delete objects there (docs/production.md)"
        return Permission("writing", False, str(error).partition("\n")[0], remedy)
    return Permission("writing", True, f"{store.url} takes objects and lets them go")


def _tables(project: Project, source: str) -> list[Permission]:
    """Check each mapped table of a source."""
    permissions = []
    for name, table in project.settings.all_sources[source].tables.items():
        try:
            project.check_warehouse_table(warehouse_table(f"{source}/{name}"))
            permissions.append(Permission(name, True, f"{table.relation} has what is mapped"))
        except (SettingsError, AccessError) as error:
            permissions.append(Permission(name, False, str(error)))
    return permissions


@click.command()
@click.option("--dumps", type=COUNT, help="Only so many of the newest dumps [default: all]")
@click.option("--start-date", is_flag=True, help="Print the first day that the source holds, and nothing more")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of tables, each with its list of columns")
def discover(dumps: int | None, *, start_date: bool, as_json: bool) -> None:
    """Show the tables, columns, types, dumps and sizes that Heap delivers, what is selected and what is new."""
    project = open_project()
    tables = project.settings.heap.tables
    selection = Selection(tuple(tables.include), tuple(tables.exclude), tables.columns)
    with progress("Looking for the first day of the source"):
        first = first_day_of_source(project)
    if start_date:
        if first is None:
            raise SettingsError(f"{project.source().describe()} holds no event that could be read")
        click.echo(first)
        return
    with progress("Reading what the source delivers"):
        discovered = discover_source(project.source(), selection, project.catalogue, dumps)
    if as_json:
        columns = records(discovered.columns)
        print_json(
            table | {"columns": [_without(column, "table") for column in columns if column["table"] == table["table"]]}
            for table in records(discovered.tables)
        )
    else:
        _frame(discovered.tables)
        click.echo()
        _frame(discovered.columns)
    if not as_json and first and first != project.settings.start_date:
        click.echo(f"\nThe first day of the source is {first}; start_date is {project.settings.start_date}")
    for dump, reason in discovered.unreadable.items():
        click.echo(f"manifest of dump {dump} cannot be read: {reason}", err=True)


@click.command()
@click.argument("name", required=False, metavar="[DATASET[.TABLE]]")
@click.option("--samples", type=COUNT, default=0, help="Show so many values of each column (personal data!)")
@click.option("--source", metavar="NAME", help="Which of `sources:` [default: the warehouse, or the only one there is]")
@json_option
def browse(name: str | None, samples: int, source: str | None, as_json: bool) -> None:
    """Show a source's datasets, tables and columns; for a table, propose its mapping as YAML to paste."""
    project = open_project()
    sources = project.settings.all_sources
    source = source or next(iter(sources if len(sources) == 1 else [WAREHOUSE_SOURCE]))
    if source not in sources and sources:
        raise SettingsError(f"there is no source {source!r}; --source is one of {', '.join(sources)}")
    warehouse, section = project.warehouse(source), project.settings.section_of(source)
    shown = sources[source].datasets
    allowed = [warehouse.locate(dataset)[0] for dataset in shown]
    dataset, table = warehouse.locate(name) if name is not None else ("", None)
    if allowed and name is not None and dataset not in allowed:
        raise SettingsError(f"{name} is not among {section}.datasets: {', '.join(shown)}")
    if name is None or table is None:
        with progress("Listing datasets"):
            table_counts = {
                each: count for each, count in datasets(warehouse).items() if not allowed or each in allowed
            }
    if name is None:
        _rows(
            [{"dataset": each, "tables": count} for each, count in table_counts.items()], ("dataset", "tables"), as_json
        )
    elif table is None:
        if dataset not in table_counts:
            raise SettingsError(
                f"{source_title(source)} has no dataset {name!r}. There are: {', '.join(table_counts) or 'none'}"
            )
        tables = [{"table": t.name, "kind": t.kind, "rows": t.rows} for t in tables_of(warehouse, dataset)]
        _rows(tables, ("table", "kind", "rows"), as_json)
    else:
        with progress(f"Looking at {name}"):
            columns = inspect_table(warehouse, name, max(SAMPLE_ROWS, samples))
            view = describe(warehouse, name, samples, columns)
        heads = ("column", "type", "mode", "description")
        listed = [dict(zip(heads, row, strict=True)) for row in view.rows()]
        if as_json:
            print_json({**row, "samples": list(view.samples.get(row["column"], ()))} for row in listed)
            return
        _rows(listed, heads, as_json)
        for column, values in view.samples.items():
            click.echo(f"{column}: {', '.join(values)}")
        click.echo(f"\nProposal for heap_assets.yaml, below {section}.tables:\n")
        click.echo(propose_yaml(warehouse, name, columns))
        if types := declare_yaml(propose(warehouse, name, columns), project.settings.identity.types):
            click.echo("below identity.identifiers, each where it belongs, for the list is in order of strength:\n")
            click.echo(types)
        click.echo(f"sampled: {columns.sample.cost}", err=True)


@click.group(cls=CommandGroup)
def catalogue() -> None:
    """Compare heap_catalogue.yaml with what was landed; accept what is new."""


@catalogue.command("diff", epilog="Status 1: it found something new, or something to be committed.")
@click.option("--file", "whole", is_flag=True, help="Print the catalogue in use, whole, and nothing more")
@json_option
def catalogue_diff(*, whole: bool, as_json: bool) -> None:
    """Show landed tables and columns that the catalogue does not know, and what is to be committed.

    Where heap_catalogue.yaml cannot be written, what was taken in is kept in the lake; the patch that is then printed,
    or the file that --file prints, brings it into version control.
    """
    project = open_project()
    if whole:
        click.echo(project.catalogue.to_yaml(), nl=False)
        return
    with progress("Comparing the catalogue with what was landed"):
        missing = missing_tables(project)
    found = bool(missing) or uncommitted(project) is not None
    if as_json:
        tables = [{"table": table, "new": "table", "columns": columns} for table, columns in missing.tables.items()]
        print_json(tables + [{"table": table, "new": "columns", "columns": c} for table, c in missing.columns.items()])
        raise SystemExit(found)
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
    raise SystemExit(found)


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
    shown = reload_code_locations(project.settings.run.ui_url, seconds=30)
    then = "the UI shows the new assets" if shown else "reload the code location in the UI to see the new assets"
    click.echo(f"Wrote {change.uri}: {then}; every day they have is then built by itself")


@click.command(epilog=NOT_CONFIRMED)
@click.argument("table")
@click.option("--yes", is_flag=True, help="Do not ask")
def reset(table: str, *, yes: bool) -> None:
    """Forget what was landed of one Heap table, so that its dumps are taken anew."""
    project = open_project()
    if is_exported(project):
        raise SettingsError("heap.source is Heap's export in BigQuery: it has no dumps that could land again")
    landing = project.landing
    dumps = landing.reports().filter(pl.col("state") != "unselected", pl.col("table") != "(manifest)")
    known = dumps["table"].unique().sort().to_list()
    _require_table(table, known)
    source = project.source()
    listed = [manifest.dump_id for manifest in source.manifests()]
    standing = landing.index().filter(pl.col("table") == table, "standing")["dump_id"]
    if gone := sorted(set(standing) - set(listed)):
        raise SourceError(
            f"{source.describe()} no longer has the dump{'s' * (len(gone) > 1)} {', '.join(map(str, gone[:5]))}"
            f"{f' and {len(gone) - 5} more' if len(gone) > 5 else ''}: rows of {table} that stand would be lost, so "
            "nothing was forgotten"
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
        _frame(_redacted(files))
        click.echo()
    click.echo(f"{aside.height:,} rows set aside")
    if aside.height:
        click.echo()
        _frame(aside.group_by("table", "reason").len("rows").sort("table", "rows", descending=[False, True]))
        click.echo()
        _frame(shown)


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
        then = (
            f"the rest waits until {month.resumes}"
            if quota_settings.stop
            else "landing goes on, as heap.quota.stop is not set"
        )
        click.echo(f"         warned at {thresholds(project).quota:.0%}; at the limit {then}")
    if by_day.height:
        click.echo()
        _frame(by_day.rename({"free": "first seven days"}))


def _redacted(frame: pl.DataFrame) -> pl.DataFrame:
    """Blank addresses and secrets in texts: files may be called after anybody."""
    return frame.with_columns(pl.col(pl.String).map_elements(redact, pl.String))


def _require_table(table: str, tables: list[str]) -> None:
    if table in tables:
        return
    close = difflib.get_close_matches(table, tables, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise SettingsError(f"no dump that landed has a table {table!r}. Tables: {', '.join(tables) or 'none'}.{hint}")


def _rows(listed: list[dict[str, Any]], heads: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json(listed)
    else:
        print_rows(heads, [[_number(row[head]) for head in heads] for row in listed])


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else _cell(value)


def _without(record: Record, key: str) -> Record:
    return {name: value for name, value in record.items() if name != key}


def _frame(frame: pl.DataFrame) -> None:
    print_rows(tuple(frame.columns), [tuple(_cell(value) for value in row) for row in frame.iter_rows()])


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _say(result: Permission) -> None:
    """Print a result, with its remedy if it failed."""
    hint = f"\n       {result.remedy}" if result.remedy and not result.passed else ""
    click.echo(f"{'ok    ' if result.passed else 'FAILED'} {result.name:<28} {result.detail}{hint}")
