"""Users' JavaScript functions: try one on rows of a day, or begin a new one."""

from __future__ import annotations

import json
import re
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click

from heap_assets import clock
from heap_assets.cli.output import CommandGroup, json_option, print_json
from heap_assets.errors import SettingsError
from heap_assets.pipelines.heap_tables import try_function
from heap_assets.project import open_project

_TRANSFORM: Final = """/// <reference path="./heap_assets.d.ts" />

/**
 * One event in, one out. `null` or `context.drop("reason")` drops it, a list makes several of it.
 *
 * @param {HeapAssets.Row} row
 * @param {HeapAssets.Context} context
 * @returns {HeapAssets.Result}
 */
export default function transform(row, context) {
  return row;
}
"""
_SEND: Final = """/// <reference path="./heap_assets.d.ts" />

/**
 * A batch of rows in, the requests to send out. It calls nobody itself.
 *
 * @param {HeapAssets.SentRow[]} rows
 * @param {HeapAssets.Context} context
 * @returns {HeapAssets.Request | HeapAssets.Request[]}
 */
export default function send(rows, context) {
  return { url: "https://api.example.com/contacts", body: { contacts: rows } };
}
"""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@click.group(cls=CommandGroup)
def function() -> None:
    """Try a JavaScript function on rows of a day, or begin a new one."""


@function.command()
@click.argument("file")
@click.option("--table", required=True, help="Event table, such as pageviews")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Day whose rows it gets; the newest complete one")
@click.option("--rows", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rows to try")
@json_option
def test(file: str, table: str, day: Any, count: int, as_json: bool) -> None:
    """Show what FILE of the folder of functions makes of rows of a day. Nothing is written.

    Status 1: a row was rejected.
    """
    chosen: date = day.date() if day else clock.newest_complete_day()
    trials = try_function(open_project(), file, table, chosen, count)
    if as_json:
        print_json({"before": t.before, "after": t.after, "state": t.state, "reason": t.reason} for t in trials)
    else:
        for trial in trials:
            click.echo(f"before    {_line(trial.before)}")
            for row in trial.after:
                click.echo(f"after     {_line(row)}")
            if trial.state:
                click.echo(f"{trial.state:<9} {trial.reason}")
            for line in trial.log:
                click.echo(f"log       {line}")
        if not trials:
            click.echo(f"{table} has no rows on {chosen}")
    if any(trial.state == "rejected" for trial in trials):
        raise click.exceptions.Exit(1)


@function.command()
@click.argument("name")
@click.option("--send", "sends", is_flag=True, help="A function of a sync of its own kind, not of a table")
def new(name: str, sends: bool) -> None:
    """Write NAME.js and the type declarations for editors into the folder of functions."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name of a file; expected: letters, digits, _ . -")
    folder: Path = open_project().settings.functions.folder
    path = folder / f"{name.removesuffix('.js')}.js"
    if path.exists():
        raise SettingsError(f"{path} is there already: choose another name, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    types = (resources.files("heap_assets.functions") / "heap_assets.d.ts").read_text(encoding="utf-8")
    (folder / "heap_assets.d.ts").write_text(types, encoding="utf-8")
    path.write_text(_SEND if sends else _TRANSFORM, encoding="utf-8")
    click.echo(f"Wrote {path}. In heap_assets.yaml:")
    if sends:
        click.echo(
            f"sync:\n  {path.stem}:\n    kind: javascript\n    file: {path.name}\n    hosts: [api.example.com]\n"
            "    key: email\n    properties: {plan: plan}"
        )
    else:
        click.echo(f"functions:\n  transform:\n    pageviews: {{file: {path.name}}}")
    click.echo(
        f"Then: heap-assets function test {path.name} --table pageviews" if not sends else "Then: heap-assets check"
    )


def _line(row: dict[str, Any]) -> str:
    filled = {name: value for name, value in row.items() if value is not None}
    return json.dumps(filled, ensure_ascii=False, default=str)
