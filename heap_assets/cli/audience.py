"""`heap-assets audience`: how large audiences are, who is in one and why, and what another number would do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import polars as pl

from heap_assets.analytics import DIALECTS, Dialect
from heap_assets.cli.output import CommandGroup, json_option, print_frame, print_json, progress
from heap_assets.config import read_audiences
from heap_assets.errors import SettingsError
from heap_assets.pipelines.account_audiences import AccountAudienceDay
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.project import open_project
from heap_assets.yaml_core import read_yaml

_day_option = click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Day of the profiles [default: the newest]")

_accounts_option = click.option("--accounts", "of_accounts", is_flag=True, help="Of accounts instead of people")


def _kind(*, of_accounts: bool) -> type[AudienceDay]:
    return AccountAudienceDay if of_accounts else AudienceDay


@click.group(cls=CommandGroup)
def audience() -> None:
    """Say how large audiences are, who is in one and why, and what another number would do. Writes nothing."""


@audience.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Definitions to try")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL of the members instead, with its parameters")
@click.option("--dialect", type=click.Choice(DIALECTS), default="lake", show_default=True, help="Of --sql")
@_accounts_option
@_day_option
@json_option
def size(
    names: tuple[str, ...],
    file: Path | None,
    dialect: Dialect,
    day: datetime | None,
    *,
    as_sql: bool,
    of_accounts: bool,
    as_json: bool,
) -> None:
    """Say how many members audiences have by their definitions now, and how many that would change.

    \b
    heap-assets audience size
    heap-assets audience size upsell_ready --sql --dialect bigquery
    heap-assets audience size --file proposed.json
    """
    project = open_project()
    proposed = dict(read_audiences(file)) if file else {}
    definitions = _kind(of_accounts=of_accounts).newest(project, day.date() if day else None, proposed)
    chosen = [definitions.one(name) for name in names or proposed or definitions.audiences]
    if as_sql:
        statements = [(one.name, definitions.statement(one, dialect)) for one in chosen]
        if as_json:
            print_json(
                {"audience": name, "sql": one.text(dialect), "parameters": dict(one.parameters)}
                for name, one in statements
            )
            return
        for name, statement in statements:
            values = "\n".join(f"--   {key} = {value}" for key, value in statement.parameters.items())
            click.echo(f"-- {name}, with the parameters\n{values}\n{statement.text(dialect)};")
        return
    with progress(f"Counting members on {definitions.day}"):
        people, stored = definitions.people().select(pl.len()).collect().item(), definitions.stored()
        rows = [_size(one.name, set(definitions.members(one)["profile_id"]), stored, people) for one in chosen]
    schema = {"audience": pl.String, "members": pl.Int64, "share": pl.Float64, "enter": pl.Int64, "leave": pl.Int64}
    _print(pl.DataFrame(rows, schema=schema, orient="row"), as_json=as_json)


def _size(name: str, members: set[str], stored: dict[str, set[str]], people: int) -> tuple[Any, ...]:
    before = stored.get(name)
    share = round(len(members) / people, 4) if people else None
    changed = (None, None) if before is None else (len(members - before), len(before - members))
    return name, len(members), share, *changed


@audience.command()
@click.argument("name")
@click.argument("identifier", required=False, metavar="[TYPE:VALUE|ACCOUNT]")
@_accounts_option
@_day_option
@json_option
def explain(name: str, identifier: str | None, day: datetime | None, *, of_accounts: bool, as_json: bool) -> None:
    """Say what each condition of an audience leaves over, or which of them a person meets (personal data!).

    \b
    heap-assets audience explain upsell_ready
    heap-assets audience explain upsell_ready email:ann@acme.io
    heap-assets audience explain expanding acme --accounts
    """
    definitions = _kind(of_accounts=of_accounts).newest(open_project(), day.date() if day else None)
    with progress(f"Evaluating conditions on {definitions.day}"):
        chosen = definitions.one(name)
        table = definitions.explained_person(chosen, identifier) if identifier else definitions.explained(chosen)
    _print(table, as_json=as_json)


@audience.command("what-if")
@click.argument("name")
@click.argument("sweep", metavar="PATH=VALUE,VALUE...")
@_accounts_option
@_day_option
@json_option
def what_if(name: str, sweep: str, day: datetime | None, *, of_accounts: bool, as_json: bool) -> None:
    """Say how many members other values of a condition would give, and how many would enter and leave.

    heap-assets audience what-if upsell_ready events[0].count.gte=10,25,50,100
    """
    path, sign, listed = sweep.partition("=")
    if not sign or not listed:
        raise SettingsError(f"{sweep!r} is no change; expected a path and values such as events[0].count.gte=10,50")
    definitions = _kind(of_accounts=of_accounts).newest(open_project(), day.date() if day else None)
    with progress(f"Counting members on {definitions.day}"):
        rows = [definitions.changed(name, path, read_yaml(value, sweep)) for value in listed.split(",")]
    schema = {"value": pl.String, "members": pl.Int64, "enter": pl.Int64, "leave": pl.Int64}
    _print(pl.DataFrame([{**row, "value": str(row["value"])} for row in rows], schema=schema), as_json=as_json)


def _print(table: pl.DataFrame, *, as_json: bool) -> None:
    if as_json:
        print_json(table.to_dicts())
    else:
        print_frame(table)
