"""`heap-assets labels`: Heap's labels as a reviewed file."""

from __future__ import annotations

from pathlib import Path

import click

from heap_assets.cli.output import json_option, print_json, progress
from heap_assets.errors import SettingsError
from heap_assets.heap_api import Change, apply_changes, write_labels
from heap_assets.pipelines.labels import (
    FILE,
    drift_of_labels,
    label_differences,
    label_store,
    labels_settings,
    plan_of_labels,
)
from heap_assets.project import open_project

_PRUNE = click.option("--prune", is_flag=True, help="Delete labels that the file does not have, too")
_UNVERIFIED = "nobody has verified this API of Heap: its addresses are those of the settings"


@click.group()
def labels() -> None:
    """Hold Heap's labels (definitions of events) against a reviewed file; off unless `labels:` is written.

    Experimental: no public page describes the API. docs/labels.md says how its calls are set.
    """


@labels.command()
@click.argument("one")
@click.argument("other")
@json_option
def diff(one: str, other: str, *, as_json: bool) -> None:
    """Say what would make OTHER as ONE is; each is an environment, or `file`. Status 1: they differ."""
    with progress(f"Reading {one} and {other}"):
        changes = label_differences(open_project(), one, other)
    _print(changes, f"{one} and {other} have the same labels", as_json=as_json)
    if changes:
        raise click.exceptions.Exit(1)


@labels.command()
@click.argument("environment")
@_PRUNE
@json_option
def plan(environment: str, *, prune: bool, as_json: bool) -> None:
    """Say what `apply` would change in an environment. Changes nothing."""
    project = open_project()
    with progress(f"Reading {environment}"):
        changes = plan_of_labels(project, environment, prune=prune)
        unknown = drift_of_labels(project, environment).unknown
    _print(changes, f"{environment} is as the file says", as_json=as_json)
    if unknown and not prune:
        click.echo(f"{len(unknown)} labels of {environment} are not in the file; --prune deletes them", err=True)


@labels.command()
@click.argument("environment")
@_PRUNE
@click.option("--yes", is_flag=True, help="Do not ask")
@json_option
def apply(environment: str, *, prune: bool, yes: bool, as_json: bool) -> None:
    """Make an environment as the file says. What is refused ends it; again, it goes on with what is left."""
    project = open_project()
    changes = plan_of_labels(project, environment, prune=prune)
    if not changes:
        _print(changes, f"{environment} is as the file says: nothing was changed", as_json=as_json)
        return
    if not yes:
        _print(changes, "", as_json=False, err=as_json)
        click.echo(f"({_UNVERIFIED})", err=True)
        click.confirm(f"Change {len(changes)} labels of {environment}?", abort=True, err=True)
    applied: list[Change] = []
    try:
        apply_changes(label_store(project, environment), changes, applied.append)
    finally:
        click.echo(f"{len(applied)} of {len(changes)} changes were made in {environment}", err=True)
    if as_json:
        print_json(map(_record, applied))


@labels.command()
@click.argument("environment")
@click.option("--replace", is_flag=True, help="Replace a file that is there")
def pull(environment: str, *, replace: bool) -> None:
    """Write the file from an environment, to review it from then on."""
    project = open_project()
    file = Path(labels_settings(project).file)
    if file.exists() and not replace:
        raise SettingsError(f"{file.name} is there already; --replace replaces it")
    if environment == FILE:
        raise SettingsError("name an environment to pull from")
    with progress(f"Reading {environment}"):
        current = label_store(project, environment).labels()
    write_labels(file, current)
    click.echo(f"{len(current)} labels of {environment} in {file.name}")


def _print(changes: list[Change], nothing: str, *, as_json: bool, err: bool = False) -> None:
    if as_json:
        print_json(map(_record, changes))
        return
    for change in changes:
        click.echo(str(change), err=err)
    if not changes:
        click.echo(nothing, err=err)


def _record(change: Change) -> dict[str, object]:
    return {"action": change.action, "label": change.name, "members": list(change.members)}
