"""`heap-assets rows`, `explain` and `what-if`: the rows behind keyed hashes, and questions about identities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

import click
import polars as pl

from heap_assets.cli.output import COUNT, Record, json_option, print_json, progress, records, report_option
from heap_assets.errors import SettingsError, no_such
from heap_assets.identity import explain as explain_identifiers
from heap_assets.identity import what_if as sweep
from heap_assets.pipelines.offenders import Offender, Offenders, offenders_of, rows_of_key, shown_by
from heap_assets.pipelines.readiness import identity_tables, newest_graph_day
from heap_assets.project import Project, open_project
from heap_assets.tables import sync_asset, sync_name
from heap_assets.values import value_as_json

_SYNC_DIGITS = 16
"""Keys of syncs are hashed with another secret and to more digits than values of checks."""
_ROWS = 5


@click.command()
@click.argument("asset", required=False, metavar="[ASSET")
@click.argument("check", required=False, metavar="[CHECK]]")
@click.option("--key", "keys", multiple=True, metavar="HASH", help="Only what a check or a sync shows as this hash")
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="Of this partition [default: the newest that was judged]"
)
@click.option("--rows", "most", type=COUNT, default=_ROWS, show_default=True, help="Rows of each table and offender")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects, one for each offender or key")
def rows(
    asset: str | None, check: str | None, keys: tuple[str, ...], day: datetime | None, most: int, *, as_json: bool
) -> None:
    """Show the rows behind a check's hashes, in clear (personal data!), for those who may read the lake.

    \b
    heap-assets rows profiles one_identity_per_profile            every offender that the check shows
    heap-assets rows profiles one_identity_per_profile --key 3fa9c1d20b77
    heap-assets rows --key 3fa9c1d20b77                           of whichever check or sync shows it
    heap-assets rows sync/heap_user_properties --key 9b1f0c64d1a2e735
    """
    project = open_project()
    partition = f"{day:%Y-%m-%d}" if day else None
    with progress("Looking for the rows"):
        shown = list(_records(project, asset, check, keys, partition, most))
    if as_json:
        print_json(shown)
    else:
        click.echo("\n\n".join(map(_text, shown)))
    if not shown:
        raise SettingsError(
            "nothing is shown as that hash: the day may have been built again since, or its rows are gone"
            if keys
            else f"{check} shows no row of {asset}"
        )


def _records(
    project: Project, asset: str | None, check: str | None, keys: tuple[str, ...], partition: str | None, most: int
) -> Iterator[Record]:
    if asset is not None and check is not None:
        yield from _of_check(offenders_of(project, asset, check, partition, keys, most))
        return
    if not keys:
        raise click.UsageError("name an asset and a check, or give --key")
    of_sync = [key for key in keys if len(key) == _SYNC_DIGITS]
    syncs = [sync_name(asset)] if asset else list(project.settings.sync)
    for name in syncs if of_sync else ():
        yield from _of_sync(project, name, of_sync, partition, most)
    of_checks = [key for key in keys if key not in of_sync]
    for shown_on, shown_check, newest in shown_by(project, of_checks) if of_checks else ():
        if asset in (None, shown_on):
            day = partition or newest
            yield from _of_check(offenders_of(project, shown_on, shown_check, day, of_checks, most))


def _of_check(result: Offenders) -> Iterator[Record]:
    if result.rebuilt:
        click.echo(f"{result.asset} {result.partition} was built again since {result.check} judged it", err=True)
    for offender in result.offenders:
        yield {
            "asset": result.asset,
            "check": result.check,
            "partition": result.partition,
            "offender": {name: _with_hash(offender, name) for name in offender.values},
            "rows": {asset: _dicts(frame) for asset, frame in offender.rows.items()},
        }


def _of_sync(project: Project, name: str, keys: list[str], partition: str | None, most: int) -> Iterator[Record]:
    if name not in project.settings.sync:
        raise no_such("sync", name, project.settings.sync)
    day = datetime.strptime(partition, "%Y-%m-%d").date() if partition else None
    for key in keys:
        by_place = rows_of_key(project, name, key, day, most)
        if by_place:
            yield {"asset": sync_asset(name), "key": key, "rows": {p: _dicts(frame) for p, frame in by_place.items()}}


def _with_hash(offender: Offender, name: str) -> Any:
    value = offender.values[name]
    return {"value": value, "hash": offender.hashes[name]} if name in offender.hashes else value


def _dicts(frame: pl.DataFrame) -> list[Record]:
    return [{name: value for name, value in row.items() if value is not None} for row in records(frame)]


def _text(record: Mapping[str, Any]) -> str:
    lines = [" ".join(str(record[name]) for name in ("asset", "check", "partition", "key") if name in record)]
    for name, value in record.get("offender", {}).items():
        text = f"{_cell(value['value'])}   (shown as {value['hash']})" if isinstance(value, dict) else _cell(value)
        lines.append(f"  {name}: {text}")
    for asset, asset_rows in record["rows"].items():
        lines.append(f"  {asset}")
        lines += [f"    {value_as_json(row)}" for row in asset_rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command()
@click.argument("identifiers", nargs=-1, required=True, metavar="TYPE:VALUE [TYPE:VALUE]")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Graph of this day [default: the newest]")
@report_option
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart of the profiles")
def explain(identifiers: tuple[str, ...], day: date | None, as_json: bool, as_mermaid: bool) -> None:
    """Say why two identifiers are one person, or what keeps them apart; or what one identifier belongs to.

    heap-assets explain email:ann@acme.io heap_user_id:123
    """
    if len(identifiers) > 2:
        raise click.UsageError("one or two identifiers")
    project = open_project()
    selected_day = _day(project, day)
    first, second = identifiers[0], identifiers[1] if len(identifiers) == 2 else None
    with progress(f"Reading the links of {selected_day}"):
        explanation = explain_identifiers(first, second, identity_tables(project, selected_day), project.rules)
    click.echo(explanation.json() if as_json else explanation.mermaid() if as_mermaid else explanation.text())


@click.command()
@click.argument("sweeps", nargs=-1, required=True, metavar="SWEEP...")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Links of this day [default: the newest]")
@json_option
def what_if(sweeps: tuple[str, ...], day: date | None, as_json: bool) -> None:
    """Say what other limits, thresholds, orders or blocked values would change. Writes nothing.

    heap-assets what-if email=1..5 device_id.shared_above=1,3,never order=first_seen block=email:info@acme.io

    heap-assets what-if same=crm_id:1,crm_id:9 apart=email:ann@acme.io,email:bob@acme.io without=17
    """
    project = open_project()
    with progress("Resolving with other limits"):
        result = sweep(identity_tables(project, _day(project, day)).links, project.rules, sweeps)
    click.echo(result.json() if as_json else result.text())


def _day(project: Project, day: date | None) -> date:
    return newest_graph_day(project) if day is None else date(day.year, day.month, day.day)
