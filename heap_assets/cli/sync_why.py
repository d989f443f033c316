"""`heap-assets sync check` and `sync why`: what a sync needs at its destination, and what became of one key."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from heap_assets.activation import connector_of
from heap_assets.cli.output import json_option, print_json, print_rows
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.pipelines.sync_preflight import preflight
from heap_assets.pipelines.sync_why import why
from heap_assets.project import Project, open_project

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command("check", epilog="Status 1: something is missing there.")
@click.argument("name")
@json_option
def check(name: str, *, as_json: bool) -> None:
    """Try what a sync needs at its destination, one result each; nothing is sent."""
    results = list(preflight(connector_of(_project_of(name), name)))
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
    project = _project_of(name)
    of_day = day.date() if day else newest_day(project, name)
    if of_day is None:
        raise MissingInputError(f"sync.{name} has nothing to read yet: materialize its inputs first, or give --day")
    facts = list(why(project, name, key, of_day))
    if as_json:
        print_json(asdict(fact) for fact in facts)
        return
    print_rows(["what", "is"], [[fact.subject, fact.statement] for fact in facts])


def _project_of(name: str) -> Project:
    project = open_project()
    project.require_lake()
    if name not in project.settings.sync:
        names = ", ".join(project.settings.sync) or "none"
        raise SettingsError(f"there is no sync {name!r} in the settings. Syncs: {names}")
    return project
