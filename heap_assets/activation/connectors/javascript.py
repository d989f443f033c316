"""Requests that a JavaScript function of one's own returns; the engine sends them, with its limits and retries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, SecretStr

from heap_assets import clock
from heap_assets.activation.connectors.inputs import GenericConnector, ModeSettings
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.exchange import Exchange, Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict, Verdict, reason_of, row_errors
from heap_assets.config import HeapSettings, Host
from heap_assets.errors import SettingsError
from heap_assets.functions import REJECTED, Batch, FunctionFailedError, Pool, bundle, require_limits
from heap_assets.functions import Limits as FunctionLimits
from heap_assets.http_client import AllowedHosts, host_and_port

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-\[\]:]+([/?#][\x21-\x7e]*)?")
"""No user, no backslash, no blank: nothing that two readers of addresses could take for two hosts."""
_REQUEST = {"url", "method", "headers", "body", "rows"}


class JavascriptSync(ModeSettings):
    """Requests that a function of one's own makes of rows, in JavaScript.

    The file's `export default function send(rows, context)` gets a batch of rows, each with `id`, `key` and
    `properties`, and returns a request or a list of them: `{url, method, headers, body, rows}`. `body` is text, or
    anything else as JSON; `rows` are the places of the rows that the request is about, all unless given. It calls
    nobody itself: the engine sends the requests, to `hosts` alone. Secrets stay outside: `headers` are added to each
    request. An edited file sends nothing again; `heap-assets sync resend NAME` does.
    """

    cadence: ClassVar[str] = "* * * * *"
    is_custom: ClassVar[bool] = True

    kind: Literal["javascript"] = "javascript"
    file: str = Field(description="File in the folder of functions, such as send.js")
    hosts: list[Host] = Field(min_length=1, description="Hosts that its requests may go to: host, host:port, *.domain")
    headers: dict[str, SecretStr] = Field(default={}, description="Added to each request, such as a token")
    repeatable: bool = Field(
        default=True, description="Whether a row whose answer was lost may be sent a second time; else it is left alone"
    )
    batch_rows: int = Field(default=100, ge=1, le=10_000, description="Rows of one call of the function")
    rows_per_minute: int | None = Field(default=None, ge=1, description="Rate limit of the receiver")
    seconds: float = Field(default=5.0, gt=0, le=600, description="Processor time of one call of the function")
    memory_mb: int = Field(default=64, ge=8, le=2048, description="Memory of the function")

    def called_url(self, heap: HeapSettings) -> str:
        """Return the first address that may be called."""
        del heap
        return f"https://{self.hosts[0].removeprefix('*.')}"


class JavascriptConnector(GenericConnector[JavascriptSync]):
    """Rows as they come, to a function."""

    settings_model = JavascriptSync

    def destination(self, table: str = "") -> JavascriptDestination:
        return self._destination

    @cached_property
    def _destination(self) -> JavascriptDestination:
        """The one object of this connector: it keeps the function's process."""
        return JavascriptDestination(self.settings, self.deployment.settings.functions.folder, name=self.name)

    @property
    def dedupe(self) -> Dedupe:
        """Return whether a row may arrive twice, as the settings say."""
        return Dedupe("natural" if self.settings.repeatable else "none")

    def check(self) -> None:
        """Check that the file can be read with all that it imports, and that functions can be run here."""
        super().check()
        require_limits()
        try:
            code = bundle(self.deployment.settings.functions.folder, self.settings.file)
        except SettingsError as error:
            raise SettingsError(f"sync.{self.name}.file: {error}") from error
        if "default" not in code.exports:
            raise SettingsError(f"sync.{self.name}.file: {self.settings.file} has no `export default function`")


class JavascriptDestination(BaseDestination):
    """Sends what a function returns for a batch of rows."""

    kind = "javascript"

    def __init__(self, settings: JavascriptSync, folder: Path, *, name: str) -> None:
        self._settings, self._folder, self._name = settings, folder, name
        self._hosts = AllowedHosts.of(settings.hosts)
        self.mode = Mode(settings.mode)
        self.required = ("event_key",) if self.mode is Mode.INSERT else ()
        self.optional = ("event", "time") if self.mode is Mode.INSERT else ()
        self.dedupe = Dedupe("natural" if settings.repeatable else "none")
        rate = (Rate(settings.rows_per_minute, 60),) if settings.rows_per_minute else ()
        self.limits = Limits(batch_rows=settings.batch_rows, rates=rate)

    @property
    def target(self) -> str:
        return f"{self.kind}:{','.join(sorted(host.lower() for host in self._settings.hosts))}"

    @cached_property
    def _pool(self) -> Pool:
        limits = FunctionLimits(
            cpu_seconds=self._settings.seconds, memory_bytes=self._settings.memory_mb << 20, most_stuck=10_000
        )
        now = int(clock.now().timestamp() * 1000)
        code = bundle(self._folder, self._settings.file)
        return Pool(code, limits, mode="batch", now=now, context={"sync": self._name})

    def element(self, row: Row) -> dict[str, Any]:
        facts = {name: row.extra[name] for name in self.optional if row.extra.get(name) is not None}
        content = row.key if self.mode is Mode.INSERT else f"{row.key}:{row.extra.get('row_hash')}"
        return {"id": derived_id(self._name, content), "key": row.person, **facts, "properties": dict(row.values)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._requests(elements)[0][0]

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        """Send the requests of a batch one after the other; rows of a refused one are sent again in smaller batches."""
        try:
            requests = self._requests(elements)
        except (_RefusedResultError, FunctionFailedError) as error:
            return Verdict({}, "not_applied", str(error))
        missing = set(range(len(rows))).difference(*(places for _, places in requests))
        verdicts = {at: RowVerdict("rejected", "the function returned no request for this row") for at in missing}
        accepted: set[int] = set()
        refused: set[int] = set()
        reason = ""
        for request, places in requests:
            response = yield request
            errors = row_errors(response, len(places)) or {}
            verdicts |= {places[at]: RowVerdict("rejected", why) for at, why in errors.items()}
            if response.accepted:
                accepted |= set(places)
            else:
                refused, reason = refused | set(places), reason_of(response)
        unnamed = refused - verdicts.keys()
        if not unnamed:
            return Verdict(verdicts)
        verdicts |= {at: RowVerdict("acknowledged") for at in accepted - refused - verdicts.keys()}
        return Verdict(verdicts, "unknown", reason)

    def _requests(self, elements: Sequence[bytes]) -> list[tuple[Request, list[int]]]:
        """Return the requests that the function makes of a batch, each with the places of its rows."""
        [results] = self._pool.run([Batch(0, [element.decode() for element in elements])])
        kind, returned, place = results.rows[0]
        if kind == REJECTED:
            raise _RefusedResultError(f"{place or self._settings.file}: {returned}")
        listed = returned if isinstance(returned, list) else [returned]
        return [self._request(one, len(elements)) for one in listed]

    def _request(self, returned: Any, rows: int) -> tuple[Request, list[int]]:
        if (
            not isinstance(returned, Mapping)
            or not isinstance(returned.get("url"), str)
            or not returned.keys() <= _REQUEST
        ):
            raise _RefusedResultError(
                "the function must return requests: objects with url, and method, headers, body, rows"
            )
        host, port = host_and_port(returned["url"])
        if not _ADDRESS.fullmatch(returned["url"]) or not self._hosts.allows(host, port):
            raise _RefusedResultError(f"the function returned a request to {host!r}, which is not in `hosts`")
        method, headers, places = returned.get("method", "POST"), returned.get("headers") or {}, returned.get("rows")
        places = list(range(rows)) if places is None else places
        if method not in _METHODS:
            raise _RefusedResultError(f"the function returned a request whose method is none of {', '.join(_METHODS)}")
        if not isinstance(headers, Mapping) or not all(isinstance(value, str) for value in headers.values()):
            raise _RefusedResultError("the function returned headers that are not text")
        if not isinstance(places, list) or not all(type(at) is int and 0 <= at < rows for at in places):
            raise _RefusedResultError("the function returned `rows` that are no places of its rows")
        body = returned.get("body")
        data = b"" if body is None else body.encode() if isinstance(body, str) else orjson.dumps(body)
        own = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        sent = {name: value for name, value in headers.items() if name.lower() not in {each.lower() for each in own}}
        return Request(returned["url"], data, method, {**sent, **own}, rows=len(places)), places


class _RefusedResultError(Exception):
    """What the function returned cannot be sent; nothing was."""
