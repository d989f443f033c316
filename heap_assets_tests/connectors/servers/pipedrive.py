"""A Pipedrive company, API v2: one record a call, search whose index lags, a token budget by day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Fixed, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.pipedrive_fields import OBJECTS, SEARCHABLE, SEARCHED, Fields, tokens


class PipedriveServer(Fields, VendorServer):
    """A company; records are in `records["persons"]`, `["organizations"]` and `["deals"]`.

    `fields["persons"][hash]` is (name, type, {option id: label}) of a custom field; `add_field` makes one.

    Parameters
    ----------
    index_seconds
        How long after a write the search does not know it: it lags, nobody says how long.
    day_tokens, burst
        The company's budget of a day, and calls in 2 s: by plan and seats, from memory.
    headers
        Whether answers tell what is left: both was seen.
    edge_after
        After how many refused calls in a row the edge answers 403; None never.
    """

    token = "token-1"

    def __init__(
        self,
        *,
        index_seconds: float = 0.0,
        day_tokens: int = 30_000,
        burst: int = 20,
        headers: bool = True,
        edge_after: int | None = None,
        **core: Any,
    ) -> None:
        self.index_seconds, self.headers, self.edge_after = index_seconds, headers, edge_after
        self._amounts = (day_tokens, burst)
        self.fields: dict[str, dict[str, tuple[str, str, dict[int, str]]]] = {of: {} for of in OBJECTS}
        self._refused = 0
        self._changed: dict[tuple[str, int], float] = {}
        self._index: dict[tuple[str, str, str], set[int]] = {}
        super().__init__(**core)

    def documented_limits(self) -> list[Limit]:
        day, burst = self._amounts
        return [Sliding("burst", burst, 2), Fixed("daily token budget", day, cost=tokens, zone="UTC")]

    def add_field(self, of: str, name: str, type: str = "varchar", options: dict[int, str] | None = None) -> str:
        """Make a custom field; returns the hash that is its key."""
        code = f"{self.next_id():040x}"
        self.fields[of][code] = (name, type, options or {})
        return code

    def authorise(self, call: Call) -> None:
        if self.edge_after is not None and self._refused >= self.edge_after:
            raise self.refuse(
                Answer(403, "<html>Forbidden</html>", {"Content-Type": "text/html"}), "a throttle is heeded"
            )
        if "api_token" in call.query:
            raise self.refuse(self.unauthorised(call), "the token is sent as a header: a query is logged")
        if self.token not in (call.headers.get("x-api-token"), self.bearer(call)):
            raise self.refuse(self.unauthorised(call), "the token is sent as x-api-token or Bearer")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "", "unauthorized access")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        self._refused += 1
        return self.error(429, "", f"rate limit exceeded: {limit.name if limit else options.get('code', 'burst')}")

    def error(self, status: int, code: str, message: str) -> Answer:
        told = {"success": False, "error": message, "error_info": "Please check developers.pipedrive.com", "data": None}
        return Answer(status, told)

    def finish(self, call: Call, answer: Answer) -> None:
        self._refused = self._refused if answer.status in (403, 429) else 0
        if self.headers and self.limits:
            (burst, day), now = self.limits, self.clock()
            answer.headers |= {
                "x-ratelimit-limit": f"{burst.amount:g}",
                "x-ratelimit-remaining": f"{burst.left(now):g}",
                "x-ratelimit-reset": f"{max(0.0, burst.resets(now) - now):.0f}",
                "x-daily-ratelimit-token-limit": f"{day.amount:.0f}",
                "x-daily-ratelimit-token-remaining": f"{day.left(now):.0f}",
            }

    def wrong(self, rule: str) -> Refused:
        return self.refuse(self.error(400, "", rule), rule)

    @route("GET", "/api/v2/{of}/search")
    def search(self, call: Call, of: str) -> Any:
        self._object(of)
        term, exact = call.query.get("term", ""), call.query.get("exact_match") == "true"
        known = SEARCHED[of]
        names = call.query.get("fields", ",".join(known)).split(",")
        if set(names) - set(known):
            raise self.wrong(f"fields of a search are of {', '.join(known)}")
        if len(term) < (1 if exact else 2):
            raise self.wrong("a term has at least 2 characters, an exact one 1")
        if exact:
            found = {id for name in names for id in self._index.get((of, name, term.lower()), ())}
        else:
            found = {
                id
                for (kind, name, text), ids in self._index.items()
                if kind == of and name in names and term.lower() in text
                for id in ids
            }
        known = [id for id in sorted(found) if self._changed[of, id] + self.index_seconds <= self.clock()]
        rows = [self.table(of)[str(id)] for id in known]
        hits = [
            {"result_score": 1.0, "item": {"type": of[:-1]} | self._item(of, row)}
            for row in rows
            if not row["is_deleted"]
        ]
        return self._page(call, hits, 100, wrap=True)

    def _texts(self, of: str, record: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Return what a record is found by: object, field of a search, text."""
        texts = [(name, record[name]) for name in ("name", "title") if record.get(name)]
        texts += [(kind, one["value"]) for kind in ("email", "phone") for one in record.get(f"{kind}s") or ()]
        held = record["custom_fields"]
        texts += [
            ("custom_fields", v) for c, v in held.items() if v is not None and self.fields[of][c][1] in SEARCHABLE
        ]
        return [(of, name, str(text).lower()) for name, text in texts]

    def _item(self, of: str, record: dict[str, Any]) -> dict[str, Any]:
        if of == "deals":
            return {name: record.get(name) for name in ("id", "title", "value", "status")}
        if of == "organizations":
            return {name: record.get(name) for name in ("id", "name")}
        emails = [one["value"] for one in (record.get("emails") or ())]
        return {
            "id": record["id"],
            "name": record.get("name"),
            "emails": emails,
            "primary_email": (emails or [None])[0],
        }

    @route("GET", "/api/v2/{of}")
    def list_records(self, call: Call, of: str) -> Any:
        described = {f"{one[:-1]}Fields": one for one in OBJECTS}
        if of in described:
            return self._page(call, self._described(described[of]), 500)
        self._object(of)
        since = call.query.get("updated_since", "")
        rows = [row for row in self.table(of).values() if not row["is_deleted"] and row["update_time"] >= since]
        return self._page(call, rows, 500)

    def _page(self, call: Call, rows: list[Any], most: int, *, wrap: bool = False) -> dict[str, Any]:
        limit, start = int(call.query.get("limit", 100)), int(call.query.get("cursor", 0))
        if not 0 < limit <= most:
            raise self.wrong(f"a page has at most {most}")
        more = str(start + limit) if start + limit < len(rows) else None
        data: Any = rows[start : start + limit]
        told = {"success": True, "data": {"items": data} if wrap else data}
        return told | {"additional_data": {"next_cursor": more}}

    def _described(self, of: str) -> list[dict[str, Any]]:
        return [
            {"field_name": name, "field_code": code, "field_type": type, "is_custom_field": True}
            | ({"options": [{"id": id, "label": label} for id, label in options.items()]} if options else {})
            for code, (name, type, options) in self.fields[of].items()
        ]

    @route("GET", "/api/v2/{of}/{id}")
    def read(self, call: Call, of: str, id: str) -> Any:
        return {"success": True, "data": self._there(of, id)}

    @route("POST", "/api/v2/{of}", shape=dict)
    def create(self, call: Call, of: str) -> Any:
        self._object(of)
        name = "title" if of == "deals" else "name"
        if not call.body.get(name):
            raise self.wrong(f"a new record has a {name}")
        self.check_record(call, of)
        return Answer(201, {"success": True, "data": self._write(of, str(self.next_id()), call.body)})

    @route("PATCH", "/api/v2/{of}/{id}", shape=dict)
    def update(self, call: Call, of: str, id: str) -> Any:
        self._there(of, id)
        self.check_record(call, of)
        return {"success": True, "data": self._write(of, id, call.body)}

    @route("DELETE", "/api/v2/{of}/{id}")
    def delete(self, call: Call, of: str, id: str) -> Any:
        self._there(of, id)["is_deleted"] = True
        return {"success": True, "data": {"id": int(id)}}

    def _object(self, of: str) -> None:
        if of not in self.fields:
            raise self.refuse(self.error(404, "", "unknown"), f"the object is one of {', '.join(OBJECTS)}")

    def _there(self, of: str, id: str) -> dict[str, Any]:
        self._object(of)
        record = self.table(of).get(id)
        if record is None or record["is_deleted"]:
            raise self.refuse(self.error(404, "", "not found"))
        return record

    def _write(self, of: str, id: str, values: dict[str, Any]) -> dict[str, Any]:
        now = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record = self.table(of).setdefault(
            id, {"id": int(id), "add_time": now, "is_deleted": False, "custom_fields": {}}
        )
        for text in self._texts(of, record):
            self._index[text].discard(int(id))
        custom = {**record["custom_fields"], **(values.get("custom_fields") or {})}
        record |= {**values, "custom_fields": custom, "update_time": now}
        for text in self._texts(of, record):
            self._index.setdefault(text, set()).add(int(id))
        self._changed[of, int(id)] = self.clock()
        return record
