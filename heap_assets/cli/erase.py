"""The commands of erasure: request, show, confirm, run, prove, withdraw, lift."""

from __future__ import annotations

import getpass
import uuid
from collections import Counter
from pathlib import Path

import click

from heap_assets.cli.output import (
    NOT_CONFIRMED,
    CommandGroup,
    json_option,
    print_json,
    print_rows,
    progress,
    report_option,
)
from heap_assets.errors import SettingsError
from heap_assets.pipelines import erasure
from heap_assets.privacy import Pair, Request, Requests, proof_page
from heap_assets.project import Project, open_project
from heap_assets.tables import sync_asset


@click.group(cls=CommandGroup)
def erase() -> None:
    """Erase people from everything that is kept, with a proof: request, confirm, run."""


def pairs_of(identifiers: tuple[str, ...]) -> list[Pair]:
    """Return type and value of identifiers as they are typed; SettingsError if one has no type."""
    pairs = []
    for text in identifiers:
        kind, colon, value = text.partition(":")
        if not colon:
            raise SettingsError("an identifier has no type: expected type:value, such as email:…")
        pairs.append((kind.strip(), value))
    return pairs


def _opened() -> Project:
    project = open_project()
    project.require_lake()
    return project


@erase.command("request", epilog="Nothing is erased before `heap-assets erase confirm` and `run`.")
@click.argument("identifiers", nargs=-1, required=True)
@click.option("--reason", default="", help="Why, for the record; no personal data")
@click.option("--author", default=getpass.getuser, help="Who asks; the user of this machine unless given")
@report_option
def request_person(identifiers: tuple[str, ...], reason: str, author: str, as_json: bool) -> None:
    """Ask for the erasure of one person, by identifiers of theirs: type:value."""
    project = _opened()
    with progress("Looking up the person in all graphs"):
        request = erasure.request_erasure(project, pairs_of(identifiers), author=author, reason=reason)
    _show(request, as_json)


@erase.command("show")
@click.argument("request_id")
@report_option
def show(request_id: str, as_json: bool) -> None:
    """Show what a request would erase, and which values it leaves to others and why. Personal data."""
    _show(Requests(_opened().lake.store).get(request_id), as_json)


@erase.command("list")
@json_option
def list_requests(as_json: bool) -> None:
    """List the requests, the oldest first: state, source, how many identifiers; no values."""
    requests = Requests(_opened().lake.store).all()
    rows = [
        [
            one.id,
            str(one.state),
            one.requested_at.strftime("%Y-%m-%d %H:%M"),
            one.source,
            sum(one.counts.get("identifiers", {}).values()),
            sum(one.counts.get("left", {}).values()),
        ]
        for one in requests
    ]
    names = ["request", "state", "requested_at", "source", "identifiers", "left"]
    if as_json:
        print_json(dict(zip(names, row, strict=True)) for row in rows)
    elif rows:
        print_rows(names, [[str(value) for value in row] for row in rows])
    else:
        click.echo("nobody has asked to be erased")


@erase.command("confirm", epilog=NOT_CONFIRMED)
@click.argument("request_id")
@click.option("--also", multiple=True, help="type:value of a value to erase although it would be left to others")
@click.option("--author", default=getpass.getuser, help="Who confirms; the user of this machine unless given")
@click.confirmation_option(prompt="The next run will erase these values everywhere, for good. Go on?")
def confirm_request(request_id: str, also: tuple[str, ...], author: str) -> None:
    """Confirm a request: the next run erases what `show` lists."""
    request = erasure.confirm(_opened(), request_id, author, pairs_of(also))
    count = sum(request.counts["identifiers"].values())
    click.echo(f"{request.id} is confirmed: {count:,} identifiers; `heap-assets erase run` erases them")


@erase.command("cancel")
@click.argument("request_id")
def cancel_request(request_id: str) -> None:
    """Withdraw a request that no run has begun."""
    click.echo(f"{erasure.cancel(_opened(), request_id).id} is withdrawn; the values that it named are gone from it")


@erase.command("run", epilog="Status 1: something could not be done yet; the next run goes on.")
@click.option("--request", "request_ids", multiple=True, help="Only this request; all that are confirmed unless given")
@report_option
def run_erasure(request_ids: tuple[str, ...], as_json: bool) -> None:
    """Erase the people of all confirmed requests, ask destinations to, and write the proofs."""
    project = _opened()
    with progress("Erasing"):
        result = erasure.run(project, f"by-hand-{uuid.uuid4().hex[:12]}", request_ids)
    if as_json:
        print_json(
            {
                "requests": dict(result.requests),
                "objects": result.objects,
                "rows": result.rows,
                "cells": result.cells,
                "unsettled": dict(result.unsettled),
            }
        )
    else:
        states = Counter(result.requests.values())
        click.echo(", ".join(f"{count:,} {state}" for state, count in sorted(states.items())) or "nothing to erase")
        click.echo(f"{result.rows:,} rows and {result.cells:,} cells in {result.objects:,} objects are gone")
        for where, why in sorted(result.unsettled.items()):
            click.echo(f"not yet: {where}: {why}")
    if result.unsettled:
        raise click.exceptions.Exit(1)


@erase.command("proof")
@click.argument("request_id")
@click.option("--out", type=click.Path(path_type=Path), help="Write the proof as an HTML page to this file")
@report_option
def show_proof(request_id: str, out: Path | None, as_json: bool) -> None:
    """Show the proof of an erasure: places, rows, destinations, what cannot be reached; no personal data."""
    document = erasure.proof(_opened(), request_id)
    if out is not None:
        out.write_text(proof_page(document))
        click.echo(f"Wrote {out}")
    elif as_json:
        print_json(document)
    else:
        click.echo(f"{document['request']}: {document['state']}")
        for place, tally in document["places"].items():
            click.echo(f"{place:<32}{tally['objects']:>8,} objects{tally['rows']:>10,} rows{tally['cells']:>8,} cells")
        for name, answer in document["destinations"].items():
            click.echo(f"{sync_asset(name)}: {answer['state']} {answer.get('note', '')}".rstrip())
        for place, why in document["not_reached"].items():
            click.echo(f"not reached: {place}: {why}")


@erase.command("lift", epilog=NOT_CONFIRMED)
@click.argument("request_id")
@click.option("--reason", required=True, help="Why the person may come in again; no personal data")
@click.confirmation_option(prompt="What was erased will be let in again from now on. Go on?")
def lift_request(request_id: str, reason: str) -> None:
    """Remove the tombstones of a person who has consented anew: their rows are let in again."""
    count = erasure.lift_tombstones(_opened(), request_id, reason)
    click.echo(f"{count:,} tombstones of {request_id} are gone: new rows of the person are let in again")


def _show(request: Request, as_json: bool) -> None:
    plan = request.plan
    identifiers = [f"{kind}:{value}" for kind, value in (plan.identifiers if plan else ())]
    left = [
        {"identifier": f"{one.identifier_type}:{one.identifier}", "why": one.why} for one in (plan.left if plan else ())
    ]
    if as_json:
        print_json({"request": request.id, "state": str(request.state), "identifiers": identifiers, "left": left})
        return
    click.echo(f"{request.id}: {request.state}")
    for text in identifiers:
        click.echo(f"  erases {text}")
    for one in left:
        click.echo(f"  leaves {one['identifier']}: {one['why']}")
    if not identifiers and request.is_open:
        click.echo("  nobody is known by these identifiers")
