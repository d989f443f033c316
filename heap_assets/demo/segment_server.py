"""A local stand-in of Segment's HTTP tracking API that enforces its documented rules (heap.md 5).

``python -m heap_assets.demo.segment_server --port 0 --state FOLDER --port-file FILE [--write-key KEY]``

As Segment does, it answers 200 to nearly everything: an event that is refused later shows in `rejected` of
``GET /_state`` only. Inspection and fault orders are those of the Heap server.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from heap_assets.demo.server_core import Call, LocalServer
from heap_assets.demo.server_http import Request, Response, json_response, serve
from heap_assets.demo.server_limits import Limit, RateLimiter
from heap_assets.errors import SettingsError

TYPES = ("identify", "track", "page", "screen", "group", "alias")
PATHS = frozenset(f"/v1/{kind}" for kind in (*TYPES, "batch"))
MAX_EVENT_BYTES = 32 * 1024
MAX_BATCH_BYTES = 500 * 1024
MAX_BATCH_EVENTS = 2500
MAX_MESSAGE_ID = 99
REQUESTS_PER_WORKSPACE = Limit(1000, 1)

_OK = json_response({"success": True})


class SegmentApi:
    """Segment's rules; one workspace, one or more write keys.

    Parameters
    ----------
    write_keys
        Known keys; empty means any.
    wrong_ports
        The US host of an EU workspace: answers 200 and loses the data (heap.md 5).
    """

    def __init__(self, write_keys: Sequence[str] = (), wrong_ports: Sequence[int] = ()) -> None:
        self.write_keys = frozenset(write_keys)
        self.wrong_ports = frozenset(wrong_ports)
        self.limiter = RateLimiter(sliding=False)
        self.reset()

    def handles(self, path: str) -> bool:
        return path in PATHS

    def check(self, request: Request) -> Call:
        """400 for what is too large or no JSON, else 200; each event's own fate is in the effect."""
        if request.method != "POST":
            return Call(Response(405))
        kind = request.path.removeprefix("/v1/")
        if len(request.body) > (MAX_BATCH_BYTES if kind == "batch" else MAX_EVENT_BYTES):
            return _bad("request is too large")
        try:
            body = json.loads(request.body)
        except ValueError:
            return _bad("request is not JSON")
        if not isinstance(body, dict):
            return _bad("request is not a JSON object")
        if request.port in self.wrong_ports:
            return Call(_OK, {"lost": len(body.get("batch", [body]))})
        events = body.get("batch") if kind == "batch" else [{**body, "type": kind}]
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            return _bad("batch is not an array of objects")
        if kind == "batch" and any(_size(event) > MAX_EVENT_BYTES for event in events):
            return _bad("an event is larger than 32 KB")
        key = body.get("writeKey") or _basic_user(request.headers.get("authorization", ""))
        return Call(_OK, self._effect(events, key, body), [str(event.get("messageId", "")) for event in events])

    def _effect(self, events: list[dict[str, Any]], key: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        refusal = None
        if not isinstance(key, str) or not key or (self.write_keys and key not in self.write_keys):
            refusal = "write key is missing or unknown"
        elif len(events) > MAX_BATCH_EVENTS:
            refusal = f"batch has more than {MAX_BATCH_EVENTS} events"
        defaults = {name: body[name] for name in ("context", "integrations") if name in body and "batch" in body}
        accepted: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        for index, event in enumerate(events):
            reason = refusal or reject_reason(event)
            event = {"messageId": f"generated-{uuid.uuid4()}", **defaults, **event}
            event.pop("writeKey", None)
            if reason is None:
                accepted.append(event)
            else:
                rejected.append({"messageId": event["messageId"], "index": index, "reason": reason})
        return {"accepted": accepted, "rejected": rejected}

    def limited(self, request: Request, call: Call) -> Response | None:
        wait = self.limiter.take([("workspace", REQUESTS_PER_WORKSPACE, 1)])
        if not wait:
            return None
        headers = {"Retry-After": f"{wait:.3f}", "X-RateLimit-Reset": f"{wait:.3f}"}
        return Response(429, b'{"success":false}', headers=headers)

    def refusal(self, status: int, rows: Sequence[int] | None) -> Response:
        body: dict[str, Any] = {"success": False}
        return json_response(body if rows is None else {**body, "errors": [{"index": row} for row in rows]}, status)

    def apply(self, path: str, effect: Any, at: float) -> None:
        if path == "/_seed":
            raise SettingsError("the Segment server has nothing to seed")
        self.lost += effect.get("lost", 0)
        self.rejected.extend(effect.get("rejected", []))
        for event in effect.get("accepted", []):
            self._accept(event)

    def _accept(self, event: dict[str, Any]) -> None:
        if event["messageId"] in self.events:
            self.repeated += 1
            return
        self.events[event["messageId"]] = event
        user = event.get("userId")
        if event["type"] == "identify" and user:
            self.users.setdefault(user, {}).update(event.get("traits", {}))
        elif event["type"] == "group":
            group = self.groups.setdefault(event["groupId"], {"traits": {}, "members": []})
            group["traits"].update(event.get("traits", {}))
            if user and user not in group["members"]:
                group["members"].append(user)
        elif event["type"] == "alias":
            self.aliases[event["previousId"]] = event["userId"]

    def state(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return everything, or with `?only=summary` the counts."""
        summary = {
            "users": len(self.users),
            "groups": len(self.groups),
            "events": len(self.events),
            "rejected": len(self.rejected),
            "repeated": self.repeated,
            "lost": self.lost,
        }
        if query.get("only") == "summary":
            return {"summary": summary}
        return {
            "summary": summary,
            "users": self.users,
            "groups": self.groups,
            "aliases": self.aliases,
            "events": self.events,
            "rejected": self.rejected,
        }

    def configure(self, values: Mapping[str, Any]) -> None:
        """Take `limits` (bool) and `window_scale`."""
        if unknown := sorted(set(values) - {"limits", "window_scale"}):
            raise SettingsError(f"unknown: {', '.join(unknown)}; known are limits, window_scale")
        self.limiter.enabled = bool(values.get("limits", self.limiter.enabled))
        self.limiter.scale = float(values.get("window_scale", self.limiter.scale))
        self.limiter.clear()

    def reset(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.rejected: list[dict[str, Any]] = []
        self.repeated = 0
        self.lost = 0


def reject_reason(event: Mapping[str, Any]) -> str | None:
    """Say why Segment would drop an event after its 200, or None."""
    kind = event.get("type")
    if kind not in TYPES:
        return f"type {kind!r} is unknown"
    if kind == "alias":
        return None if _id(event, "previousId") and _id(event, "userId") else "alias needs previousId and userId"
    if not _id(event, "userId") and not _id(event, "anonymousId"):
        return "userId and anonymousId are missing"
    if kind == "track" and not _id(event, "event"):
        return "track needs event"
    if kind == "group" and not _id(event, "groupId"):
        return "group needs groupId"
    message_id = event.get("messageId")
    if message_id is not None and (not isinstance(message_id, str) or not 0 < len(message_id) <= MAX_MESSAGE_ID):
        return "messageId is empty, not a string or 100 characters and more"
    for name in ("traits", "properties", "context", "integrations"):
        if not isinstance(event.get(name, {}), dict):
            return f"{name} is not an object"
    return None if _is_time(event.get("timestamp")) else "timestamp is not ISO 8601"


def _id(event: Mapping[str, Any], name: str) -> bool:
    """Whether an id is there; `0` and `"0"` count as missing, as in Segment's own code (heap.md 1.9)."""
    value = event.get(name)
    return isinstance(value, str) and value not in ("", "0")


def _is_time(value: Any) -> bool:
    if value is None:
        return True
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _size(event: Mapping[str, Any]) -> int:
    return len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())


def _bad(reason: str) -> Call:
    return Call(json_response({"success": False, "message": reason}, 400))


def _basic_user(header: str) -> str | None:
    if not header.startswith("Basic "):
        return None
    try:
        return base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server until it is stopped."""
    parser = argparse.ArgumentParser(description="Local stand-in of Segment's HTTP tracking API")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps the state over restarts")
    parser.add_argument("--port-file", type=Path, help="gets the port; in EU mode the US host's port as second line")
    parser.add_argument("--write-key", action="append", default=[], help="a key that exists; default: any")
    parser.add_argument("--region", choices=["us", "eu"], default="us")
    parser.add_argument("--no-limits", action="store_true", help="no rate limits")
    parser.add_argument("--faults", help="fault orders to start with, as JSON")
    options = parser.parse_args(argv)
    ports = [options.port] if options.region == "us" else [options.port, 0]
    serve(functools.partial(_server, options), ports, options.port_file)


def _server(options: argparse.Namespace, ports: Sequence[int]) -> Callable[[Request], Response]:
    api = SegmentApi(options.write_key, ports[1:])
    api.configure({"limits": not options.no_limits})
    server = LocalServer(api, options.state)
    if options.faults:
        server.faults.replace(json.loads(options.faults))
    return server.handle


if __name__ == "__main__":
    main()
