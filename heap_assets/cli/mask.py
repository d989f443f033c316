"""The command that says what the rules of masking are about, before they change anything."""

from __future__ import annotations

import click

from heap_assets.cli.output import json_option, print_json, print_rows, progress
from heap_assets.project import open_project, would_mask
from heap_assets.tables import heap_asset


@click.command()
@json_option
def mask(as_json: bool) -> None:
    """Count what `privacy.rules` would change in the newest day of each event table; writes nothing.

    The rules hold for what lands from then on; `heap-assets reset TABLE` takes a table anew, with its dumps.
    """
    project = open_project()
    project.require_lake()
    rows = []
    with progress("Trying the rules on the newest days"):
        for table in project.event_tables:
            days = project.lake.partitions(heap_asset(table))
            if days:
                frame = project.lake.scan(heap_asset(table), days[-1]).collect()
                rows += [
                    (table, days[-1], f"privacy.rules[{number}]", *hit)
                    for number, *hit in would_mask(project, table, frame)
                ]
    names = ("table", "day", "rule", "action", "column", "cells")
    if as_json:
        print_json(dict(zip(names, row, strict=True)) for row in rows)
    elif rows:
        print_rows(names, [[str(value) for value in row] for row in rows])
    else:
        click.echo("the rules are about nothing in the newest days")
