"""What the local servers share: a journal that survives kills, a request log, fault orders, and inspection.

State is a fold over the journal: one JSON line per API request, with its body where it was accepted. A line is
written out before its request is answered, so whatever a client was told is there after a kill; a line torn by the
kill was never answered and is cut off on the next start.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from heap_assets.demo.server_faults import Fault, FaultOrders
from heap_assets.demo.server_http import Request, Response, json_response
from heap_assets.demo.server_limits import RateLimiter
from heap_assets.errors import SettingsError

_KEPT_REQUESTS = 2000
_KEPT_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One API request after the rules were applied to it.

    Attributes
    ----------
    response
        What the server answers if nothing goes wrong.
    effect
        What happens to the state, as JSON; None if nothing does.
    keys
        The key of each row (identity, account id, idempotency key, message id), for fault orders.
    """

    response: Response
    effect: Any = None
    keys: Sequence[str] = ()


class Api(Protocol):
    """The rules of one vendor. `check` decides, `apply` changes the state, and is a function of its arguments only."""

    limiter: RateLimiter

    def handles(self, path: str) -> bool: ...
    def check(self, request: Request) -> Call: ...
    def limited(self, request: Request, call: Call) -> Response | None: ...
    def refusal(self, status: int, rows: Sequence[int] | None) -> Response: ...
    def apply(self, path: str, effect: Any, at: float) -> None: ...
    def state(self, query: Mapping[str, str]) -> dict[str, Any]: ...
    def configure(self, values: Mapping[str, Any]) -> None: ...
    def reset(self) -> None: ...


class LocalServer:
    """Serves one :class:`Api`, and `/_state`, `/_requests`, `/_reset`, `/_faults`, `/_config`, `/_seed` beside it."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.faults = FaultOrders()
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._clear_log()
        self._load()
        self._journal = self._path.open("ab", buffering=0)

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path.startswith("/_"):
            try:
                return self._inspect(request)
            except (SettingsError, ValueError, TypeError) as error:
                return json_response({"error": str(error)}, 400)
        return self._api(request)

    def _api(self, request: Request) -> Response:
        if not self.api.handles(request.path):
            return self._answer(request, Response(404, b'{"error":"no such path"}'), None, [], None)
        call = self.api.check(request)
        fault = self.faults.choose(request.path, call.keys)
        if fault is not None and not fault.answers:
            return self._answer(request, self._refused(fault, call), None, call.keys, fault)
        if fault is not None and not fault.apply:
            lost = replace(call.response, ending=fault.ending)
            return self._answer(request, lost, None, call.keys, fault)
        if limited := self.api.limited(request, call):
            return self._answer(request, limited, None, call.keys, fault)
        response = call.response
        if fault is not None:
            response = replace(response, delay=fault.seconds, ending=fault.ending)
        return self._answer(request, response, call.effect, call.keys, fault)

    def _refused(self, fault: Fault, call: Call) -> Response:
        rows = fault.matching(call.keys) if fault.say_which else None
        response = self.api.refusal(fault.status, rows)
        if fault.retry_after is not None:
            response = replace(response, headers={"Retry-After": f"{fault.retry_after:g}"})
        return response

    def _answer(
        self, request: Request, response: Response, effect: Any, keys: Sequence[str], fault: Fault | None
    ) -> Response:
        at = time.time()
        line: dict[str, Any] = {"at": at, "path": request.path, "status": response.status, "rows": len(keys)}
        if fault is not None:
            line["fault"] = fault.kind
        if effect is not None:
            line["effect"] = effect
            self.api.apply(request.path, effect, at)
        self._journal.write(_json(line) + b"\n")
        line.pop("effect", None)
        self._remember({**line, "method": request.method, "applied": effect is not None}, request.body)
        return response

    def _load(self) -> None:
        if not self._path.exists():
            return
        good = 0
        with self._path.open("rb") as journal:
            for raw in journal:
                if not raw.endswith(b"\n"):
                    break
                line = json.loads(raw)
                good += len(raw)
                if "effect" in line:
                    self.api.apply(line["path"], line.pop("effect"), line["at"])
                if not line["path"].startswith("/_"):
                    self._count(line)
        if good < self._path.stat().st_size:
            with self._path.open("r+b") as journal:
                journal.truncate(good)

    def _clear_log(self) -> None:
        self._recent: deque[tuple[dict[str, Any], bytes]] = deque()
        self._recent_bytes = 0
        self._per_path: Counter[str] = Counter()
        self._per_status: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()

    def _count(self, line: Mapping[str, Any]) -> None:
        self._per_path[line["path"]] += 1
        self._per_status[str(line["status"])] += 1
        self._rows[line["path"]] += line["rows"]

    def _remember(self, line: dict[str, Any], body: bytes) -> None:
        self._count(line)
        self._recent.append((line, body))
        self._recent_bytes += len(body)
        while len(self._recent) > _KEPT_REQUESTS or self._recent_bytes > _KEPT_BODY_BYTES:
            self._recent_bytes -= len(self._recent.popleft()[1])

    def _inspect(self, request: Request) -> Response:
        if request.method == "GET" and request.path == "/_state":
            return json_response(self.api.state(request.query))
        if request.method == "GET" and request.path == "/_requests":
            return json_response(self._requests(int(request.query.get("last", 0)), "bodies" in request.query))
        if request.method == "GET" and request.path == "/_faults":
            return json_response(self.faults.describe())
        if request.method != "POST":
            return json_response({"error": f"{request.method} {request.path} is not known"}, 404)
        value = json.loads(request.body or b"null")
        if request.path == "/_faults":
            self.faults.replace(value)
        elif request.path == "/_config":
            self.api.configure(value or {})
        elif request.path == "/_seed":
            self._seed(value)
        elif request.path == "/_reset":
            self._reset()
        else:
            return json_response({"error": f"POST {request.path} is not known"}, 404)
        return json_response({})

    def _requests(self, last: int, bodies: bool) -> dict[str, Any]:
        recent = list(self._recent)[-last:] if last else []
        return {
            "count": self._per_path.total(),
            "paths": dict(self._per_path),
            "statuses": dict(self._per_status),
            "rows": dict(self._rows),
            "last": [{**line, "body": body.decode(errors="replace")} if bodies else line for line, body in recent],
        }

    def _seed(self, value: Any) -> None:
        at = time.time()
        line = {"at": at, "path": "/_seed", "status": 200, "rows": 0, "effect": value}
        self.api.apply("/_seed", value, at)
        self._journal.write(_json(line) + b"\n")

    def _reset(self) -> None:
        self.api.reset()
        self.api.limiter.clear()
        self.faults.replace([])
        self._clear_log()
        self._journal.truncate(0)


def _json(line: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # half of a surrogate pair, or a number beyond 64 bits
        return json.dumps(line, separators=(",", ":")).encode()
