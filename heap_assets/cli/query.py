"""`heap-assets query`: named questions over events and people, with parameters, and their SQL."""

from __future__ import annotations

from datetime import date, datetime

import click
import polars as pl

from heap_assets.analytics import DIALECTS, QUERIES, Dialect
from heap_assets.cli.output import (
    COUNT,
    json_option,
    print_frame,
    print_json,
    print_rows,
    print_statement,
    progress,
    records,
)
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.analytics import query_of, result_of, statement_of
from heap_assets.project import open_project
from heap_assets.tables import PROFILES

_ROWS = 50


@click.command()
@click.argument("name", required=False)
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter; lists with commas")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="As of the end of this day [default: the newest]")
@click.option("--rows", "most", type=COUNT, default=_ROWS, show_default=True, help="Rows to show")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL instead, with its parameters")
@click.option("--dialect", type=click.Choice(DIALECTS), default="lake", show_default=True, help="Of --sql")
@json_option
def query(
    name: str | None, parameters: tuple[str, ...], day: datetime | None, most: int, dialect: Dialect, *, as_sql: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer a named question over events and people: of the settings (analytics:), or a kind with its defaults.

    \b
    heap-assets query                                       what there is
    heap-assets query funnel --param steps=signup,pageviews,plan_upgraded --param span_hours=72
    heap-assets query activation --day 2026-11-20 --sql --dialect bigquery
    """
    project = open_project()
    if name is None:
        settings = {key: str(one.get("kind")) for key, one in project.settings.analytics.items()}
        rows = [(key, kind, _about(kind)) for key, kind in [*settings.items(), *((kind, kind) for kind in QUERIES)]]
        if as_json:
            print_json({"name": key, "kind": kind, "answers": about} for key, kind, about in rows)
        else:
            print_rows(("name", "kind", "answers"), rows)
        return
    chosen = day.date() if day else project.lake.newest_partition(PROFILES, date.max)
    if chosen is None:
        raise MissingInputError(f"{PROFILES} has not been built yet: materialize it first")
    question = query_of(project, name, dict(_pair(text) for text in parameters))
    if as_sql:
        print_statement(statement_of(project, question, chosen, dialect), dialect, as_json=as_json)
        return
    with progress(f"Answering {name} as of {chosen}"):
        frame = result_of(project, question, chosen)
    _print(frame.head(most), as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise SettingsError(f"--param {text!r}: expected name=value")
    return name, value


def _about(kind: str) -> str:
    return " ".join((QUERIES[kind].__doc__ or "").partition("\n\n")[0].split()) if kind in QUERIES else ""


def _print(frame: pl.DataFrame, *, as_json: bool) -> None:
    if as_json:
        print_json(records(frame))
    else:
        print_frame(frame)
