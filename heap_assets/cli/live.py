"""`heap-assets live`: the service that takes events in."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from heap_assets.cli.home import dagster_home, use_demo_folder
from heap_assets.config import settings_path
from heap_assets.live import LiveLoop, LivePage, LiveService, Reporter, serve
from heap_assets.project import Project, open_project


@click.command(epilog="SIGTERM and SIGINT end it: calls that are being answered are answered, and what came is kept.")
@click.option("--host", help="Address to listen on [default: live.host]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for a free one [default: live.port]")
@click.option("--demo", is_flag=True, help="On the state of `heap-assets demo`, with people who do something")
def live(host: str | None, port: int | None, demo: bool) -> None:
    """Take in what the sources of `inbox:` post, kept on disk before it is answered; syncs that are `live` follow.

    Its page at / shows what comes in, who it became and what went out, as it happens.
    """
    if not demo:
        _run(open_project(), host, port)
        return
    from heap_assets.cli.demo import local_server
    from heap_assets.demo.live import live_settings, people_of, post_events

    folder = use_demo_folder(None)
    project = open_project(file=live_settings(settings_path(), folder))
    people, stopped = people_of(project), threading.Event()

    def begin(address: str) -> None:
        click.echo(f"Open {address} to see what comes in, who it became and what went out (stop with Ctrl+C)")
        threading.Thread(target=post_events, args=(address, people, stopped), daemon=True).start()

    with ExitStack() as stack:
        for kind in ("heap", "segment"):
            stack.enter_context(local_server(kind, Path(folder)))
        _run(project, host, port, begin)
        stopped.set()


def _run(project: Project, host: str | None, port: int | None, begin: object = None) -> None:
    settings = project.settings.live
    page = LivePage() if settings.page else None
    follows = settings.follow == "service" and any(sync.live for sync in project.settings.sync.values())
    loop = LiveLoop(project, settings.interval_seconds, page.show if page else None) if follows else None

    def ready(address: str) -> None:
        click.echo(f"Listening at {address}")
        if callable(begin):
            begin(address)

    serve(
        LiveService(project, loop, _reporter(project)),
        host or settings.host,
        settings.port if port is None else port,
        page=page,
        ready=ready,
    )


def _reporter(project: Project) -> Reporter | None:
    """Return what tells Dagster, where this machine has a Dagster home."""
    home = dagster_home()
    if home is None:
        return None
    from heap_assets.orchestration.live import live_reporter  # Dagster takes seconds to import

    os.environ.setdefault("DAGSTER_HOME", str(home))
    return live_reporter(project)
