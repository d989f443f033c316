"""A deployment with an inbox, and `heap-assets live` on it: as a process of its own, or in a thread."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from heap_assets.live import LiveLoop, LivePage, LiveService, http_server
from heap_assets.project import Project, open_project
from heap_assets.sources.inbox import read_parts, stored_parts

WEB_KEY = "wk-web-4f1c2a7e9b30"
SERVER_KEY = "wk-server-0b9d8c7e6f55"
SEGMENT_SECRETS = ("ss-old-a1b2c3d4e5f6", "ss-new-f6e5d4c3b2a1")
SHOP_SECRET = "shop-9f8e7d6c5b4a"
START = 120.0

SETTINGS = """\
start_date: 2026-01-01
lake: {lake}
heap: {{app_id: "11", source: {{kind: folder, path: heap}}}}
inbox:
  sources:
    web: {{kind: tracking, write_keys: ["${{WEB_KEY}}", "${{SERVER_KEY}}"]}}
    segment: {{kind: segment, secrets: ["${{SEGMENT_OLD}}", "${{SEGMENT_NEW}}"]}}
    shop: {{kind: webhook, secrets: "${{SHOP_SECRET}}", id: order.id, time: order.at, event: kind}}
  identifiers: {{user_id: crm_id, anonymous_id: device_id, previous_id: device_id}}
  tables:
    identify: {{columns: {{email: text, plan: text, company: {{path: company.name}}, seats: integer}},
               identifiers: {{email: email}}}}
    group: {{columns: {{name_of_account: {{path: name}}, tier: text}}}}
    track: {{columns: {{total: number}}}}
    shop: {{columns: {{amount: {{path: order.amount, type: number}}}}}}
{inbox}
live: {{port: 0, stop_seconds: 5}}
identity:
  identifiers:
    - {{type: crm_id, max_per_profile: 1}}
    - {{type: email, max_per_profile: 3}}
    - {{type: device_id, max_per_profile: 20}}
{more}
"""

ENVIRONMENT = {
    "WEB_KEY": WEB_KEY,
    "SERVER_KEY": SERVER_KEY,
    "SEGMENT_OLD": SEGMENT_SECRETS[0],
    "SEGMENT_NEW": SEGMENT_SECRETS[1],
    "SHOP_SECRET": SHOP_SECRET,
}


def write_settings(folder: Path, *, lake: str = "lake", inbox: str = "", more: str = "") -> Path:
    """Write a settings file with an inbox; `inbox`: lines below `inbox:`, `more`: further sections."""
    (folder / "heap").mkdir(exist_ok=True)
    file = folder / "heap_assets.yaml"
    file.write_text(SETTINGS.format(lake=lake, inbox=inbox, more=more))
    return file


def opened(file: Path) -> Project:
    """Open the project of a settings file, with the secrets of the tests."""
    os.environ.update(ENVIRONMENT)
    return open_project(file=file)


@dataclass
class Service:
    """A running service."""

    address: str
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """End it as an orchestrator does; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


def start_service(file: Path, environment: Mapping[str, str] | None = None, *arguments: str) -> Service:
    """Start a service and return once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "heap_assets.cli", "live", *arguments],
        env={**os.environ, **ENVIRONMENT, "HEAP_ASSETS_SETTINGS": str(file), **(environment or {})},
        cwd=file.parent,
        stdout=subprocess.PIPE,
        stderr=(file.parent / "service.log").open("ab"),
    )
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(START):
            line = process.stdout.readline().decode()
            if line.startswith("Listening at "):
                return Service(line.split()[-1], process)
            if not line:
                break
    process.kill()
    process.wait(20)
    process.stdout.close()
    raise AssertionError((file.parent / "service.log").read_text()[-2000:])


class ServiceInThread:
    """The same service, server and limits in a thread of the tests: a process of its own costs seconds to start."""

    def __init__(self, file: Path, project: Project) -> None:
        project = replace(project, file=file)
        self.page = LivePage()
        settings = project.settings.live
        loop = LiveLoop(project, settings.interval_seconds, self.page.show)
        follows = any(sync.live for sync in project.settings.sync.values())
        self._listens = threading.Event()
        self._server = http_server(
            *(LiveService(project, loop if follows else None), "127.0.0.1", 0), page=self.page, ready=self._ready
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert self._listens.wait(START)

    def _ready(self, address: str) -> None:
        self.address = address
        self._listens.set()

    def stop(self) -> None:
        """End it as a signal does."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def serving(file: Path) -> Iterator[ServiceInThread]:
    """Run a service in a thread for a block."""
    service = ServiceInThread(file, opened(file))
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def running(file: Path, *arguments: str) -> Iterator[Service]:
    """Run a service for a block."""
    service = start_service(file, None, *arguments)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill()


def landed(project: Project, table: str) -> pl.DataFrame:
    """Return the messages of a table that are in the lake, as they came."""
    store = project.lake.store
    parts = stored_parts(store, table)
    return read_parts(store, parts).collect() if parts else pl.DataFrame(schema={"message_id": pl.String})
