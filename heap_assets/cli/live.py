"""`heap-assets live`: the service that takes events in."""

from __future__ import annotations

import os

import click

from heap_assets.cli.home import dagster_home
from heap_assets.live import LiveLoop, LiveService, serve
from heap_assets.project import open_project


@click.command(epilog="SIGTERM and SIGINT end it: calls that are being answered are answered, and what came is kept.")
@click.option("--host", help="Address to listen on [default: live.host]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for a free one [default: live.port]")
def live(host: str | None, port: int | None) -> None:
    """Take in what the sources of `inbox:` post, kept on disk before it is answered; syncs that are `live` follow."""
    project = open_project()
    settings = project.settings.live
    follows = settings.follow == "service" and any(sync.live for sync in project.settings.sync.values())
    loop = LiveLoop(project, settings.interval_seconds) if follows else None
    reporter = None
    if (home := dagster_home()) is not None:
        from heap_assets.orchestration.live import live_reporter  # Dagster takes seconds to import

        os.environ.setdefault("DAGSTER_HOME", str(home))
        reporter = live_reporter(project)
    serve(
        LiveService(project, loop, reporter),
        host or settings.host,
        settings.port if port is None else port,
        ready=lambda address: click.echo(f"Listening at {address}"),
    )
