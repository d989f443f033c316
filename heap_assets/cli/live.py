"""`heap-assets live`: the service that takes events in."""

from __future__ import annotations

import click

from heap_assets.live import LiveLoop, LiveService, serve
from heap_assets.project import open_project


@click.command(epilog="SIGTERM and SIGINT end it: calls that are being answered are answered, and what came is kept.")
@click.option("--host", help="Address to listen on [default: live.host]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for a free one [default: live.port]")
def live(host: str | None, port: int | None) -> None:
    """Take in what the sources of `inbox:` post, kept on disk before it is answered; syncs that are `live` follow."""
    project = open_project()
    settings = project.settings.live
    follows = any(sync.live for sync in project.settings.sync.values())
    serve(
        LiveService(project, LiveLoop(project, settings.interval_seconds) if follows else None),
        host or settings.host,
        settings.port if port is None else port,
        ready=lambda address: click.echo(f"Listening at {address}"),
    )
