"""`heap-assets bi`: files that tell BI tools and dbt of the published tables."""

from __future__ import annotations

from pathlib import Path

import click

from heap_assets.bi import TOOLS
from heap_assets.cli.output import print_json, progress, report_option
from heap_assets.errors import MissingInputError
from heap_assets.pipelines.bi import layer_of, target_of
from heap_assets.project import open_project


@click.command()
@click.argument("tool", type=click.Choice(list(TOOLS)))
@click.option("--target", help="Of the section `publish:` [default: the only one]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder [default: bi/TOOL]")
@report_option
def bi(tool: str, target: str | None, out: Path | None, *, as_json: bool) -> None:
    """Write files that tell a BI tool of the published tables: names, descriptions, types, joins.

    Nothing is connected to: columns are those of the lake's newest days. Files of the same name are replaced. None
    holds a user or a password: those are set up in the tool, best with a role that may only read.
    """
    project = open_project()
    chosen = target_of(project, target)
    with progress("Reading what is published"):
        layer, unbuilt = layer_of(project, chosen)
    if not layer.tables:
        raise MissingInputError(f"nothing of publish.{chosen} is built yet: materialize {', '.join(unbuilt) or 'it'}")
    folder = out or Path("bi") / tool
    count = 0
    for name, text in TOOLS[tool](layer):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        count += 1
    if as_json:
        tables = [table.name for table in layer.tables]
        print_json({"folder": str(folder), "files": count, "tables": tables, "not_built": unbuilt})
        return
    click.echo(f"{count} files for {len(layer.tables)} tables of {chosen} in {folder}")
    if unbuilt:
        click.echo(f"Left out, as no day is built that tells their columns: {', '.join(unbuilt)}", err=True)
