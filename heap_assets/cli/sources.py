"""`preflight`, `discover` and `browse`: what the sources hold, and whether they can be reached."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

import click
from obstore.exceptions import BaseError

from heap_assets.activation import connector_of
from heap_assets.cli.output import (
    COUNT,
    Record,
    json_option,
    print_frame,
    print_json,
    print_rows,
    progress,
    records,
)
from heap_assets.errors import SettingsError
from heap_assets.pipelines.catalogue import first_day_of_source
from heap_assets.pipelines.exports import is_exported, open_export
from heap_assets.pipelines.publishing import open_publisher
from heap_assets.pipelines.reverse_etl import preflight as reverse_etl_preflight
from heap_assets.pipelines.sync_preflight import preflight as sync_preflight
from heap_assets.project import Project, open_project, s3_access
from heap_assets.sources.heap_connect import (
    Selection,
    caller_of,
    read_policy,
    trust_policy,
)
from heap_assets.sources.heap_connect import discover as discover_source
from heap_assets.sources.heap_connect import preflight as preflight_source
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
        if source.kind not in ("s3", "files") or source.bucket is None:
            raise click.UsageError("heap.source is no bucket")
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
    access = s3_access(source) if source.kind in ("s3", "files") and source.bucket is not None else None
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
    for name in project.settings.sync:
        yield from _of(f"sync {name}", sync_preflight(connector_of(project, name)))
    for target in project.settings.publish:
        yield from _of(f"publish {target}", open_publisher(project, target).preflight())
    for name in project.settings.reverse_etl:
        yield from _of(f"reverse_etl {name}", reverse_etl_preflight(project, name))


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
        print_frame(discovered.tables)
        click.echo()
        print_frame(discovered.columns)
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


def _rows(listed: list[dict[str, Any]], heads: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json(listed)
    else:
        print_rows(heads, [[_number(row[head]) for head in heads] for row in listed])


def _number(value: object) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _without(record: Record, key: str) -> Record:
    return {name: value for name, value in record.items() if name != key}


def _say(result: Permission) -> None:
    """Print a result, with its remedy if it failed."""
    hint = f"\n       {result.remedy}" if result.remedy and not result.passed else ""
    click.echo(f"{'ok    ' if result.passed else 'FAILED'} {result.name:<28} {result.detail}{hint}")
