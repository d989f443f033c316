"""`heap-assets prune`: what the `retention` job does every night."""

from __future__ import annotations

from collections import Counter

import click

from heap_assets.pipelines.retention import expired, forget, forget_verdicts, old_verdicts, tidy
from heap_assets.project import open_project


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing")
def prune(dry_run: bool) -> None:
    """Delete days of snapshot-sized tables that `keep` no longer asks for; events and month ends stay."""
    project = open_project()
    days = expired(project)
    counts = Counter(day.asset for day in days) if dry_run else forget(project, days)
    for asset, count in sorted(counts.items()):
        oldest = min(day.partition for day in days if day.asset == asset)
        click.echo(f"{asset:<32}{count:>6} days, from {oldest}")
    results = old_verdicts(project)
    if not dry_run:
        forget_verdicts(project, results)
        click.echo(f"{tidy(project)} files and folders of killed processes are gone")
    click.echo(f"{len(results)} check results {'would go' if dry_run else 'are gone'}")
    click.echo(f"{len(days)} days {'would go' if dry_run else 'are gone'}")
