"""`heap-assets explain` and `heap-assets what-if`."""

from __future__ import annotations

from datetime import date

import click

from heap_assets.errors import MissingInputError
from heap_assets.identity import IdentityTables
from heap_assets.identity import explain as explain_identifiers
from heap_assets.identity import what_if as sweep
from heap_assets.pipelines.readiness import links_as_of
from heap_assets.project import Project, open_project
from heap_assets.tables import CONFLICTS, GRAPH, SHARED


@click.command()
@click.argument("identifiers", nargs=-1, required=True, metavar="TYPE:VALUE [TYPE:VALUE]")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Graph of this day [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart of the profiles")
def explain(identifiers: tuple[str, ...], day: date | None, as_json: bool, as_mermaid: bool) -> None:
    """Say why two identifiers are one person, or what keeps them apart; or what one identifier belongs to.

    heap-assets explain email:ann@acme.io heap_user_id:123
    """
    if len(identifiers) > 2:
        raise click.UsageError("one or two identifiers")
    project = open_project()
    chosen = _day(project, day)
    first, second = identifiers[0], identifiers[1] if len(identifiers) == 2 else None
    answer = explain_identifiers(first, second, _tables(project, chosen), project.rules)
    click.echo(answer.json() if as_json else answer.mermaid() if as_mermaid else answer.text())


@click.command()
@click.argument("sweeps", nargs=-1, required=True, metavar="SWEEP...")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Links of this day [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def what_if(sweeps: tuple[str, ...], day: date | None, as_json: bool) -> None:
    """Say what other limits, thresholds, orders or blocked values would change. Writes nothing.

    heap-assets what-if email=1..5 device_id.shared_above=1,3,never order=first_seen block=email:info@acme.io
    """
    project = open_project()
    answer = sweep(_tables(project, _day(project, day)).links, project.rules, sweeps)
    click.echo(answer.json() if as_json else answer.text())


def _day(project: Project, day: date | None) -> date:
    if day is not None:
        return date(day.year, day.month, day.day)
    known = project.lake.partitions(GRAPH)
    if not known:
        raise MissingInputError(f"{GRAPH} has not been built yet: materialize the identity group first")
    return date.fromisoformat(known[-1])


def _tables(project: Project, day: date) -> IdentityTables:
    """Return the tables of a day; all its links are put together again from what was extracted when it was resolved."""
    lake, key = project.lake, str(day)
    links = links_as_of(project, day).collect()  # asked several times, and of many files
    return IdentityTables(links.lazy(), lake.scan(GRAPH, key), lake.scan(CONFLICTS, key), lake.scan(SHARED, key))
