"""Amplitude: HTTP V2, batch, identify, cohorts. A refused call takes nothing and names its rows; 429 is about rows too.

`fail("bad_row", key=…)` makes an event silenced. `fail("throttle", rows=[0, 2])` names rows (all without it), with
`daily=True` as over the quota of the day. Whether an id that is too short refuses the call or only goes is `short_ids`.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from heap_assets_tests.connectors.servers.amplitude_rules import (
    MIN_ID,
    Faults,
    check,
    check_ids,
    properties_fit,
    update,
)
from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic, cut, fits

EVENTS, V2_BYTES, BATCH_BYTES, IDENTIFIERS = 2_000, 1 << 20, 20 << 20, 100_000
TEXT, V2_RATE, BATCH_RATE, DEDUPE_SECONDS = 1_024, 30, 1_000, 7 * 86_400.0

_BODY = {"options": {"min_id_length": int}}
_COHORT = {"cohort_id": str, "existing_cohort_id": str, "ids": [str], "memberships": [dict]}


def _events(call: Call) -> float:
    return float(len(call.body.get("events", ())) if isinstance(call.body, dict) else 0)


class Amplitude(VendorServer):
    """One project. Profiles are in `records["users"]` by user id, or device id; cohorts in `lists`.

    Parameters
    ----------
    short_ids
        Of ids under the minimum: `dropped`, and 400 only if none is left; or `refused`.
    starter
        With the limits of the Starter plan: 100 calls and 1,000 events a second.
    known_users
        Ids that a cohort may have; None: any.
    """

    def __init__(
        self,
        *,
        api_key: str = "key",
        secret_key: str = "secret",
        short_ids: Literal["dropped", "refused"] = "dropped",
        starter: bool = False,
        known_users: set[str] | None = None,
        **common: Any,
    ) -> None:
        self.starter = starter
        super().__init__(**common)
        self.api_key, self.secret_key = api_key, secret_key
        self.short_ids, self.known_users = short_ids, known_users
        self._insert_ids: dict[tuple[str, str], float] = {}
        self._rates: dict[tuple[str, str], Sliding] = {}

    def documented_limits(self) -> list[Limit]:
        if not self.starter:
            return []
        return [Sliding("batches a second", 100, 1.0), Sliding("events a second", 1_000, 1.0, _events)]

    def unauthorised(self, call: Call) -> Answer:
        return self.error(400, "", "Invalid API key: ***")

    def throttled(
        self, call: Call, wait: float, limit: Limit | None, *, rows: list[int] | None = None, daily: bool = False
    ) -> Answer:
        try:
            body = orjson.loads(call.raw)
        except orjson.JSONDecodeError:
            body = {}
        events = body.get("events", []) if isinstance(body, dict) else []
        indices = rows if rows is not None else list(range(len(events)))
        users = {str(events[index].get("user_id") or events[index].get("device_id")): 1_001 for index in indices}
        return self._too_many(indices, {} if daily else users, users if daily else {})

    def _too_many(self, indices: list[int], throttled: dict[str, int], daily: dict[str, int]) -> Answer:
        told = {
            "code": 429,
            "error": "Too many requests for some devices and users",
            "eps_threshold": V2_RATE,
            "throttled_devices": {},
            "throttled_users": throttled,
            "exceeded_daily_quota_users": daily,
            "exceeded_daily_quota_devices": {},
            "throttled_events": indices,
        }
        return Answer(429, told)

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"code": status, "error": message})

    @route("POST", "/2/httpapi")
    def http_v2(self, call: Call) -> Answer | dict[str, Any]:
        return self._ingest(call, V2_BYTES, V2_RATE)

    @route("POST", "/batch")
    def batch(self, call: Call) -> Answer | dict[str, Any]:
        return self._ingest(call, BATCH_BYTES, BATCH_RATE)

    @route("POST", "/identify", takes="application/x-www-form-urlencoded")
    def identify(self, call: Call) -> Answer:
        form = call.body or {}
        if form.get("api_key") != self.api_key:
            raise self.refuse(Answer(400, "invalid_api_key"), "the form has the api_key")
        try:
            users = orjson.loads(form.get("identification", ""))
        except orjson.JSONDecodeError as error:
            raise self.refuse(Answer(400, "missing_event"), "the form has identification, which is JSON") from error
        users = users if isinstance(users, list) else [users]
        for index, user in enumerate(users):
            faults: Faults = {}
            if isinstance(user, dict):
                check_ids(user, index, MIN_ID, faults, drops=False)
            if not isinstance(user, dict) or faults or not properties_fit(user.get("user_properties")):
                raise self.refuse(Answer(400, "missing_event"), "each has an id and properties")
            if self.is_bad((user.get("user_id"), user.get("device_id")), call):
                raise self.refuse(Answer(400, "missing_event"))
        for user in users:
            self._update(user)
        return Answer(200, "success")

    @route("POST", "/api/3/cohorts/upload")
    def upload_cohort(self, call: Call) -> dict[str, str]:
        body = self._basic(call)
        ids, kind = body.get("ids"), body.get("id_type")
        if not isinstance(ids, list) or len(ids) > IDENTIFIERS or kind not in ("BY_AMP_ID", "BY_USER_ID"):
            raise self._refused(f"ids are a list of {IDENTIFIERS} at most, of an id_type")
        if not all(body.get(name) for name in ("name", "app_id", "owner")) or not isinstance(
            body.get("published"), bool
        ):
            raise self._refused("a cohort has name, app_id, owner and published")
        cohort = str(body.get("existing_cohort_id") or f"cohort-{self.next_id()}")
        if body.get("existing_cohort_id") and cohort not in self.lists:
            raise self._refused("the cohort is there")
        self.lists[cohort] = {text for text in ids if self._is_known(text)}
        return {"cohort_id": cohort}

    @route("POST", "/api/3/cohorts/membership")
    def change_membership(self, call: Call) -> dict[str, Any]:
        body = self._basic(call)
        cohort, changes = body.get("cohort_id"), body.get("memberships")
        if cohort not in self.lists or not isinstance(changes, list) or not changes:
            raise self._refused("the cohort is there, and memberships are told")
        results = []
        for change in changes:
            ids = change.get("ids")
            if change.get("operation") not in ("ADD", "REMOVE") or change.get("id_type") not in ("BY_ID", "BY_NAME"):
                raise self._refused("operation is ADD or REMOVE, id_type BY_ID or BY_NAME")
            if not isinstance(ids, list) or len(ids) > IDENTIFIERS or not all(isinstance(text, str) for text in ids):
                raise self._refused(f"ids are texts, {IDENTIFIERS} at most")
            skipped = [text for text in ids if not self._is_known(text) or self.is_bad([text], call)]
            if skipped and body.get("skip_invalid_ids") is False:
                raise self._refused("ids are known, unless skip_invalid_ids")
            results.append({"skipped_ids": skipped, "id_type": change["id_type"], "operation": change["operation"]})
        for change, result in zip(changes, results, strict=True):
            ids = set(change["ids"]) - set(result["skipped_ids"])
            members = self.lists[cohort]
            (members.update if change["operation"] == "ADD" else members.difference_update)(ids)
        return {"cohort_id": cohort, "memberships_result": results}

    def _is_known(self, text: str) -> bool:
        return self.known_users is None or text in self.known_users

    def _basic(self, call: Call) -> dict[str, Any]:
        if not fits(call.body, _COHORT):
            raise self._refused("fields have their types")
        if call.headers.get("authorization") != basic(self.api_key, self.secret_key):
            raise self.refuse(self.error(401, "", "unauthorized"), "Basic of api_key and secret_key")
        return dict(call.body)

    def _refused(self, rule: str | None, message: str = "Invalid request", **fields: Any) -> Refused:
        answer = self.error(400, "", message)
        answer.body |= fields
        return self.refuse(answer, rule)

    def _ingest(self, call: Call, most_bytes: int, rate: int) -> Answer | dict[str, Any]:
        body = call.body if fits(call.body, _BODY) else {}
        if "api_key" not in body:
            raise self._refused("api_key is in the body", "Request missing required field", missing_field="api_key")
        if body["api_key"] != self.api_key:
            raise self.refuse(self.unauthorised(call), "api_key is the project's")
        events = body.get("events")
        if not isinstance(events, list) or not events:
            raise self._refused("events are told", "Request missing required field", missing_field="events")
        if call.size >= most_bytes or len(events) > EVENTS:
            answer = self.error(413, "", "Payload too large")
            raise self.refuse(answer, f"under {most_bytes} bytes and at most {EVENTS} events")
        least = (body.get("options") or {}).get("min_id_length", MIN_ID)
        told: Faults = {}
        silenced = []
        for index, event in enumerate(events):
            check(event, index, least, told, drops=self.short_ids == "dropped")
            if isinstance(event, dict) and self.is_bad((event.get("insert_id"), event.get("user_id")), call):
                silenced.append(index)
        if told or silenced:
            kinds = {kind: rows for kind, rows in told.items() if rows}
            message = "Request contains invalid events"
            rule = f"events are of form: {sorted(kinds)}" if kinds else None
            raise self._refused(rule, message, **kinds, silenced_events=silenced)
        self._limit_users(call, events, rate)
        for event in events:
            self._store(event)
        now = int(self.clock() * 1000)
        return {"code": 200, "events_ingested": len(events), "payload_size_bytes": call.size, "server_upload_time": now}

    def _limit_users(self, call: Call, events: list[dict[str, Any]], rate: int) -> None:
        """Refuse the call and name its events of users who are over their rate."""
        now = self.clock()
        rows: dict[str, list[int]] = {}
        for index, event in enumerate(events):
            rows.setdefault(event.get("user_id") or event["device_id"], []).append(index)
        over = {}
        for user, indices in rows.items():
            window = self._rates.setdefault((call.path, user), Sliding("events of a user", rate, 1.0, lambda n: n))
            if window.wait(len(indices), now):
                over[user] = len(indices)
        if over:
            indices = sorted(index for user in over for index in rows[user])
            raise self.refuse(self._too_many(indices, over, {}), f"at most {rate} events a second of a user")
        for user, indices in rows.items():
            self._rates[call.path, user].take(len(indices), now)

    def _store(self, event: dict[str, Any]) -> None:
        now = self.clock()
        self._update(event)
        if event.get("insert_id"):
            # the scope of an insert_id is the device, where there is one
            key = (event.get("device_id") or event["user_id"], event["insert_id"])
            if now - self._insert_ids.get(key, -DEDUPE_SECONDS) < DEDUPE_SECONDS:
                return
            self._insert_ids[key] = now
        self.events.append(cut(event, TEXT))

    def _update(self, event: dict[str, Any]) -> None:
        if event.get("user_properties"):
            user = self.table("users").setdefault(event.get("user_id") or event["device_id"], {})
            update(user, cut(event["user_properties"], TEXT))
