"""A Braze workspace: `/users/track` and its export; refused objects are named by their index in their own array."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import fits

ARRAYS = ("attributes", "events", "purchases")
OWN_KEYS = ("external_id", "user_alias", "braze_id")
KEYS = (*OWN_KEYS, "email", "phone")
"""What names a person; e-mail and phone beside a key of the first kind are values like others."""


class BrazeServer(VendorServer):
    """A workspace; profiles are in `records["user"]`, billed data points in `data_points`.

    Parameters
    ----------
    batch
        75 objects of `each` array, or of all `together`: the documents say both.
    most
        75, or 50 by one contract.
    bulk
        Whether `/users/track/bulk` is there: a closed beta by some of its pages.
    queued
        Answer 202 `queued`, as in maintenance.
    calls_in_three_seconds
        By contract.
    """

    api_key = "key-1"
    object_bytes, body_bytes = 100_000, 4 << 20

    def __init__(
        self,
        *,
        batch: str = "together",
        most: int = 75,
        bulk: bool = False,
        queued: bool = False,
        calls_in_three_seconds: int = 3_000,
        **core: Any,
    ) -> None:
        self.batch, self.most, self.bulk, self.queued = batch, most, bulk, queued
        self._in_three_seconds = calls_in_three_seconds
        self.data_points = 0
        self._index: dict[tuple[str, str], list[str]] = {}
        self.permissions = {"users.track", "users.track.bulk", "users.export.ids"}
        super().__init__(**core)

    def documented_limits(self) -> list[Limit]:
        return [
            Sliding("calls in 3 s", self._in_three_seconds, 3, cost=lambda call: call.path == "/users/track"),
            Sliding("50 bulk calls a second", 50, 1, cost=lambda call: call.path == "/users/track/bulk"),
            Sliding("500 synchronous calls a minute", 500, 60, cost=lambda call: call.path == "/users/track/sync"),
        ]

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.api_key:
            raise self.refuse(self.unauthorised(call), "the key is sent as Bearer")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "", "Invalid API Key")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        answer = self.error(429, "", "Rate Limit Exceeded")
        answer.headers["X-Ratelimit-Retry-After"] = f"{max(1, round(wait))}"
        return answer

    def refused_batch(self, call: Call, **options: Any) -> Answer:
        return self.error(400, "", "The request is malformed")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"message": message})

    def finish(self, call: Call, answer: Answer) -> None:
        # a throttled answer lacks the three, and tells when to come back instead
        if answer.status != 429 and self.limits:
            now = self.clock()
            answer.headers["X-RateLimit-Limit"] = f"{self.limits[0].amount:g}"
            answer.headers["X-RateLimit-Remaining"] = f"{self.limits[0].left(now):g}"
            answer.headers["X-RateLimit-Reset"] = f"{self.limits[0].resets(now):.0f}"

    def wrong(self, rule: str, message: str | None = None) -> Refused:
        return self.refuse(self.error(400, "", message or rule), rule)

    @route("POST", "/users/track")
    def track(self, call: Call) -> Any:
        arrays = self._arrays(call, "users.track", self.body_bytes)
        counts = [len(rows) for rows in arrays.values()]
        if (sum(counts) if self.batch == "together" else max(counts)) > self.most:
            raise self.wrong(f"at most {self.most} objects, {self.batch}", "Max Input Length Exceeded")
        return self._take_all(call, arrays)

    @route("POST", "/users/track/bulk")
    def track_bulk(self, call: Call) -> Any:
        if not self.bulk:
            raise self.refuse(self.error(404, "", "Not Found"), "the bulk call is a closed beta")
        arrays = self._arrays(call, "users.track.bulk", 2 << 20)
        rows = [_person(row) for name in arrays for row in arrays[name]]
        if len(rows) > 1_000 or max(map(rows.count, set(rows))) > 100:
            raise self.wrong("at most 1,000 objects, 100 of a person", "Max Input Length Exceeded")
        return self._take_all(call, arrays)

    @route("POST", "/users/track/sync")
    def track_sync(self, call: Call) -> Any:
        arrays = self._arrays(call, "users.track", self.body_bytes)
        if sum(len(rows) for rows in arrays.values()) != 1:
            raise self.wrong("one object")
        return self._take_all(call, arrays)

    def _arrays(self, call: Call, permission: str, most: int) -> dict[str, list[dict[str, Any]]]:
        body = call.body
        if permission not in self.permissions:
            raise self.refuse(self.error(403, "", "no permission"), f"the key has {permission}")
        if call.size > most:
            raise self.refuse(self.error(413, "", "too large"), f"a body has at most {most} bytes")
        if not isinstance(body, dict) or not body or set(body) - set(ARRAYS):
            raise self.wrong(f"the body has {', '.join(ARRAYS)}")
        if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in body.values()):
            raise self.wrong("they are lists of objects")
        if not any(body.values()):
            raise self.wrong("there is at least one object")
        return body

    def _take_all(self, call: Call, arrays: dict[str, list[dict[str, Any]]]) -> Answer:
        errors: list[dict[str, Any]] = []
        # one bad value in a nested attribute drops every nested update of the request
        nested = not any(_bad_nested(value) for row in arrays.get("attributes", []) for value in row.values())
        told: dict[str, Any] = {"message": "success"}
        for name in ARRAYS:
            rows = arrays.get(name, [])
            taken = 0
            for index, row in enumerate(rows):
                if problem := self._problem(call, name, row):
                    errors.append({"type": problem, "input_array": name, "index": index})
                    continue
                taken += 1
                self._apply(name, row, nested=nested)
            if rows:
                told[f"{name}_processed"] = taken
        if errors:
            told["errors"] = errors
        if self.queued:
            return Answer(202, {"message": "queued"})
        if errors and not any(told.get(f"{name}_processed") for name in ARRAYS):
            # nothing of the call was valid
            return Answer(400, {"message": "Valid data must be provided", "errors": errors})
        return Answer(201, told)

    def _problem(self, call: Call, name: str, row: dict[str, Any]) -> str | None:
        keys, own = [key for key in KEYS if key in row], [key for key in OWN_KEYS if key in row]
        alias = row.get("user_alias")
        values = {key: value for key, value in row.items() if key not in (*KEYS, "_update_existing_only")}
        texts = [value for value in values.values() if isinstance(value, str)]
        rules = {
            "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required": bool(keys) and len(own) <= 1,
            "'user_alias' has alias_name and alias_label": alias is None
            or (isinstance(alias, dict) and set(alias) == {"alias_name", "alias_label"}),
            "identifiers are non-empty texts": all(
                isinstance(row[key], str) and row[key] for key in (own or keys) if key != "user_alias"
            ),
            "'_update_existing_only' is a boolean": isinstance(row.get("_update_existing_only", False), bool),
            "keys have at most 255 characters and no leading $": all(
                len(key) <= 255 and not key.startswith("$") for key in values
            ),
            "texts have at most 255 characters": all(len(text) <= 255 for text in texts),
            "an object has at most 100 KB": len(str(row)) <= self.object_bytes,
            "an event has a 'name'": name != "events" or (isinstance(row.get("name"), str) and bool(row["name"])),
            "'time' is ISO 8601": name == "attributes" or _is_time(row.get("time")),
            "'properties' is an object": name == "attributes" or isinstance(row.get("properties", {}), dict),
            "`add` and `remove` are lists": all(
                fits(value, {"add": list, "remove": list}) for value in values.values() if isinstance(value, dict)
            ),
            "a counter is not written by a sync": not any(isinstance(v, dict) and "inc" in v for v in values.values()),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            self.broke(broken[0], call, row=True, key=_person(row))
            return broken[0]
        properties = row.get("properties", {})
        if (
            bad := self.bad_row([row[key] for key in keys] + [*values.values(), *properties.values()], call)
        ) is not None:
            return str(bad.get("message", "refused by a rule of the workspace"))
        return None

    def _apply(self, name: str, row: dict[str, Any], *, nested: bool) -> None:
        # with an alias only existing users are the default
        only = row.get("_update_existing_only", "user_alias" in row)
        id = self._find(row)
        if id is None and only:
            return  # dropped, and nobody is told
        if id is None:
            id = f"braze-{self.next_id()}"
            self.table("user")[id] = {"braze_id": id}
            self._set(id, {key: row[key] for key in KEYS if key in row})
        if name != "attributes":
            # nothing is ever deduplicated
            self.events.append(row | {"of": id, "array": name})
            self.data_points += 1
            return
        held = self.table("user")[id]
        own = [key for key in OWN_KEYS if key in row]
        values: dict[str, Any] = {}
        for key, value in row.items():
            if key in (*OWN_KEYS, "_update_existing_only") or (key in KEYS and not own):
                continue
            if isinstance(value, dict) and not {"add", "remove", "$time"} & set(value) and not nested:
                continue
            self.data_points += 1  # whether it changed or not
            if isinstance(value, dict) and {"add", "remove"} & set(value):
                left = [one for one in held.get(key, []) if one not in value.get("remove", [])]
                value = [*left, *(one for one in value.get("add", []) if one not in left)]
            values[key] = value
        self._set(id, values)

    def _set(self, id: str, values: dict[str, Any]) -> None:
        """Write values of a profile; null clears."""
        user = self.table("user")[id]
        for key in KEYS:
            if key in values:
                if key in user:
                    self._index[key, str(user[key])].remove(id)
                if values[key] is not None:
                    self._index.setdefault((key, str(values[key])), []).append(id)
        user |= values
        for key in [key for key, value in values.items() if value is None]:
            del user[key]

    def _find(self, row: dict[str, Any]) -> str | None:
        """Return the profile of an object; by e-mail, the newest that has an external id wins."""
        key = next(key for key in KEYS if key in row)
        hits = self._index.get((key, str(row[key])), [])
        known = [id for id in hits if "external_id" in self.table("user")[id]]
        return (known or hits or [None])[-1]

    @route("POST", "/users/export/ids", "read", shape={"external_ids": [str]})
    def export(self, call: Call) -> Any:
        ids = call.body.get("external_ids", [])
        if not 0 < len(ids) <= 50:
            raise self.wrong("1 to 50 external ids")
        found = {user.get("external_id"): user for user in self.table("user").values()}
        users = [found[id] for id in ids if id in found]
        return Answer(
            201, {"message": "success", "users": users, "invalid_user_ids": [i for i in ids if i not in found]}
        )


def _person(row: dict[str, Any]) -> str:
    return next((f"{key} {row[key]}" for key in KEYS if key in row), "")


def _bad_nested(value: Any) -> bool:
    plain = isinstance(value, dict) and not {"add", "remove", "$time"} & set(value)
    return plain and any(one is None or _bad_nested(one) for one in value.values())


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\dT", value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
