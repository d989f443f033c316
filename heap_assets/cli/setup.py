"""`heap-assets init`, `check` and `schema`: the settings file, written, checked and described to editors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import click

from heap_assets import clock
from heap_assets.cli.home import DAGSTER_FILES, dagster_file
from heap_assets.cli.output import print_json, progress, report_option
from heap_assets.config import Settings, settings_path
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.project import load_settings, refused_hosts, settings_schema
from heap_assets.quality import Thresholds
from heap_assets.sources.heap_connect import check_bucket
from heap_assets.tables import WAREHOUSE_SOURCE
from heap_assets.yaml_core import Unquoted

SCHEMA_FILE = "heap_assets.schema.json"


@click.command()
@click.option("--force", is_flag=True, help="Overwrite the settings that are there")
@click.option("--folder", type=click.Path(path_type=Path), help="Take dumps from this folder, laid out like the bucket")
@click.option("--bucket", help="Take dumps from this S3 bucket")
@click.option("--endpoint-url", help="With --bucket: of an S3 service that is not Amazon's")
def init(*, force: bool, folder: Path | None, bucket: str | None, endpoint_url: str | None) -> None:
    """Write a commented heap_assets.yaml to start from, with dagster.yaml and workspace.yaml beside it.

    Editors complete and check it by heap_assets.schema.json, which its first line names.
    Where the dumps can be reached, start_date is the first day that they hold, else a year back.
    """
    path = settings_path()
    if (path.parent / "heap_assets" / "definitions.py").is_file():
        raise SettingsError(
            f"{path.parent} is the project's own folder, with the settings of the demo: run `heap-assets init` in an "
            "empty folder of your own"
        )
    if path.exists() and not force:
        raise SettingsError(f"{path} exists already: `heap-assets check` reads it; --force overwrites it")
    template = resources.files("heap_assets.config").joinpath("template.yaml").read_text()
    text = _with_source(template, folder, bucket, endpoint_url)
    start = clock.today() - timedelta(days=365)
    path.write_text(text.replace("{start_date}", start.isoformat()))
    for name in DAGSTER_FILES:
        if not (path.parent / name).exists():
            (path.parent / name).write_text(dagster_file(name))
    (path.parent / SCHEMA_FILE).write_text(schema_text())
    beside = f"{' and '.join(DAGSTER_FILES)} for Dagster, and {SCHEMA_FILE} for your editor"
    click.echo(f"Wrote {path}, and beside it {beside}")
    first = _first_day(path) if folder or bucket else None
    if first:
        path.write_text(text.replace("{start_date}", first.isoformat()))
        click.echo(f"start_date is {first}, the first day that the source holds")
    click.echo("Next: fill it in, then `heap-assets check`, `heap-assets preflight` and `heap-assets dev`")


def _with_source(template: str, folder: Path | None, bucket: str | None, endpoint_url: str | None) -> str:
    if folder:
        begin, end = template.index("    kind: s3 "), template.index("  tables:\n    include:")
        return f"{template[:begin]}    kind: folder\n    path: {json.dumps(str(folder.absolute()))}\n{template[end:]}"
    if bucket:
        template = template.replace("bucket: heap-rs3-acme ", f"bucket: {check_bucket(bucket)} ")
    if endpoint_url:
        template = re.sub(r"# endpoint_url: \S+", f"endpoint_url: {json.dumps(endpoint_url)}", template)
    return template


def _first_day(path: Path) -> date | None:
    """Return the first day of the source; None if it cannot be reached yet, which preflight then explains."""
    from heap_assets.pipelines.catalogue import first_day_of_source
    from heap_assets.project import open_project

    os.environ.setdefault("HEAP_APP_ID", "1")  # of no account: nothing is sent
    try:
        return first_day_of_source(open_project(load_settings(path)))
    except HeapAssetsError as error:
        click.echo(f"The source cannot be read yet: {error}", err=True)
        return None


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@report_option
def check(path: Path | None, as_json: bool) -> None:
    """Read heap_assets.yaml, hold it against catalogue and warehouse, and print what was understood."""
    from heap_assets.pipelines.behaviour import check_events
    from heap_assets.pipelines.function_rebuilds import function_rebuilds
    from heap_assets.pipelines.functions import check_functions
    from heap_assets.pipelines.reverse_etl import check_reverse_etl
    from heap_assets.pipelines.reviewing import doubtful_decisions
    from heap_assets.pipelines.sync_checks import check_syncs, unknown_destinations
    from heap_assets.pipelines.table import check_columns
    from heap_assets.pipelines.waiting import identity_proposal
    from heap_assets.project import open_project

    settings = load_settings(path)
    project = open_project(settings)
    with progress("Holding the settings against catalogue and warehouse"):
        project.check_columns()
        check_columns(project)
        check_functions(project)
        doubts = check_events(project)
        check_syncs(project)
        check_reverse_etl(project)
        unknown = unknown_destinations(project, make=True)
        proposal = identity_proposal(project)
        decisions = doubtful_decisions(project)
        rebuilds = [rebuild.text for rebuild in function_rebuilds(project)]
    event_tables = sorted(project.event_tables)
    understood = _understood(settings, event_tables)
    if as_json:
        print_json(
            {
                "event_tables": event_tables,
                "understood": understood,
                "proposal": proposal or None,
                "not_yet": doubts,
                "decisions": decisions,
                "rebuilds": rebuilds,
                "unknown_destinations": unknown,
            }
        )
    else:
        click.echo("\n".join(understood))
        if proposal:
            click.echo(f"Proposal      {proposal}")
        for doubt in doubts:
            click.echo(f"Not yet       {doubt}")
        for doubt in decisions:
            click.echo(f"Decisions     {doubt}")
        for rebuild in rebuilds:
            click.echo(f"Rebuilds      {rebuild}")
    if unknown:
        raise SettingsError("\n".join(unknown.values()))


def _understood(settings: Settings, event_tables: list[str]) -> list[str]:
    source = settings.heap.source
    lines = [
        f"Heap          environment {settings.heap.app_id}, {settings.heap.region}, {settings.heap.plan} plan",
        f"  source      {source.kind}: {_where(source)}",
        f"  tables      {_event_tables(event_tables, settings.heap.tables.accept)}",
        *(f"  left out    of {table}: {_rules_text(rules)}" for table, rules in settings.heap.tables.leave_out.items()),
        *(f"  function    of {table}: {one.file}" for table, one in settings.functions.transform.items()),
        f"Lake          {settings.lake.url}, from {settings.start_date}",
    ]
    for own, chosen in settings.all_sources.items():
        titles = ("Warehouse", "") if own == WAREHOUSE_SOURCE else ("Source", f"{own}: ")
        read = "" if chosen.schedule is None else f"; read at {chosen.schedule} UTC"
        lines.append(f"{titles[0]:<13} {titles[1]}{chosen.kind}, {len(chosen.tables)} tables{read}")
        width = _width(chosen.tables)
        for name, table in chosen.tables.items():
            mapped = ", ".join(f"{column} is {types}" for column, types in table.identifiers.items())
            lines.append(f"  {name:<{width}} {table.relation} by {table.key}; {mapped or 'identifies nobody'}")
    lines.append(f"Identity      {settings.identity.order} order, strongest first:")
    width = _width(settings.identity.types)
    for rule in settings.identity.identifiers:
        limit = "no limit" if rule.max_per_profile is None else f"at most {rule.max_per_profile} a profile"
        lines.append(f"  {rule.type:<{width}} {limit}")
    lines.append(f"Traits        {', '.join(settings.profiles.traits) or 'none'}")
    for name, sync in settings.sync.items():
        times = settings.sync_schedule(name) or "by hand"
        lines.append(f"Sync          {name}: {', '.join(sync.properties) or 'no properties'}; {times}")
    if settings.allowed_hosts is not None:
        lines.append(f"Allowed hosts {', '.join(settings.allowed_hosts) or 'none but those of lake and sources'}")
        lines += [f"  refused     {host}" for host in refused_hosts(settings)]
    lines += [
        f"Audience      {name}: {json.dumps(_as_meant(definition), ensure_ascii=False)}"
        for name, definition in settings.profiles.audiences.items()
    ]
    lines += [
        f"Publish       {name}: {target.kind}, {', '.join(target.assets)}" for name, target in settings.publish.items()
    ]
    lines += [
        f"Reverse ETL   {name}: sync {chosen.sync} of {chosen.kind} reads {', '.join(chosen.reads)}"
        for name, chosen in settings.reverse_etl.items()
    ]
    lines += [f"Check         {name}: {threshold:g}" for name, threshold in settings.checks.items()]
    lines.append(
        f"Keep          {settings.keep.snapshot_days} days of snapshots{', month ends' * settings.keep.month_ends}"
    )
    owner = f"by {settings.run.owner}" if settings.run.owner else "team by team"
    lines.append(f"Run           owned {owner}; the warehouse is read at {settings.run.warehouse_schedule} UTC")
    lines.append(f"Alerts        {', '.join(alert.kind for alert in settings.alerts) or 'none'}")
    return lines


def _width(names: Iterable[str]) -> int:
    return max(map(len, names), default=0) + 1


def _as_meant(setting: Any) -> Any:
    """Return settings with numbers and truth values in place of unquoted text that is one."""
    if isinstance(setting, dict):
        return {key: _as_meant(value) for key, value in setting.items()}
    if isinstance(setting, list):
        return [_as_meant(value) for value in setting]
    return setting.value if isinstance(setting, Unquoted) and setting.is_canonical else setting


def _event_tables(tables: list[str], accept: str) -> str:
    if tables:
        return f"{len(tables)} event tables: {_first(tables)}"
    next_step = (
        "`heap-assets catalogue accept` takes in what has landed"
        if accept == "never"
        else "`heap-assets dev` takes in what the source holds"
    )
    return f"no event table is known yet: {next_step} (heap.tables.accept: {accept})"


def _first(names: list[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _rules_text(rules: dict[str, object] | list[dict[str, object]]) -> str:
    sets = rules if isinstance(rules, list) else [rules]
    return " or ".join(" and ".join(f"{column} {condition}" for column, condition in rule.items()) for rule in sets)


def _where(source: object) -> str:
    for name in ("bucket", "path", "dataset"):
        if getattr(source, name, None) is not None:
            return str(getattr(source, name))
    return ""


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, allow_dash=True), help=f"[default: {SCHEMA_FILE} beside the settings]"
)
def schema(out: Path | None) -> None:
    """Write the JSON Schema of heap_assets.yaml, by which editors complete, explain and check its keys.

    `heap-assets init` writes it too, and the line `# yaml-language-server: $schema=./heap_assets.schema.json` that
    editors find it by. Write it again after an upgrade, or when a connector of your own is installed. `-` prints it.
    """
    if out == Path("-"):
        click.echo(schema_text(), nl=False)
        return
    path = out or settings_path().parent / SCHEMA_FILE
    path.write_text(schema_text())
    click.echo(f"Wrote {path}")


def schema_text() -> str:
    """Return the schema as JSON, with the names of thresholds as the keys of `checks:`."""
    document = settings_schema()
    checks = document["properties"]["checks"]
    number = checks.pop("additionalProperties")
    checks["properties"] = {
        threshold.name: {**number, "default": threshold.default, "description": threshold.metadata["meaning"]}
        for threshold in fields(Thresholds)
    }
    checks["additionalProperties"] = False
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
