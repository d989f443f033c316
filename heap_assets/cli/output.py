"""What commands share: options and groups, tables for people, JSON for programs, a progress line on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import click
import polars as pl

from heap_assets.analytics import Dialect, Statement
from heap_assets.values import json_safe, value_as_json

Record = dict[str, Any]

COUNT = click.IntRange(0, 1_000_000_000)
"""How many rows, runs or days to show."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects, one for each row")
"""Of commands that print a table. Figures are numbers, times and days ISO 8601 (UTC), what is not known is null."""

report_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
"""Of commands that print a report of several parts."""

NOT_CONFIRMED = "Status 1: it was not confirmed, and nothing was done."
"""The last line of help of commands that ask first."""


class CommandGroup(click.Group):
    """Lists its commands with the first paragraph of their help, wrapped."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            paragraphs = {name: (one.help or "").partition("\n\n")[0] for name, one in self.commands.items()}
            formatter.write_dl([(name, " ".join(text.split())) for name, text in paragraphs.items()])


def print_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, its columns as wide as their longest cell."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    for row in every:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_frame(frame: pl.DataFrame) -> None:
    """Print a frame as a table: times to the minute, yes or no, nothing for null."""
    print_rows(tuple(frame.columns), [tuple(map(_cell, row)) for row in frame.iter_rows()])


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def print_json(value: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    """Print a list of objects, or one object, with all digits of numbers."""
    click.echo(value_as_json(_plain(value if isinstance(value, Mapping) else list(value))))


def print_statement(statement: Statement, dialect: Dialect, *, as_json: bool) -> None:
    """Print a statement in a dialect of SQL, with its parameters as comments."""
    if as_json:
        print_json([{"sql": statement.text(dialect), "parameters": dict(statement.parameters)}])
        return
    values = "\n".join(f"--   {key} = {value}" for key, value in statement.parameters.items())
    click.echo(f"-- parameters\n{values}\n{statement.text(dialect)};")


def records(frame: pl.DataFrame) -> list[Record]:
    """Return the rows of a frame as JSON holds them: numbers with all their digits, times as ISO 8601."""
    exact = frame.select(json_safe(pl.col(c), dtype, decimals=False).alias(c) for c, dtype in frame.schema.items())
    return exact.to_dicts()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date | datetime) else value


@contextmanager
def progress(activity: str) -> Iterator[None]:
    """Show what is being done and for how long, on a terminal's standard error, until it is done.

    Nothing is shown elsewhere, and nothing stays. Standard output is not for meanwhile: print results afterwards.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # a tenth of a second that only a terminal has to wait
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as shown:
        shown.add_task(activity, total=None)
        yield
