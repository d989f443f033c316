"""`heap-assets docs`: the pages of docs/ that are made from code, so that they say what it does."""

from __future__ import annotations

from collections.abc import Mapping

import click

from heap_assets.cli.command_docs import cli_page
from heap_assets.cli.output import progress
from heap_assets.cli.settings_docs import connectors_page, settings_page
from heap_assets.config import settings_path
from heap_assets.project import Project, open_project


@click.command(epilog="Status 1: with --check, a page is out of date.")
@click.option("--check", "only_check", is_flag=True, help="Only say which pages are out of date")
def docs(only_check: bool) -> None:
    """Write the pages of docs/ that are made from settings models, definitions, connectors and commands."""
    folder = settings_path().parent / "docs"
    outdated = 0
    with progress("Making the pages"):
        pages = generated_pages(open_project())
    for name, text in pages.items():
        path = folder / name
        if path.is_file() and path.read_text() == text:
            continue
        outdated += 1
        if only_check:
            click.echo(f"{path} is out of date: run `make docs`")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            click.echo(f"Wrote {path}")
    if not outdated:
        click.echo(f"The generated pages of {folder} are up to date")
    raise SystemExit(1 if only_check and outdated else 0)


def generated_pages(project: Project) -> Mapping[str, str]:
    """Return the pages that are made from code: path below docs/ to text."""
    from heap_assets.cli.main import _group  # which knows this module
    from heap_assets.orchestration.check_docs import checks_document, failed_checks_page  # Dagster takes a second
    from heap_assets.orchestration.definitions import build_definitions
    from heap_assets.orchestration.table_docs import tables_page

    definitions = build_definitions(project)
    return {
        "reference/cli.md": cli_page(_group),
        "checks.md": checks_document(definitions),
        "how_to/failed_checks.md": failed_checks_page(definitions),
        "reference/connectors.md": connectors_page(),
        "reference/settings.md": settings_page(type(project.settings)),
        "reference/tables.md": tables_page(definitions),
    }
