"""`heap-assets sync check` and `sync why`: what a sync needs at its destination, and what became of one key."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from heap_assets.activation import connector_of
from heap_assets.cli.output import json_option, print_json, print_rows
from heap_assets.cli.sync_names import day_of, project_of
from heap_assets.pipelines.sync_preflight import preflight
from heap_assets.pipelines.sync_why import why

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command("check", epilog="Status 1: something is missing there.")
@click.argument("name")
@json_option
def check(name: str, *, as_json: bool) -> None:
    """Try what a sync needs at its destination, one result each; nothing is sent."""
    results = list(preflight(connector_of(project_of(name), name)))
    if as_json:
        print_json(asdict(result) for result in results)
    elif not results:
        click.echo(f"sync {name}: its kind tries nothing before it sends")
    for result in [] if as_json else results:
        hint = f"\n       {result.remedy}" if result.remedy and not result.passed else ""
        click.echo(f"{'ok    ' if result.passed else 'FAILED'} {result.name:<28} {result.detail}{hint}")
    raise SystemExit(0 if all(result.passed for result in results) else 1)


@click.command("why")
@click.argument("name")
@click.argument("key")
@click.option("--day", type=_DAY, help="Rows of this day [default: the newest]")
@json_option
def why_key(name: str, key: str, day: datetime | None, *, as_json: bool) -> None:
    """Say why a value did or did not arrive: row, mapping, gate, ledger, last request and answer, values hashed."""
    project = project_of(name)
    facts = list(why(project, name, key, day_of(project, name, day)))
    if as_json:
        print_json(asdict(fact) for fact in facts)
        return
    print_rows(["what", "is"], [[fact.subject, fact.statement] for fact in facts])
