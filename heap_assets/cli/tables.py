"""`heap-assets sql`, `heap-assets report` and `heap-assets docs`."""

from __future__ import annotations

from pathlib import Path

import click

from heap_assets.platform import open_platform


@click.command()
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table")
def sql(query: str | None, as_csv: bool) -> None:
    """Query every table of the lake, read-only; without a query, list the tables.

    heap-assets sql "select count(*) from heap.pageviews where day = '2026-11-01'"
    """
    from heap_assets.lake.sql import connect, views

    platform = open_platform()
    if query is None:
        click.echo("\n".join(views(platform.lake)))
        return
    with connect(platform.lake) as connection:
        rows = connection.sql(query)
        click.echo(rows.pl().write_csv() if as_csv else str(rows), nl=not as_csv)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="heap_assets_report.html", show_default=True)
def report(out: Path) -> None:
    """Write a status page that can be sent to a colleague: one HTML file that opens without a network."""
    from heap_assets.steps.status import status_page

    out.write_text(status_page(open_platform()))
    click.echo(f"Wrote {out}")


@click.command()
@click.option("--check", is_flag=True, help="Only say whether the files are up to date; status 1 if not")
def docs(check: bool) -> None:
    """Write the generated tables of docs/ from the definitions."""
    from heap_assets.steps.documents import outdated, write_documents

    root = Path(__file__).parent.parent.parent
    if check:
        stale = outdated(root)
        click.echo("\n".join(f"{path} is out of date: run `make docs`" for path in stale) or "docs are up to date")
        raise SystemExit(bool(stale))
    for path in write_documents(root):
        click.echo(f"Wrote {path}")
