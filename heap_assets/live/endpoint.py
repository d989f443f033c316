"""The endpoint: Segment's calls with write keys, Segment's webhook, signed webhooks of any kind.

200 is answered once every message of a call is on disk. 4xx names the field that is wrong, and never a value.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from heap_assets import clock
from heap_assets.config import InboxSettings, InboxSource
from heap_assets.live.commit import BusyError
from heap_assets.sources.inbox import (
    Arrival,
    Message,
    MessageError,
    Sizes,
    SpoolError,
    all_messages,
    call_messages,
    first_element,
    is_signed,
    parsed,
    webhook_messages,
)

CALLS: Final = ("track", "identify", "group", "page", "screen", "alias", "batch", "import")
_BY_LETTER: Final = {call[0]: call for call in reversed(CALLS)}
"""`/v1/t` is `/v1/track`: so Segment's library for browsers calls them (@segment/analytics-next)."""
_BURST_SECONDS: Final = 10.0
_SIGNATURE: Final = "X-Signature"


def call_of(name: str) -> str | None:
    """Return the call of a path, written out or by its first letter; None if there is no such call.

    >>> call_of("track"), call_of("b"), call_of("import"), call_of("x")
    ('track', 'batch', 'batch', None)
    """
    call = _BY_LETTER.get(name, name)
    return None if call not in CALLS else "batch" if call == "import" else call


Keep = Callable[[Arrival], Awaitable[None]]


class _Bucket:
    """A token bucket of messages: `rate` a second, and as much as ten seconds of it at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate * _BURST_SECONDS
        self._at = time.monotonic()

    def wait_for(self, count: int) -> float:
        """Take `count` tokens and return 0, or return in how many seconds there are so many."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._rate * _BURST_SECONDS)
        self._at = now
        if self._tokens >= min(count, self._rate * _BURST_SECONDS):
            self._tokens -= count
            return 0.0
        return max((count - self._tokens) / self._rate, 1.0)


class Endpoint:
    """Takes calls in; `keep` returns once what a call brought is on disk. `masked`: applied to messages before."""

    def __init__(self, settings: InboxSettings, keep: Keep, masked: Callable[[Message], Message] | None = None) -> None:
        self._settings = settings
        self._keep = keep
        self._masked = masked
        limits = settings.limits
        self._sizes = Sizes(limits.message_kb << 10, limits.batch_messages)
        self._body_bytes = limits.batch_kb << 10
        self._buckets: dict[bytes | str, _Bucket] = {}
        """By the hash of a write key, or the name of a webhook."""
        self._write_keys = {
            _hash(key.get_secret_value()): name
            for name, source in settings.sources.items()
            if source.kind == "tracking"
            for key in source.write_keys
        }
        self.answers: Counter[int] = Counter()
        self.accepted: Counter[str] = Counter()
        """Messages on disk, by source."""
        self.refused: Counter[str] = Counter()
        """Messages of accepted calls that could not be taken, by source."""

    async def tracking(self, request: Request) -> Response:
        """Answer a call to /v1/<call>."""
        return await self._answered(self._track(request))

    async def webhook(self, request: Request) -> Response:
        """Answer a call to /webhooks/<source>."""
        return await self._answered(self._post(request))

    async def _answered(self, taking: Awaitable[tuple[str, list[Message]]]) -> Response:
        try:
            source, messages = await taking
            faults = [message["fault"] for message in messages if "fault" in message]
            self.accepted[source] += len(messages) - len(faults)
            self.refused[source] += len(faults)
            body: dict[str, Any] = {"success": True}
            response: Response = JSONResponse(body | ({"rejected": faults[:_SHOWN]} if faults else {}))
        except MessageError as error:
            headers = {"Retry-After": str(error.retry_after)} if isinstance(error, _ThrottledError) else None
            response = JSONResponse({"success": False, "message": str(error)}, error.status, headers)
        except (SpoolError, BusyError):
            message = "messages cannot be kept now: try again"
            response = JSONResponse({"success": False, "message": message}, 503, {"Retry-After": "5"})
        except ClientDisconnect:
            response = Response(status_code=400)
        self.answers[response.status_code] += 1
        return response

    async def _track(self, request: Request) -> tuple[str, list[Message]]:
        kind = call_of(request.path_params["call"])
        assert kind is not None
        body = await self._body(request)
        received = clock.now()
        call = parsed(body)
        key = _key_of_header(request.headers.get("authorization", ""))
        if key is None and isinstance(call, dict) and isinstance(call.get("writeKey"), str):
            key = call["writeKey"]
        source = self._write_keys.get(_hash(key)) if key else None
        if source is None:
            raise MessageError("unknown" if key else "missing", "writeKey", 401)
        messages = call_messages(call, kind, received, self._sizes, len(body))
        return await self._kept(source, _hash(str(key)), received, messages)

    async def _post(self, request: Request) -> tuple[str, list[Message]]:
        name = request.path_params["source"]
        source = self._settings.sources.get(name)
        if source is None or source.kind == "tracking":
            raise MessageError("there is no such webhook", status=404)
        body = await self._body(request)
        received = clock.now()
        if source.kind == "segment":
            messages = self._of_segment(source, request, body, received)
        else:
            _check_signature(source, request.headers.get(source.signature_header), body, source.algorithm)
            paths = {"id": source.id, "time": source.time, "event": source.event}
            messages = webhook_messages(parsed(body), name, received, paths, self._sizes)
        return await self._kept(name, name, received, messages)

    def _of_segment(self, source: InboxSource, request: Request, body: bytes, received: datetime) -> list[Message]:
        assert source.kind == "segment"
        signature = request.headers.get(_SIGNATURE)
        first = first_element(body)
        try:
            _check_signature(source, signature, body, "sha1")
        except MessageError:
            if first is None or not signature:
                raise
            _check_signature(source, signature, first, "sha1")
            if source.batches == "refuse":
                raise MessageError(
                    "it is of the first message only: turn batches off at the destination, or set batches: trust",
                    _SIGNATURE,
                    401,
                ) from None
        call = parsed(body)
        if isinstance(call, list):
            return all_messages(call, {}, received, self._sizes, len(body))
        return call_messages(call, "", received, self._sizes, len(body))

    async def _kept(
        self, source: str, sender: bytes | str, received: datetime, messages: list[Message]
    ) -> tuple[str, list[Message]]:
        rate = self._settings.limits.messages_per_second
        bucket = self._buckets.setdefault(sender, _Bucket(rate))
        if wait := bucket.wait_for(len(messages)):
            raise _ThrottledError(f"more than {rate} messages a second", wait)
        if messages:
            messages = list(map(self._masked, messages)) if self._masked is not None else messages
            await self._keep(Arrival(source, received, messages))
        return source, messages

    async def _body(self, request: Request) -> bytes:
        """Read a body, decompressed, within the limits of size and time."""
        too_large = MessageError(f"the body is larger than {self._body_bytes >> 10} KB", status=413)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._body_bytes:
            raise too_large
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._settings.limits.body_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self._body_bytes:
                        raise too_large
                    chunks.append(chunk)
        except TimeoutError:
            seconds = self._settings.limits.body_seconds
            raise MessageError(f"the body did not come within {seconds:g} s", status=408) from None
        data = b"".join(chunks)
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return data
        if encoding not in ("gzip", "deflate"):
            raise MessageError("expected gzip, deflate or none", "Content-Encoding", 415)
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            inflated = inflater.decompress(data, self._body_bytes + 1)
        except zlib.error:
            raise MessageError("the body cannot be decompressed", "Content-Encoding") from None
        if len(inflated) > self._body_bytes:
            raise too_large
        if not inflater.eof:
            raise MessageError("the body ends too early", "Content-Encoding")
        return inflated


_SHOWN: Final = 20


class _ThrottledError(MessageError):
    """More messages than a source may send; `retry_after` in whole seconds."""

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason, status=429)
        self.retry_after = int(wait) + 1


def _check_signature(source: InboxSource, signature: str | None, body: bytes, algorithm: str) -> None:
    assert source.kind != "tracking"
    header = source.signature_header if source.kind == "webhook" else _SIGNATURE
    if not signature:
        raise MessageError("missing", header, 401)
    secrets = [secret.get_secret_value().encode() for secret in source.secrets]
    if not is_signed(body, signature, secrets, algorithm):
        raise MessageError("it is not that of the body under a secret of this source", header, 401)


def _key_of_header(header: str) -> str | None:
    """Return the user of a Basic login; a password is not looked at (RudderStack documents one)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _hash(key: str) -> bytes:
    """Return a hash of a write key: comparing hashes takes no longer for a key that is nearly right."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def counters(endpoint: Endpoint) -> Mapping[str, Counter[Any]]:
    """Return what an endpoint has counted, by the name of the metric."""
    return {"answers": endpoint.answers, "accepted": endpoint.accepted, "refused": endpoint.refused}
