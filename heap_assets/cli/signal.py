"""`heap-assets signal`: what signals fire, what one would fire on a day, and signals to begin with."""

from __future__ import annotations

from datetime import date, datetime

import click
import polars as pl

from heap_assets.analytics import DIALECTS, Dialect
from heap_assets.cli.output import COUNT, CommandGroup, json_option, print_frame, print_json, print_statement, progress
from heap_assets.errors import MissingInputError, no_such
from heap_assets.pipelines.signals import preview as firings_of_day
from heap_assets.pipelines.signals import signal_figures, statement_of_signal
from heap_assets.project import open_project
from heap_assets.signals import TEMPLATES
from heap_assets.tables import PROFILES

_ROWS = 20


@click.group(cls=CommandGroup)
def signal() -> None:
    """Show what signals fire, try one on a day, or begin one from a template."""


@signal.command("list")
@click.option("--days", type=COUNT, default=7, show_default=True, help="Days that are counted together")
@json_option
def list_signals(days: int, *, as_json: bool) -> None:
    """Show what each signal fired: on its newest day, in the last days, of those live ones, and cancelled ones."""
    project = open_project()
    newest = project.lake.newest_partition(PROFILES, date.max)
    rows = signal_figures(project, newest, days) if newest else []
    if as_json:
        print_json(rows)
    elif rows:
        print_frame(pl.DataFrame(rows))


@signal.command()
@click.argument("name")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Day whose firings are shown [default: the newest]")
@click.option("--rows", "most", type=COUNT, default=_ROWS, show_default=True, help="Firings to show")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL instead, with its parameters")
@click.option("--dialect", type=click.Choice(DIALECTS), default="lake", show_default=True, help="Of --sql")
@json_option
def preview(name: str, day: datetime | None, most: int, dialect: Dialect, *, as_sql: bool, as_json: bool) -> None:
    """Show what a signal would fire on a day if nothing had fired before, without writing (personal data!)."""
    project = open_project()
    if name not in project.signals:
        raise no_such("signal", name, project.signals)
    chosen = day.date() if day else project.lake.newest_partition(PROFILES, date.max)
    if chosen is None:
        raise MissingInputError(f"{PROFILES} has not been built yet: materialize it first")
    if as_sql:
        print_statement(statement_of_signal(project, name, chosen, dialect), dialect, as_json=as_json)
        return
    with progress(f"Evaluating {name} on {chosen}"):
        firings = firings_of_day(project, name, chosen)
    shown = firings.head(most).drop("firing_id", "signal", "status", "observed_at", "live")
    if as_json:
        print_json(shown.to_dicts())
        return
    print_frame(shown.drop("event", "identifier_type", "heap_identity"))
    click.echo(f"{firings.height:,} firings of {firings['profile_id'].n_unique():,} people on {chosen}")


@signal.command()
@click.argument("name", required=False)
def template(name: str | None) -> None:
    """Print a signal to begin with, to be put below `signals:`; all of them without a name."""
    if name is not None and name not in TEMPLATES:
        raise no_such("template", name, TEMPLATES)
    click.echo("\n".join([TEMPLATES[name]] if name else list(TEMPLATES.values())).rstrip())
