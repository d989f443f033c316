"""`heap-assets diff`: what another settings file would change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from heap_assets.pipelines.difference import Count, Difference, difference
from heap_assets.project import Project, load_catalogue, load_settings, open_project


@click.command(epilog="Status 1: with --exit-code, something would change.")
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as for a comment on a pull request")
@click.option("--exit-code", is_flag=True, help="End with status 1 if anything would change, as git diff does")
def diff(other: Path, as_json: bool, exit_code: bool) -> None:
    """Say what the settings file OTHER would change: profiles, traits, audiences, rows to send, days. Writes nothing.

    heap-assets diff proposed.yaml
    """
    project = open_project()
    settings = load_settings(other)
    # its own, if there is one beside it: a change may accept tables
    catalogue = load_catalogue(settings, project.lake) if settings.catalogue.exists() else project.catalogue
    compared = difference(
        project,
        Project(settings, catalogue, project.lake, other),
        lambda stage: click.echo(f"... {stage}", err=True),
    )
    click.echo(json.dumps(compared.as_dict(), indent=2) if as_json else "\n".join(_text(compared, other)))
    if exit_code and not compared.is_empty:
        raise SystemExit(1)


def _text(compared: Difference, other: Path) -> Iterator[str]:
    yield f"What {other} would change, as of {compared.day} (nothing was written)"
    if compared.is_empty:
        yield "Nothing."
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in compared.kinds.items())
    yield _line("profiles", compared.profiles, kinds)
    yield _line("conflicts", compared.conflicts)
    yield _line("shared values", compared.shared)
    for name, trait in compared.traits.items():
        yield _line(f"trait {name}", trait.filled, f"{trait.changed:,} profiles with another value")
    for name, audience in compared.audiences.items():
        yield _line(f"audience {name}", audience.members, f"{audience.entered:,} enter, {audience.left:,} leave")
    for name, rows in compared.syncs.items():
        yield _line(f"rows sent by sync/{name}", rows)
    for asset, days in compared.days.items():
        yield f"  {asset:<44}{days:>10,} {'day' if days == 1 else 'days'} built anew"


def _line(label: str, count: Count, more: str = "") -> str:
    same = count.before == count.after
    number = f"{count.before:>10,}" if same else f"{count.before:>10,} -> {count.after:,}"
    return f"  {label:<44}{number}{f'   {more}' if more else ''}"
