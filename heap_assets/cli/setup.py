"""`heap-assets init` and `heap-assets check`."""

from __future__ import annotations

from datetime import timedelta
from importlib import resources
from pathlib import Path

import click

from heap_assets import clock
from heap_assets.errors import SettingsError
from heap_assets.hosts import refused_hosts
from heap_assets.settings import Settings, load_settings, settings_path


@click.command()
@click.option("--force", is_flag=True, help="Overwrite the file that is there")
def init(*, force: bool) -> None:
    """Write a commented heap_assets.yaml to start from; its start_date is a year back."""
    path = settings_path()
    if path.exists() and not force:
        raise SettingsError(f"{path} exists already; --force overwrites it")
    template = resources.files("heap_assets.settings").joinpath("template.yaml").read_text()
    start = clock.today() - timedelta(days=365)
    path.write_text(template.replace("{start_date}", start.isoformat()))
    click.echo(f"Wrote {path}\nNext: fill it in, then `heap-assets check` and `heap-assets preflight`")


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
def check(path: Path | None) -> None:
    """Read heap_assets.yaml, hold it against catalogue and warehouse, and print what was understood."""
    from heap_assets.platform import open_platform
    from heap_assets.steps.behaviour import check_events
    from heap_assets.steps.filtering import check_columns
    from heap_assets.steps.sync_columns import check_syncs

    settings = load_settings(path)
    platform = open_platform(settings)
    platform.check_columns()
    check_columns(platform)
    doubts = check_events(platform)
    check_syncs(platform)
    click.echo(_understood(settings, sorted(platform.event_tables)))
    for doubt in doubts:
        click.echo(f"Not yet       {doubt}")


def _understood(settings: Settings, event_tables: list[str]) -> str:
    source = settings.heap.source
    lines = [
        f"Heap          environment {settings.heap.app_id}, {settings.heap.region}, {settings.heap.plan} plan",
        f"  source      {source.kind}: {_where(source)}",
        f"  tables      {len(event_tables)} event tables: {_first(event_tables)}",
        *(f"  left out    of {table}: {_spelled(rules)}" for table, rules in settings.heap.tables.leave_out.items()),
        f"Lake          {settings.lake.url}, from {settings.start_date}",
    ]
    if settings.warehouse:
        lines.append(f"Warehouse     {settings.warehouse.kind}, {len(settings.warehouse.tables)} tables")
        for name, table in settings.warehouse.tables.items():
            mapped = ", ".join(f"{column} is {types}" for column, types in table.identifiers.items())
            lines.append(f"  {name:<11} {table.relation} by {table.key}; {mapped or 'identifies nobody'}")
    lines.append(f"Identity      {settings.identity.order} order, strongest first:")
    for rule in settings.identity.identifiers:
        limit = "no limit" if rule.max_per_profile is None else f"at most {rule.max_per_profile} a profile"
        lines.append(f"  {rule.type:<13} {limit}")
    lines.append(f"Traits        {', '.join(settings.profiles.traits) or 'none'}")
    for name, sync in settings.sync.items():
        lines.append(
            f"Sync          {name}: {', '.join(sync.properties) or 'no properties'}; {sync.schedule or 'by hand'}"
        )
    if settings.allowed_hosts is not None:
        lines.append(f"Allowed hosts {', '.join(settings.allowed_hosts) or 'none but those of lake and sources'}")
        lines += [f"  refused     {named}" for named in refused_hosts(settings)]
    lines.append(f"Alerts        {', '.join(alert.kind for alert in settings.alerts) or 'none'}")
    return "\n".join(lines)


def _first(names: list[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _spelled(rules: dict[str, object] | list[dict[str, object]]) -> str:
    sets = rules if isinstance(rules, list) else [rules]
    return " or ".join(" and ".join(f"{column} {said}" for column, said in one.items()) for one in sets)


def _where(source: object) -> str:
    for name in ("bucket", "path", "dataset"):
        if hasattr(source, name):
            return str(getattr(source, name))
    return ""
