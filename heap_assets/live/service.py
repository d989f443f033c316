"""The service: endpoint, segments that go into the lake, what follows live, health, metrics, a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from heap_assets import clock
from heap_assets.config import InboxSettings
from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.live.commit import GroupCommit
from heap_assets.live.endpoint import CALLS, Endpoint, call_of
from heap_assets.live.follower import LiveLoop
from heap_assets.live.page import LivePage
from heap_assets.live.threads import to_its_end
from heap_assets.project import Project, message_masker
from heap_assets.sources.inbox import SPOOL, Arrival, SegmentWriter, SpoolError, remove_status, write_status

_LOG: Final = logging.getLogger("heap_assets.live")
_TICK_SECONDS: Final = 0.1
_REPORT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
_STATUS_SECONDS: Final = 15.0
_ASKED_SECONDS: Final = 7200
"""So long a browser need not ask again whether it may post."""


class Follower(Protocol):
    """What follows the messages that came in: live profiles."""

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Take what is on disk by now; called from the event loop, so it must not wait."""

    async def run(self) -> None:
        """Follow until cancelled."""

    def gauges(self) -> Mapping[str, float]:
        """Return figures for the metrics, by name without prefix."""


Reporter = Callable[[Mapping[str, Any]], None]
"""Tells Dagster what came since it was called last; runs in a thread."""


@dataclass
class LiveService:
    """One service on one lake; several may run on the same."""

    project: Project
    follower: Follower | None = None
    reporter: Reporter | None = None
    _since: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        inbox = inbox_settings(self.project)
        self.writer = SegmentWriter(
            self.project.lake.store, spool_folder(self.project), inbox.roll_seconds, inbox.roll_mb << 20
        )
        if isinstance(self.follower, LiveLoop):
            self.follower.own_writer = self.writer.name
        self.commit = GroupCommit(self.writer, inbox.limits.pending_mb << 20, self._committed)
        self.endpoint = Endpoint(inbox, self._keep, message_masker(self.project))
        self.failure: str | None = None
        self.landed = 0
        self.started = time.monotonic()
        self._spool_failed = False
        self.registry = CollectorRegistry()
        self.registry.register(_Metrics(self))

    def app(self, extra: Sequence[Route] = ()) -> Starlette:
        """Return the application; `extra`: further routes."""
        routes = [
            Route("/v1/{call}", self._tracking, methods=["POST", "OPTIONS"], middleware=[self._cors]),
            Route("/webhooks/{source}", self.endpoint.webhook, methods=["POST", "PUT", "PATCH"]),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
            *extra,
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @property
    def _cors(self) -> Middleware:
        """What lets pages of other hosts post: libraries in browsers ask before they do."""
        origins = inbox_settings(self.project).origins
        return Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=["*"], max_age=_ASKED_SECONDS
        )

    async def _tracking(self, request: Request) -> Response:
        if request.method != "POST":
            return JSONResponse({"success": False, "message": "expected POST"}, 405, {"Allow": "POST"})
        if call_of(request.path_params["call"]) is None:
            return JSONResponse({"success": False, "message": f"expected one of {', '.join(CALLS)}"}, 404)
        return await self.endpoint.tracking(request)

    async def _keep(self, arrival: Arrival) -> None:
        try:
            await self.commit.keep(arrival)
        except SpoolError as error:
            self._spool_failed = True
            _LOG.error("%s", error)
            raise
        self._spool_failed = False

    def _committed(self, arrivals: Sequence[Arrival]) -> None:
        if self.follower is not None:
            self.follower.arrived(arrivals)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        if left := self.writer.take_over():
            _LOG.info("%d segments of services that were killed are taken over", left)
            with contextlib.suppress(HeapAssetsError, OSError):  # they are tried again, and said so
                self.landed += await asyncio.to_thread(self.writer.land)
        tasks = [asyncio.create_task(self._land_until_cancelled())]
        if self.follower is not None:
            tasks.append(asyncio.create_task(self.follower.run()))
        tasks.append(asyncio.create_task(self._report_until_cancelled()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.commit.drain()
            self.writer.close_segment()
            try:
                self.landed += await asyncio.to_thread(self.writer.land)
                await asyncio.to_thread(remove_status, self.project.lake.store, self.writer.name)
            except (HeapAssetsError, OSError) as error:
                _LOG.error("what is not in the lake yet stays on disk for the next service: %s", error)

    async def _land_until_cancelled(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self.writer.due:
                continue
            self.writer.close_segment()
            try:
                self.landed += await to_its_end(self.writer.land)
                self.failure = None
            except Exception as error:  # whatever the lake says, what came is on disk, and is tried again
                self.failure = f"{type(error).__name__}: {error}" if isinstance(error, HeapAssetsError) else str(error)
                _LOG.error("messages wait on disk, the lake does not take them: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _report_until_cancelled(self) -> None:
        before = 0
        last_told = time.monotonic()
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            gauges = dict(self.follower.gauges()) if self.follower is not None else {}
            facts = {"accepted": self.endpoint.accepted.total(), "waiting_bytes": self.writer.waiting_bytes, **gauges}
            try:
                store, service = self.project.lake.store, self.writer.name
                await to_its_end(partial(write_status, store, service, clock.now(), facts))
                if self.reporter is not None and time.monotonic() - last_told >= _REPORT_SECONDS:
                    last_told = time.monotonic()
                    messages, before = self.endpoint.accepted.total() - before, self.endpoint.accepted.total()
                    await to_its_end(partial(self.reporter, {"messages": messages, **gauges}))
            except Exception as error:  # the lake or Dagster's storage may be away; what is told next has the totals
                _LOG.warning("what the service did could not be reported: %s", type(error).__name__)

    async def _health(self, request: Request) -> Response:
        del request
        state = {
            "status": "ok" if self.healthy else "failing",
            "seconds": round(time.monotonic() - self.started),
            "accepted": self.endpoint.accepted.total(),
            "waiting_bytes": self.writer.waiting_bytes,
            **({"lake": self.failure} if self.failure else {}),
        }
        return JSONResponse(state, 200 if self.healthy else 503)

    @property
    def healthy(self) -> bool:
        """Whether messages can be kept and get into the lake."""
        return not self._spool_failed and self.failure is None

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Metrics:
    """The service's figures for Prometheus, read when they are asked for."""

    def __init__(self, service: LiveService) -> None:
        self._service = service

    def collect(self) -> list[Metric]:
        service, endpoint = self._service, self._service.endpoint
        answers = CounterMetricFamily("heap_assets_live_answers", "Answers of the endpoint", labels=["status"])
        for status, count in endpoint.answers.items():
            answers.add_metric([str(status)], count)
        accepted = CounterMetricFamily("heap_assets_live_messages", "Messages on disk", labels=["source"])
        for source, count in endpoint.accepted.items():
            accepted.add_metric([source], count)
        refused = CounterMetricFamily(
            "heap_assets_live_refused_messages", "Messages of accepted calls that could not be taken", labels=["source"]
        )
        for source, count in endpoint.refused.items():
            refused.add_metric([source], count)
        figures = {
            "waiting_bytes": (service.writer.waiting_bytes, "Bytes on disk that are not in the lake yet"),
            "landed_messages": (service.landed, "Messages that this service brought into the lake"),
            "write_groups": (service.commit.groups, "Groups of calls that were flushed together"),
            "healthy": (float(service.healthy), "Whether messages can be kept and get into the lake"),
        }
        gauges = [GaugeMetricFamily(f"heap_assets_live_{n}", text, value) for n, (value, text) in figures.items()]
        if service.follower is not None:
            own = service.follower.gauges()
            gauges += [GaugeMetricFamily(f"heap_assets_live_{n}", n.replace("_", " "), v) for n, v in own.items()]
        return [answers, accepted, refused, *gauges]


def inbox_settings(project: Project) -> InboxSettings:
    """Return the `inbox:` section.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if project.settings.inbox is None:
        raise SettingsError("there is no `inbox:` section in the settings: say who may post (docs/live.md)")
    return project.settings.inbox


def spool_folder(project: Project) -> Path:
    """Return where open segments lie.

    Raises
    ------
    SettingsError
        If the lake is no folder and the settings name none.
    """
    inbox = inbox_settings(project)
    own = project.lake.store.local_path(SPOOL)
    if inbox.spool is None and own is None:
        raise SettingsError(
            "inbox.spool is missing: the lake is in an object store; name a folder on a disk that stays"
        )
    return inbox.spool or own or Path()


def serve(
    service: LiveService, host: str, port: int, *, page: LivePage | None = None, ready: Callable[[str], None]
) -> None:
    """Run a service until SIGTERM or SIGINT; calls that are being answered are answered.

    `page`: shown at `/`. `ready`: called with the address once it listens.
    """
    _raise_file_limit()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises it once more when it has stopped
    server = http_server(service, host, port, page=page, ready=ready)
    server.run()
    if not server.started:
        raise SettingsError(f"{host}:{port} cannot be listened on: is another service running there?")


def http_server(
    service: LiveService, host: str, port: int, *, page: LivePage | None = None, ready: Callable[[str], None]
) -> uvicorn.Server:
    """Return the server of a service, with its limits; see :func:`serve`."""
    live, inbox = service.project.settings.live, inbox_settings(service.project)
    config = uvicorn.Config(
        service.app(page.routes if page else ()),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=inbox.limits.connections,
        timeout_graceful_shutdown=int(live.stop_seconds) or 1,
        backlog=4096,
        lifespan="on",
    )
    return _Server(config, ready, page)


class _Server(uvicorn.Server):
    """Says when it listens, and where."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None], page: LivePage | None) -> None:
        super().__init__(config)
        self._ready, self._page = ready, page

    async def shutdown(self, sockets: Any = None) -> None:
        if self._page is not None:
            self._page.close()  # its streams would be waited for
        await super().shutdown(sockets)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            address = self.servers[0].sockets[0].getsockname()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            self._ready(f"http://{host}:{address[1]}")


def _raise_file_limit() -> None:
    """Allow as many open files as this user may have: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
