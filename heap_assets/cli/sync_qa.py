"""`heap-assets sync qa`: the six steps by which a sync is accepted."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from heap_assets.cli.output import json_option, print_json
from heap_assets.cli.sync_names import day_of, project_of
from heap_assets.pipelines.sync_qa import qa

_WORDS = {True: "ok", False: "FAILED", None: "-"}


@click.command("qa", epilog="Status 1: a step failed.")
@click.argument("name")
@click.argument("key")
@click.option("--send", is_flag=True, help="Send everything that is due, as `sync confirm` does; else a dry run")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Rows of this day [default: the newest]")
@json_option
def qa_of_key(name: str, key: str, send: bool, day: datetime | None, *, as_json: bool) -> None:
    """Go through the six steps of accepting a sync with the key of a test user: user, trigger, wait, verify, logs,
    mapping.

    Values are compared with those at the destination and not shown.
    """
    project = project_of(name)
    steps = []
    for step in qa(project, name, key, day_of(project, name, day), send=send):
        steps.append(step)
        if not as_json:
            click.echo(f"{step.number} {step.title:<10} {_WORDS[step.passed]:<7} {step.detail}")
    if as_json:
        print_json({**asdict(step), "title": step.title} for step in steps)
    raise SystemExit(1 if any(step.passed is False for step in steps) else 0)
