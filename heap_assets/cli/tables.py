"""The commands that read or tidy the lake: sql, report, prune; and warm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import polars as pl

from heap_assets.cli.output import json_option, print_json, progress, records, report_option
from heap_assets.identity import compile_engine
from heap_assets.pipelines.retention import retain
from heap_assets.project import open_project
from heap_assets.report import write_report
from heap_assets.storage import LakeSql
from heap_assets.values import as_text


@click.command()
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table")
@json_option
def sql(query: str | None, as_csv: bool, as_json: bool) -> None:
    """Query every table of the lake, read-only; without a query, list the tables.

    heap-assets sql "select count(*) from heap.pageviews where partition_key = '2026-11-01'"
    """
    lake = open_project().settings.lake
    with LakeSql(lake.url, lake.options) as lake_sql:
        for table, reason in lake_sql.unreadable.items():
            click.echo(f"{table} cannot be shown: {reason}", err=True)
        if query is None:
            _list(lake_sql.tables(), as_json)
            return
        with progress("Running the query"):
            frame = lake_sql.sql(query)
    if as_json:
        print_json(records(frame))
    elif as_csv:
        click.echo(_flat(frame).write_csv(), nl=False)
    else:
        with pl.Config(
            tbl_rows=100, tbl_cols=-1, tbl_hide_column_data_types=True, tbl_width_chars=-1, fmt_str_lengths=200
        ):
            click.echo(frame)


def _list(tables: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json({"table": table} for table in tables)
    else:
        click.echo("\n".join(tables))


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Write lists and structs as JSON and bytes as base64: CSV has none of them."""
    flat = [name for name, dtype in frame.schema.items() if dtype.is_nested() or dtype == pl.Binary]
    return frame.with_columns(as_text(pl.col(name), frame.schema[name]).alias(name) for name in flat)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="heap_assets_report.html", show_default=True)
def report(out: Path) -> None:
    """Write a status page that can be sent to a colleague: one HTML file that opens without a network."""
    with progress("Writing the status page"):
        path = write_report(open_project().lake, out)
    click.echo(f"Wrote {path}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing")
@report_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Delete days that `keep` no longer asks for: of snapshot-sized tables, but for month ends, and of events."""
    project = open_project()
    project.require_lake()
    with progress("Looking for what is no longer kept" if dry_run else "Deleting what is no longer kept"):
        retained = retain(project, dry_run=dry_run)
    days, counts, leftovers = retained.days, retained.counts, retained.leftovers
    oldest = {asset: min(day.partition for day in days if day.asset == asset) for asset in counts}
    if as_json:
        tables = [
            {"asset": asset, "days": count, "first_day": oldest[asset]} for asset, count in sorted(counts.items())
        ]
        report = {"dry_run": dry_run, "tables": tables, "check_results": retained.results, "leftover_files": leftovers}
        print_json(report | {"sources_of_events": retained.sources})
        return
    for asset, count in sorted(counts.items()):
        click.echo(f"{asset:<32}{count:>6} days, from {oldest[asset]}")
    for asset, count in sorted(retained.sources.items()):
        click.echo(f"{asset:<32}{count:>6} rows or files that old days would be built from again")
    if leftovers is not None:
        click.echo(f"{leftovers} files and folders of killed processes are gone")
    click.echo(f"{retained.results} check results {'would go' if dry_run else 'are gone'}")
    click.echo(f"{len(days)} days {'would go' if dry_run else 'are gone'}")


@click.command(epilog="Status 1: there is no folder that can be written.")
def warm() -> None:
    """Compile identity resolution ahead of its first run, as the last step of an image build.

    The compiled loops are kept beside the package, or in NUMBA_CACHE_DIR. Where the package is read-only later,
    they are copied to the user's cache folder when they are first needed.
    """
    begun = time.monotonic()
    with progress("Compiling"):
        folder, files = compile_engine()
    if folder is None:
        raise click.ClickException("no folder to keep compiled loops in can be written; set NUMBA_CACHE_DIR to one")
    click.echo(f"{files} compiled loops in {folder} ({time.monotonic() - begun:.0f} s)")
