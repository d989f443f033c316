"""`heap-assets review` and `decide`: what people should look at in the identity graph, and what they have settled."""

from __future__ import annotations

import getpass
import html
from datetime import date, datetime
from pathlib import Path

import click
import polars as pl

from heap_assets import clock
from heap_assets.cli.output import COUNT, json_option, print_json, print_rows, progress
from heap_assets.errors import SettingsError
from heap_assets.identity import DECISION_KINDS, IdentityTables, what_if
from heap_assets.pipelines.readiness import identity_tables, newest_graph_day
from heap_assets.pipelines.reviewing import decide as write_decision
from heap_assets.pipelines.reviewing import review_of_day
from heap_assets.project import Project, open_project

_SHOWN = 20
_HEAD = ("rank", "kind", "identifiers", "rows", "money", "syncs", "evidence", "decision")
_LETTERS = {kind[0]: kind for kind in DECISION_KINDS}


@click.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Graph of this day [default: the newest]")
@click.option("--rows", "most", type=COUNT, default=_SHOWN, show_default=True, help="Entries to show")
@click.option(
    "--walk", is_flag=True, help="Go through them one by one: evidence, what each decision would change, the row"
)
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write them as a page")
@json_option
def review(day: datetime | None, most: int, page: Path | None, *, walk: bool, as_json: bool) -> None:
    """Show what people should look at in the identity graph, the most important first, in clear (personal data!).

    \b
    heap-assets review                       refused links, claimed and shared values, profiles of several keys
    heap-assets review --walk                decide them one by one
    heap-assets review --html review.html    for a colleague who may see personal data
    """
    project = open_project()
    selected_day = newest_graph_day(project) if day is None else day.date()
    with progress(f"Reading the links of {selected_day}"):
        tables = identity_tables(project, selected_day)
        entries = review_of_day(project, selected_day, tables).head(most)
    if page is not None:
        page.write_text(_page(entries, selected_day), encoding="utf-8")
    if as_json:
        print_json(entries.drop("profiles").to_dicts())
    elif walk:
        _walk(project, tables, entries)
    else:
        print_rows(_HEAD, [_cells(row) for row in entries.select(_HEAD).iter_rows()])


@click.command()
@click.argument("kind", type=click.Choice(DECISION_KINDS))
@click.argument("identifiers", nargs=-1, required=True, metavar="TYPE:VALUE...")
@click.option("--reason", default="", help="Why")
@click.option("--author", default="", help="Who settles it [default: the user of this machine]")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last day on which it holds [default: for good]")
@click.option("--id", "name", default="", help="What conflicts and explanations call it [default: digits of a hash]")
def decide(
    kind: str, identifiers: tuple[str, ...], reason: str, author: str, until: datetime | None, name: str
) -> None:
    """Write a decision into the file of `identity.decisions`; the next resolution follows it.

    \b
    heap-assets decide same crm_id:C-1 crm_id:C-9 --reason "imported twice"
    heap-assets decide apart email:ann@acme.io email:bob@acme.io --reason "shared inbox of the front desk"
    heap-assets decide nobody email:desk@acme.io
    heap-assets decide confirmed heap_identity:ann heap_identity:ann.b
    """
    about = _about(reason, author) | {"until": f"{until:%Y-%m-%d}" if until else "", "id": name}
    count = write_decision(open_project(), kind, identifiers, about)
    click.echo(f"Wrote {count} row{'' if count == 1 else 's'}; resolve the day again to see what follows.")


def _about(reason: str, author: str = "") -> dict[str, str]:
    return {"author": author or getpass.getuser(), "decided": clock.today().isoformat(), "reason": reason}


def _cells(row: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(
        ", ".join(map(str, cell)) if isinstance(cell, list) else "" if cell is None else str(cell) for cell in row
    )


def _walk(project: Project, tables: IdentityTables, entries: pl.DataFrame) -> None:
    for row in entries.iter_rows(named=True):
        click.echo(f"\n{row['rank']}. {row['kind']}: {', '.join(row['identifiers'])}\n   {row['evidence']}")
        for line in _preview(project, tables, row["identifiers"]):
            click.echo(f"   {line}")
        letter = click.prompt(
            f"   {', '.join(f'{key} {kind}' for key, kind in _LETTERS.items())}, q to stop, anything else to leave it",
            default=row["decision"][0],
            show_default=True,
        )
        if letter == "q":
            return
        if letter in _LETTERS:
            reason = click.prompt("   why", default="", show_default=False)
            try:
                write_decision(project, _LETTERS[letter], row["identifiers"], _about(reason))
            except SettingsError as error:
                click.echo(f"   {error}", err=True)


def _preview(project: Project, tables: IdentityTables, identifiers: list[str]) -> list[str]:
    """Return what each decision would do to the number of profiles and of refused links."""
    if any("," in name for name in identifiers):
        return []  # what-if separates values by commas
    names = ",".join(identifiers)
    sweeps = [f"same={names}", f"apart={names}"] if len(identifiers) > 1 else [f"block={names}"]
    frame = what_if(tables.links, project.rules, sweeps).frame
    today = frame.row(0, named=True)
    lines = []
    for row in frame.iter_rows(named=True):
        if row["setting"] in ("same", "apart", "block"):
            kind = "nobody" if row["setting"] == "block" else row["setting"]
            changed = " and ".join(
                f"{row[name] - today[name]:+} {name}" for name in ("profiles", "conflicts") if row[name] != today[name]
            )
            lines.append(f"{kind}: {changed or 'changes nothing'}")
    return lines


def _page(entries: pl.DataFrame, day: date) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>"
        for row in entries.select(_HEAD).iter_rows()
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Review of {day}</title>\n'
        "<style>body{font:14px sans-serif}td,th{padding:4px 8px;text-align:left;border-bottom:1px solid #ddd}</style>\n"
        f"<h1>Review of {day}</h1>\n<table><tr>{head}</tr>\n{rows}\n</table>\n</html>\n"
    )
