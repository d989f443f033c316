"""`heap-assets dev`: the Dagster UI and its daemon on a deployment's state, as one group of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import click
from filelock import FileLock, Timeout

from heap_assets.cli.demo import local_server
from heap_assets.cli.home import use_dagster_home, use_demo_folder, workspace_file
from heap_assets.config import UI_VARIABLE
from heap_assets.errors import SettingsError
from heap_assets.orchestration.code_location import reload_when_the_catalogue_changes
from heap_assets.pipelines.catalogue import accept_first
from heap_assets.project import Project, open_project
from heap_assets.tables import STATUS_REPORT

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 6.0
"""How long processes may take to end by themselves before they are killed; finished work is kept either way."""


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the UI")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the UI")
def dev(port: int, host: str) -> None:
    """Open the Dagster UI and its daemon on this folder's state; the demo's servers too, if the demo was run."""
    folder = use_demo_folder(None)
    project = open_project()
    os.environ.setdefault(UI_VARIABLE, f"http://{host}:{port}")
    home = use_dagster_home()
    with _locked(home):
        _run(project, host, port, home, folder)


def _run(project: Project, host: str, port: int, home: Path, folder: Path) -> None:
    ended = _end_orphaned_runs()
    if ended:
        click.echo(f"Ended {ended} runs of a process that was killed: what they left undone is done again")
    change = accept_first(project)
    if change:
        click.echo(
            f"Took {change.summary} into {change.uri} (heap.tables.accept: {project.settings.heap.tables.accept})"
        )
    url = f"http://{host}:{port}"
    command = [sys.executable, "-m", "heap_assets.cli.dagster_dev", "dev", "--host", host, "--port", str(port)]
    command += ["--workspace", str(workspace_file(home))]
    servers = [local_server("heap", folder), local_server("segment", folder)] if (folder / "servers").is_dir() else []
    click.echo(f"Opening {url} (state in {home}; stop with Ctrl+C)")
    click.echo(f"Begin with {url}/assets/{STATUS_REPORT}: how things stand, and what to do next")
    watcher = threading.Thread(target=reload_when_the_catalogue_changes, args=(project.settings, url), daemon=True)
    watcher.start()
    raise SystemExit(run_group(command, servers))


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Lock the Dagster home: two daemons on one storage would do everything twice."""
    lock = FileLock(home / "dev.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise SettingsError(f"`heap-assets dev` is running on {home} already: stop it first") from error
    try:
        yield
    finally:
        lock.release()


def _end_orphaned_runs() -> int:
    """End the runs of a killed `dev`: they would stay started for ever and keep the slots of their pools."""
    from heap_assets.orchestration.resources import clear_orphaned_runs

    return clear_orphaned_runs()


def run_group(command: Sequence[str], servers: Sequence[AbstractContextManager[object]] = ()) -> int:
    """Run a command and all its children as one process group that ends with this process.

    SIGINT and SIGTERM are passed on to every process of the group; what has not ended 6 s later is killed, at once if a
    second signal comes.
    Returns the command's exit code, 0 if it was asked to stop.
    """
    stop, kill_now = threading.Event(), threading.Event()

    def _stop(number: int, frame: FrameType | None) -> None:
        (kill_now if stop.is_set() else stop).set()

    # Libraries written in Rust install handlers of their own when they are imported: ours must be the last.
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            for server in servers:
                stack.enter_context(server)
            process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  our own interpreter
            try:
                # a wait without a limit is not interrupted by signals on every platform
                while process.poll() is None and not stop.wait(_POLL_SECONDS):
                    pass
            finally:
                _end_group(process, kill_now)
            return 0 if stop.is_set() else process.returncode
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_group(process: subprocess.Popen[bytes], kill_now: threading.Event) -> None:
    """Interrupt the processes of a group, and kill those that do not end in time, or at once on `kill_now`."""
    try:
        os.killpg(process.pid, signal.SIGINT)
        if not _group_ended(process, kill_now):
            os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    # only our own child is waited for: the others are init's, and stay in the group until it takes notice of them
    process.wait()


def _group_ended(process: subprocess.Popen[bytes], kill_now: threading.Event) -> bool:
    """Wait until no process of the group is left, by the clock: on a busy machine a look takes long as well."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until and not kill_now.wait(_POLL_SECONDS):
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
    return False
