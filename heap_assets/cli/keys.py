"""The command that says which credentials have to be replaced."""

from __future__ import annotations

import click

from heap_assets.cli.output import json_option, print_json, print_rows
from heap_assets.pipelines.keys import key_states
from heap_assets.project import open_project


@click.command(epilog="Status 1: a credential has to be replaced, or nobody knows how old it is.")
@json_option
def keys(as_json: bool) -> None:
    """Show how long the credentials of `privacy.keys` may still be used; no values."""
    states = key_states(open_project())
    rows = [(one.name, str(one.issued or ""), str(one.ends or ""), one.left, one.why) for one in states]
    names = ("key", "issued", "ends", "days_left", "why")
    if as_json:
        print_json(dict(zip(names, row, strict=True)) for row in rows)
    elif rows:
        print_rows(names, [["" if value is None else str(value) for value in row] for row in rows])
    else:
        click.echo("privacy.keys names no credentials")
    if any(one.is_overdue for one in states):
        raise click.exceptions.Exit(1)
