"""The commands that look for personal data, and say what the rules of masking are about before they change anything."""

from __future__ import annotations

from typing import Any

import click

from heap_assets.cli.output import json_option, print_json, print_rows, progress, records
from heap_assets.pipelines import findings as searching
from heap_assets.project import open_project, would_mask


@click.command()
@json_option
def mask(as_json: bool) -> None:
    """Count what `privacy.rules` would change in the newest day of each table; writes nothing.

    The rules hold for what comes in from then on; `heap-assets reset TABLE` takes a table of Heap anew, with its dumps.
    Tables of sources are masked with their next read.
    """
    project = open_project()
    project.require_lake()
    rows = []
    with progress("Trying the rules on the newest days"):
        for asset in searching.searched_tables(project):
            days = project.lake.partitions(asset)
            if days:
                frame = project.lake.scan(asset, days[-1]).collect()
                table = project.heap_tables.get(asset, asset)
                rows += [
                    (table, days[-1], f"privacy.rules[{number}]", *hit)
                    for number, *hit in would_mask(project, asset, frame)
                ]
    _print(("table", "day", "rule", "action", "column", "cells"), rows, as_json, "the rules are about nothing")


@click.command()
@json_option
def findings(as_json: bool) -> None:
    """Search a sample of the newest day of each table for personal data, as `privacy/findings` does; writes nothing.

    Counts by table, column and rule, without values. `settled_by` says what has it there on purpose.
    """
    project = open_project()
    project.require_lake()
    with progress("Searching the newest days"):
        hits = searching.findings(project)
    if as_json:
        print_json(records(hits))
        return
    _print(tuple(searching.SCHEMA), hits.rows(), as_json, "nothing looks like personal data")


def _print(names: tuple[str, ...], rows: list[Any], as_json: bool, nothing: str) -> None:
    if as_json:
        print_json(dict(zip(names, row, strict=True)) for row in rows)
    elif rows:
        print_rows(names, [[str(value) for value in row] for row in rows])
    else:
        click.echo(f"{nothing} in the newest days")
