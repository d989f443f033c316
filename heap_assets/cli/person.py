"""The commands about one person: what is held of them, and who got it."""

from __future__ import annotations

from pathlib import Path

import click

from heap_assets.cli.erase import pairs_of
from heap_assets.cli.output import CommandGroup, json_option, print_frame, print_json, progress, records, report_option
from heap_assets.pipelines.person_export import export_person, known_people, shared_with, sharing_log
from heap_assets.project import open_project


@click.group(cls=CommandGroup)
def person() -> None:
    """Show what is held of a person, and which destination got what of them."""


@person.command("export")
@click.argument("identifiers", nargs=-1, required=True)
@click.option("--also", multiple=True, help="type:value of a value that would be left to others, and is theirs")
@click.option("--out", type=click.Path(path_type=Path), default="person.zip", show_default=True)
@report_option
def export(identifiers: tuple[str, ...], also: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Write all rows of one person into a zip of JSON and Parquet: type:value of theirs. Personal data."""
    project = open_project()
    project.require_lake()
    with progress("Collecting the rows of the person"):
        counts = export_person(project, pairs_of(identifiers), out, pairs_of(also))
    if as_json:
        print_json({"file": str(out), "rows": counts})
    else:
        click.echo(f"Wrote {out}: {sum(counts.values()):,} rows of {len(counts):,} tables")


@person.command("shared")
@click.argument("identifiers", nargs=-1)
@json_option
def shared(identifiers: tuple[str, ...], as_json: bool) -> None:
    """List which destination got which fields, of one person (type:value) or by day and number of people."""
    project = open_project()
    project.require_lake()
    with progress("Reading what was sent"):
        frame = (
            shared_with(project, known_people(project, pairs_of(identifiers))) if identifiers else sharing_log(project)
        )
    if as_json:
        print_json(records(frame))
    elif frame.height:
        print_frame(frame)
    else:
        click.echo("nothing was sent")
