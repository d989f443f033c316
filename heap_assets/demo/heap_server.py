"""A local stand-in of Heap's HTTP API that enforces its documented rules (heap.md 1.1-1.9, 1.13).

``python -m heap_assets.demo.heap_server --port 0 --state FOLDER --port-file FILE [--app-id 11]``

Inspect it over ``GET /_state`` and ``GET /_requests``, break it over ``POST /_faults`` (server_faults.py), tune it
over ``POST /_config``, make users known over ``POST /_seed``, empty it over ``POST /_reset``.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import functools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heap_assets.demo.server_core import Call, LocalServer
from heap_assets.demo.server_heap_rules import (
    Refused,
    app_id_of,
    check_account,
    check_event,
    check_identity,
    check_timestamp,
    check_user,
    check_user_id,
    parse_body,
    rows_of,
)
from heap_assets.demo.server_heap_state import AppState
from heap_assets.demo.server_http import Request, Response, json_response, serve
from heap_assets.demo.server_limits import Limit, RateLimiter
from heap_assets.errors import SettingsError

TRACK, USERS = "/api/track", "/api/add_user_properties"
ACCOUNTS, IDENTIFY = "/api/add_account_properties", "/api/v1/identify"
TOKEN, DELETION, STATUS = "/api/public/v0/auth_token", "/api/public/v0/user_deletion", "/api/public/v0/deletion_status/"

SINGLE_PER_IDENTITY = Limit(30, 30)
BULK_EVENTS_PER_IDENTITY = Limit(1000, 60)
BULK_EVENTS_PER_APP = Limit(15_000, 60)

TOKEN_SECONDS = 300
MAX_DELETIONS = 10_000

_OK_TEXT = Response(200, b"OK", "text/plain")
_BULK = {
    TRACK: ("events", check_event),
    USERS: ("users", check_user),
    ACCOUNTS: ("accounts", check_account),
}


class HeapApi:
    """Heap's rules over the state of one or more apps.

    Parameters
    ----------
    app_ids
        The environments that exist; empty means any.
    region
        `us` or `eu`. With `eu`, `wrong_ports` are the US host: calls there fail (heap.md 1.13).
    bulk_invalid
        `reject`: one bad row refuses the request; `drop`: bad rows vanish in silence. Heap documents neither
        (heap.md 1.3), a client has to live with both.
    """

    def __init__(self, app_ids: Sequence[str] = (), wrong_ports: Sequence[int] = ()) -> None:
        self.app_ids = tuple(app_ids)
        self.wrong_ports = frozenset(wrong_ports)
        self.limiter = RateLimiter()
        self.bulk_invalid = "reject"
        self.retry_after = True
        self.token = ""
        self.token_dies_at = 0.0
        self.apps: dict[str, AppState] = {}

    def handles(self, path: str) -> bool:
        return path in (TRACK, USERS, ACCOUNTS, IDENTIFY, TOKEN, DELETION) or path.startswith(STATUS)

    def check(self, request: Request) -> Call:
        """Apply the rules of the path; a broken one is a 400 that does not say which, as Heap's is."""
        if request.path.startswith("/api/public/"):
            return self._deletion(request)
        if request.method != "POST":
            return Call(Response(405))
        try:
            if request.port in self.wrong_ports:
                raise Refused("an EU environment is not served by the US host")
            if request.content_type != "application/json":
                raise Refused("Content-Type is not application/json")
            return self._ingestion(request.path, parse_body(request.body))
        except Refused as refused:
            return Call(_refused(request.path, str(refused)))

    def _ingestion(self, path: str, body: dict[str, Any]) -> Call:
        app_id = app_id_of(body)
        if self.app_ids and app_id not in self.app_ids:
            raise Refused("no such environment")
        if path == IDENTIFY:
            check_user_id(body.get("user_id"))
            check_identity(body.get("identity"))
            check_timestamp(body)
            join = {"user_id": body["user_id"], "identity": body["identity"]}
            return Call(Response(200), {"app": app_id, "rows": [join]}, [body["user_id"]])
        name, check = _BULK[path]
        rows = rows_of(body, name)
        if rows is None:
            single = check({key: value for key, value in body.items() if key != "app_id"})
            checked, bulk = [single], False
        else:
            checked, bulk = self._checked(rows, check), True
        keys = [_key(path, row) for row in checked]
        effect = {"app": app_id, "rows": checked, "bulk": bulk}
        return Call(_OK_TEXT if path == ACCOUNTS else Response(200), effect, keys)

    def _checked(self, rows: Sequence[Any], check: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
        if self.bulk_invalid == "reject":
            return [check(row) for row in rows]
        return list(_without_bad(rows, check))

    def limited(self, request: Request, call: Call) -> Response | None:
        """Refuse with 429 what is over a documented limit (heap.md 1.4); nothing of it is applied."""
        if call.effect is None or request.path not in (TRACK, USERS):
            return None
        app, rows = call.effect["app"], call.effect["rows"]
        persons = Counter(f"{app}|{row.get('identity') or row.get('user_id')}" for row in rows)
        if not call.effect["bulk"]:
            requested = [(f"single|{request.path}|{person}", SINGLE_PER_IDENTITY, 1) for person in persons]
        elif request.path == TRACK:
            requested = [(f"bulk|{person}", BULK_EVENTS_PER_IDENTITY, events) for person, events in persons.items()]
            requested.append((f"app|{app}", BULK_EVENTS_PER_APP, len(rows)))
        else:
            return None
        wait = self.limiter.take(requested)
        if not wait:
            return None
        headers = {"Retry-After": f"{wait:.3f}"} if self.retry_after else {}
        return Response(429, b"{}", headers=headers)

    def refusal(self, status: int, rows: Sequence[int] | None) -> Response:
        return Response(status) if rows is None else json_response({"errors": [{"index": row} for row in rows]}, status)

    def apply(self, path: str, effect: Any, at: float) -> None:
        if path == "/_seed":
            self._app(effect.get("app_id") or self._default_app()).seed(effect)
            return
        app = self._app(effect["app"])
        if path == DELETION:
            app.delete(effect["id"], effect["users"])
            return
        for row in effect["rows"]:
            if path == TRACK:
                app.track(row)
            elif path == USERS:
                app.add_user_properties(row)
            elif path == ACCOUNTS:
                app.add_account_properties(row)
            else:
                app.join(row, at)

    def state(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return one app's state: `?app_id=`, `?only=summary`, or `?identity=` for one user."""
        app_id = query.get("app_id") or self._default_app()
        app = self._app(app_id)
        if "identity" in query:
            return {"app_id": app_id, "user": app.users.get(query["identity"])}
        head = {"app_id": app_id, "apps": sorted(self.apps), "summary": app.summary()}
        if query.get("only") == "summary":
            return head
        return {
            **head,
            "users": app.users,
            "ghost_users": app.ghosts(),
            "accounts": app.accounts,
            "events": app.events,
            "identify": app.identify,
            "anonymous": dict(app.anonymous),
            "deletions": app.deletions,
        }

    def configure(self, values: Mapping[str, Any]) -> None:
        """Take `limits` (bool), `window` (sliding|fixed), `window_scale`, `retry_after` (bool), `bulk_invalid`."""
        allowed = {"limits", "window", "window_scale", "retry_after", "bulk_invalid"}
        if unknown := sorted(set(values) - allowed):
            raise SettingsError(f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(allowed))}")
        self.limiter.enabled = bool(values.get("limits", self.limiter.enabled))
        self.limiter.sliding = values.get("window", "sliding" if self.limiter.sliding else "fixed") == "sliding"
        self.limiter.scale = float(values.get("window_scale", self.limiter.scale))
        self.limiter.clear()
        self.retry_after = bool(values.get("retry_after", self.retry_after))
        self.bulk_invalid = str(values.get("bulk_invalid", self.bulk_invalid))

    def reset(self) -> None:
        self.apps.clear()

    def _app(self, app_id: str) -> AppState:
        return self.apps.setdefault(app_id, AppState())

    def _default_app(self) -> str:
        return self.app_ids[0] if self.app_ids else next(iter(self.apps), "11")

    def _deletion(self, request: Request) -> Call:
        """The user deletion API, on the same host for both regions (heap.md 1.8)."""
        if request.path == TOKEN:
            user, _ = _basic(request.headers.get("authorization", ""))
            if not user or (self.app_ids and user not in self.app_ids):
                return Call(json_response({"err": "Unauthorized"}, 401))
            self.token, self.token_dies_at = f"{user}:{uuid.uuid4()}", time.monotonic() + TOKEN_SECONDS
            return Call(json_response({"access_token": self.token}))
        expired = time.monotonic() > self.token_dies_at
        if expired or request.headers.get("authorization") != f"Bearer {self.token}":
            return Call(json_response({"error": "Unauthorized", "message": "Unauthorized"}, 401))
        app = self.token.partition(":")[0]
        if request.path.startswith(STATUS):
            request_id = request.path.removeprefix(STATUS)
            if request_id not in self._app(app).deletions:
                return Call(json_response({"error": "not found"}, 404))
            return Call(json_response({"deletion_request_id": request_id, "status": "complete"}))
        return self._delete(request, app)

    def _delete(self, request: Request, app: str) -> Call:
        try:
            users = parse_body(request.body).get("users")
        except Refused as refused:
            return Call(json_response({"error": "Bad Request", "message": str(refused)}, 400))
        if not isinstance(users, list) or len(users) > MAX_DELETIONS or not all(map(_deletable, users)):
            return Call(json_response({"error": "Bad Request", "message": "users is not as documented"}, 400))
        request_id = str(uuid.uuid4())
        location = f"http://127.0.0.1:{request.port}{STATUS}{request_id}"
        answer = {"deletion_request_location": location, "deletion_request_id": request_id, "status": "pending"}
        return Call(json_response(answer, 201), {"app": app, "id": request_id, "users": users})


def _without_bad(rows: Sequence[Any], check: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        try:
            yield check(row)
        except Refused:
            continue


def _deletable(row: Any) -> bool:
    return isinstance(row, dict) and len(row.keys() & {"user_id", "identity"}) == 1


def _key(path: str, row: Mapping[str, Any]) -> str:
    if path == ACCOUNTS:
        return str(row["account_id"])
    if path == TRACK:
        return str(row.get("idempotency_key") or row.get("identity") or row.get("user_id"))
    return str(row["identity"])


def _refused(path: str, reason: str) -> Response:
    """400: `{}` everywhere, plain text for accounts; the reason goes into a header that Heap does not send."""
    response = Response(400, reason.encode(), "text/plain") if path == ACCOUNTS else Response(400)
    return replace(response, headers={"X-Local-Reason": reason.encode("ascii", "replace").decode()})


def _basic(header: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server until it is stopped."""
    parser = argparse.ArgumentParser(description="Local stand-in of Heap's HTTP API")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps the state over restarts")
    parser.add_argument("--port-file", type=Path, help="gets the port; in EU mode the US host's port as second line")
    parser.add_argument("--app-id", action="append", default=[], help="an environment that exists; default: any")
    parser.add_argument("--region", choices=["us", "eu"], default="us")
    parser.add_argument("--no-limits", action="store_true", help="no rate limits")
    parser.add_argument("--faults", help="fault orders to start with, as JSON")
    options = parser.parse_args(argv)
    ports = [options.port] if options.region == "us" else [options.port, 0]
    serve(functools.partial(_server, options), ports, options.port_file)


def _server(options: argparse.Namespace, ports: Sequence[int]) -> Callable[[Request], Response]:
    api = HeapApi(options.app_id, ports[1:])
    api.configure({"limits": not options.no_limits})
    server = LocalServer(api, options.state)
    if options.faults:
        server.faults.replace(json.loads(options.faults))
    return server.handle


if __name__ == "__main__":
    main()
