"""What all stand-in servers share: routes, tokens, jobs, limits, faults on demand, and a record of broken rules."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Self
from urllib.parse import parse_qsl

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.routing import Route, Router

from heap_assets_tests.connectors.servers.limits import AtOnce, Fixed, Limit, Sliding
from heap_assets_tests.connectors.servers.parts import (
    Answer,
    Call,
    Fault,
    Job,
    Kind,
    ManualClock,
    Refused,
    Tokens,
    Violation,
)
from heap_assets_tests.connectors.servers.shapes import fits
from heap_assets_tests.connectors.servers.transport import Application, Listener, cut, gone, send_answer

__all__ = [
    "Answer",
    "AtOnce",
    "Call",
    "Fault",
    "Fixed",
    "Job",
    "Limit",
    "ManualClock",
    "Refused",
    "Sliding",
    "Tokens",
    "VendorServer",
    "Violation",
    "route",
]

_OF_WRITES = ("refuse_batch", "accept_then_no_answer", "slow_job", "job_fails")
"""Faults that are about writing: without a `path` they wait for a call that writes."""


@dataclass
class _Fault:
    kind: Fault
    path: re.Pattern[str] | None
    times: float
    skip: int
    options: dict[str, Any]


def route(
    method: str, path: str, kind: Kind | None = None, *, takes: str | None = None, shape: Any = None
) -> Callable[..., Any]:
    """Make a method of a server answer a path.

    Parameters
    ----------
    path
        A Starlette path; its parameters become keyword arguments after the `Call`.
    kind
        `token` calls are neither authorised nor limited; GET reads and others write unless told.
    takes
        Content types that are taken, parted by blanks; JSON if the method has a body and nothing is told. With
        `nothing` among them JSON may be announced and not be there.
    shape
        A template of JSON types (`shapes.fits`) that the body has, before the method sees it.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        what = kind or ("read" if method == "GET" else "write")
        types = takes if takes is not None else "application/json" if method in ("POST", "PUT", "PATCH") else ""
        # several decorators give one method several paths
        function.routes = [*getattr(function, "routes", ()), (method, path, what, types.split(), shape)]  # type: ignore[attr-defined]
        return function

    return mark


class VendorServer:
    """A vendor's API on a local port while it is entered; a vendor is a subclass with its routes and shapes.

    Parameters
    ----------
    clock
        Epoch seconds: `time.time`, or a `ManualClock`.
    limits
        Instead of the documented ones (`documented_limits`).
    latency
        Real seconds that every answer takes.
    keep_calls
        False: `calls` stays empty (benchmarks).
    """

    gzip = False
    """Whether compressed bodies are documented."""
    both_slashes = False
    """Whether a path may end in a slash, too."""
    job_polls = 1
    """How often a job answers that it is running before it is done."""
    job_seconds = 0.0

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        limits: Sequence[Limit] | None = None,
        latency: float = 0.0,
        keep_calls: bool = True,
    ) -> None:
        self.clock, self.latency, self.keep_calls = clock, latency, keep_calls
        self.limits = list(self.documented_limits() if limits is None else limits)
        self.calls: list[Call] = []
        self.records: dict[str, dict[str, dict[str, Any]]] = {}
        """By object and the vendor's own id."""
        self.events: list[dict[str, Any]] = []
        self.lists: dict[str, set[str]] = {}
        """Members of lists and audiences."""
        self.jobs: dict[str, Job] = {}
        self.violations: list[Violation] = []
        self.tokens = Tokens()
        self._faults: list[_Fault] = []
        self._crashes: list[BaseException] = []
        self._numbers = count(1)

    # what a vendor says of itself

    def documented_limits(self) -> list[Limit]:
        return []

    def authorise(self, call: Call) -> None:
        """Raise `Refused` unless the call may come in."""

    def unauthorised(self, call: Call) -> Answer:
        """Answer as to an expired token; vendors with tokens of their own expire them instead."""
        return self.error(401, "unauthorised", "unauthorised")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.error(429, "throttled", "too many requests")

    def broken(self, call: Call, *, status: int = 500) -> Answer:
        return self.error(status, "server_error", "server error")

    def refused_batch(self, call: Call, **options: Any) -> Answer:
        return self.error(400, "refused", "refused")

    def error(self, status: int, code: str, message: str) -> Answer:
        """Shape an error of the whole call."""
        return Answer(status, {"code": code, "message": message})

    def finish(self, call: Call, answer: Answer) -> None:
        """Add the headers that the vendor puts on every answer."""

    # what tests do

    def fail(
        self, kind: Fault, *, path: str | None = None, times: int | None = None, skip: int = 0, **options: Any
    ) -> None:
        """Make the next calls go wrong.

        Parameters
        ----------
        path
            Regular expression searched in the path; without it every call counts that is about data (a write, for
            faults of writes and jobs), and never the call for a token.
        times
            How many calls; without it 1, and for `bad_row` until `heal`.
        skip
            How many that match pass before.
        **options
            `bad_row`: `key`, a value of the row. `accept_then_no_answer`: `seconds` of silence before the cut.
            `slow_job`: `seconds`. Others go to the vendor's method for that answer (`code`, `status`, `wait`, `done`).
        """
        times_ = times or (float("inf") if kind == "bad_row" else 1)
        self._faults.append(_Fault(kind, re.compile(path) if path else None, times_, skip, options))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def broke(self, rule: str, call: Call, *, row: bool = False, key: object = None) -> None:
        self.violations.append(Violation(rule, call.path, row, None if key is None else str(key)))

    # what vendors use

    def refuse(self, answer: Answer, rule: str | None = None) -> Refused:
        return Refused(answer, rule)

    def next_id(self) -> int:
        return next(self._numbers)

    def table(self, name: str) -> dict[str, dict[str, Any]]:
        return self.records.setdefault(name, {})

    def bearer(self, call: Call) -> str:
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else ""

    def is_bad(self, values: Iterable[object], call: Call) -> bool:
        """Whether a row of these values was made bad."""
        return self.bad_row(values, call) is not None

    def bad_row(self, values: Iterable[object], call: Call) -> dict[str, Any] | None:
        """Return the options of the fault that makes a row of these values bad; None if the row is good."""
        if not any(fault.kind == "bad_row" for fault in self._faults):
            return None
        texts = {str(value) for value in values}
        return self._take("bad_row", call, lambda options: str(options["key"]) in texts)

    def start_job(self, call: Call, **state: Any) -> Job:
        now = self.clock()
        slow, fails = self._take("slow_job", call), self._take("job_fails", call)
        ready = now + self.job_seconds + (slow or {}).get("seconds", 3600.0 if slow is not None else 0.0)
        job = Job(f"job-{self.next_id()}", now, ready, self.job_polls, fails, dict(state))
        return self.jobs.setdefault(job.id, job)

    def is_done(self, job: Job) -> bool:
        """Answer one poll of a job."""
        if self.clock() >= job.ready and job.polls <= 0:
            return True
        job.polls -= 1
        return False

    def _take(
        self, kind: Fault, call: Call, fits: Callable[[dict[str, Any]], bool] = lambda options: True
    ) -> dict[str, Any] | None:
        for fault in [f for f in self._faults if f.kind == kind]:
            if fault.path is None:
                about = call.kind == "write" if kind in _OF_WRITES else call.kind != "token"
            else:
                about = fault.path.search(call.path) is not None
            if not about or not fits(fault.options):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            if not fault.times:
                self._faults.remove(fault)
            return dict(fault.options)
        return None

    # the way of a call

    def __enter__(self) -> Self:
        self._listener = Listener(self._router())
        self.url = f"http://127.0.0.1:{self._listener.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self._crashes:
            raise AssertionError(f"{type(self).__name__} itself failed") from self._crashes[0]

    def _router(self) -> Any:
        paths: dict[str, dict[str, tuple[Any, Kind, list[str], Any]]] = {}
        for cls in type(self).__mro__:
            for name, member in vars(cls).items():
                for method, path, kind, takes, shape in getattr(member, "routes", ()):
                    paths.setdefault(path, {}).setdefault(method, (getattr(self, name), kind, takes, shape))

        def endpoint(methods: dict[str, tuple[Any, Kind, list[str], Any]]) -> Any:
            async def answer(scope: Any, receive: Any, send: Any) -> None:
                await self._answer(methods.get(scope["method"]), scope, receive, send)

            return answer

        routes = [Route(path, Application(endpoint(paths[path]))) for path in sorted(paths, key=_openness)]
        router = Router(routes, default=endpoint({}), redirect_slashes=False)
        return _WithoutSlash(router) if self.both_slashes else router

    async def _answer(self, target: Any, scope: Any, receive: Any, send: Any) -> None:
        handler, kind, takes, shape = target or (None, "read", [], None)
        call = Call(
            scope["method"],
            scope["path"],
            QueryParams(scope["query_string"].decode()),
            Headers(raw=scope["headers"]),
            b"",
            self.clock(),
            kind=kind,
        )
        transport = scope["transport"]
        if self._take("cut_before", call) is not None:
            return await cut(transport, receive)
        parts = []
        while (message := await receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        call.raw = b"".join(parts)
        if self.keep_calls:
            self.calls.append(call)
        taken: list[Limit] = []
        try:
            answer = self._guarded(call, (handler, takes, shape), scope.get("path_params", {}), taken)
            if self.latency:
                await asyncio.sleep(self.latency)
        finally:
            call.running = False
            for limit in taken:
                limit.release(call)
        silent = self._take("accept_then_no_answer", call) if answer.status < 400 else None
        if silent is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(gone(receive), silent.get("seconds", 0.0))
            return await cut(transport, receive)
        call.status = answer.status
        await send_answer(send, answer)
        return None

    def _guarded(self, call: Call, target: Any, params: Any, taken: list[Limit]) -> Answer:
        try:
            answer = self._handled(call, target, params, taken)
        except Refused as refused:
            answer = refused.answer
            if refused.rule:
                self.broke(refused.rule, call)
        except Exception as fault:
            self._crashes.append(fault)
            answer = Answer(500, "the stand-in server itself failed")
        self.finish(call, answer)
        return answer

    def _handled(self, call: Call, target: Any, params: Any, taken: list[Limit]) -> Answer:
        handler, takes, shape = target
        if (options := self._take("throttle", call)) is not None:
            return self.throttled(call, options.pop("wait", 1.0), None, **options)
        if (options := self._take("server_error", call)) is not None:
            return self.broken(call, **options)
        if handler is None:
            raise self.refuse(self.error(404, "not_found", "no such path"), f"{call.method} is documented for the path")
        if call.kind != "token":
            if self._take("token_expired", call) is not None:
                self.tokens.expire()
                return self.unauthorised(call)
            self.authorise(call)
        self._decode(call, takes)
        if call.kind != "token":
            self._admit(call, taken)
        if (options := self._take("refuse_batch", call)) is not None:
            return self.refused_batch(call, **options)
        if shape is not None and (call.raw or "nothing" not in takes) and not fits(call.body, shape):
            raise self.refuse(self.malformed("types"), "the members of the body have their types")
        result = handler(call, **params)
        if isinstance(result, Answer):
            return result
        return Answer(204) if result is None else Answer(200, result)

    def _admit(self, call: Call, taken: list[Limit]) -> None:
        now = self.clock()
        for limit in self.limits:
            if wait := limit.wait(call, now):
                raise self.refuse(self.throttled(call, wait, limit), f"limit: {limit.name}")
        for limit in self.limits:
            limit.take(call, now)
            taken.append(limit)

    def _decode(self, call: Call, takes: list[str]) -> None:
        raw, kind = call.raw, call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if coding := call.headers.get("content-encoding"):
            if coding != "gzip" or not self.gzip:
                raise self.refuse(self.error(415, "encoding", "Content-Encoding"), "bodies are not compressed")
            raw = zlib.decompress(raw, 31)
        if raw and kind not in takes:
            raise self.refuse(self.malformed(f"Content-Type {kind!r}"), f"Content-Type is one of {takes or 'none'}")
        if kind == "application/json" and (raw or (takes and "nothing" not in takes)):
            try:
                call.body = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                raise self.refuse(self.malformed(str(error)), "the body is JSON") from error
        elif kind == "application/x-www-form-urlencoded":
            call.body = dict(parse_qsl(raw.decode(), keep_blank_values=True))
        else:
            call.body = raw.decode() if kind.startswith("text/") else raw or None

    def malformed(self, text: str) -> Answer:
        return self.error(400, "malformed", text)


class _WithoutSlash:
    """Hands on paths without the slash at their end."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["path"] = scope["path"].rstrip("/")
        await self._application(scope, receive, send)


def _openness(path: str) -> list[int]:
    """Order paths so that what is spelled out is tried before parameters that would match it."""
    return [("{" in part) + (":path" in part) + (part[:1] == "{") for part in path.split("/")]
