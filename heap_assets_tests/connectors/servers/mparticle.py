"""mParticle: batches of one user each, an empty 202, a 400 that names no batch, and no dedupe at all.

The status of a body that is too large is not documented (`too_large`).
"""

from __future__ import annotations

from typing import Any

import orjson

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic, fits, names, values

BATCHES, REQUEST_BYTES, BATCH_BYTES, RATE = 100, 256 << 10, 128 << 10, 270
ATTRIBUTES, VALUE, NAMES = 100, 4_096, 1_000
IDENTITIES = names(
    """customer_id email other facebook twitter google microsoft yahoo alias facebook_custom_audience_id
    other_id_2 other_id_3 other_id_4 other_id_5 other_id_6 other_id_7 other_id_8 other_id_9 other_id_10
    mobile_number phone_number_2 phone_number_3 customerid"""
)
"""`customerid` is how the vendor's own client writes `customer_id`."""
EVENT_TYPES = names(
    """session_start session_end screen_view custom_event crash_report opt_out first_run pre_attribution
    push_registration application_state_transition push_message network_performance breadcrumb profile push_reaction
    commerce_event user_attribute_change user_identity_change uninstall"""
)
CUSTOM_TYPES = names(
    "unknown navigation location search transaction user_content user_preference social other attribution"
)
_OTHER_MEMBERS = names(
    """batch_context device_info application_info api_key api_keys ip integration_attributes partner_identity
    source_info mp_deviceid attribution_info timestamp_unixtime_ms batch_id sdk_version job_id"""
)
_MEMBERS = {
    "environment": str,
    "source_request_id": str,
    "mpid": int,
    "user_identities": dict,
    "user_attributes": dict | None,
    "deleted_user_attributes": [str],
    "events": [
        {
            "event_type": str,
            "data": {
                "event_name": str,
                "custom_event_type": str,
                "timestamp_unixtime_ms": int,
                "custom_attributes": dict,
            },
        }
    ],
    "consent_state": dict,
}


def _batches(call: Call) -> float:
    return float(len(call.body) if isinstance(call.body, list) else 1)


class MParticle(VendorServer):
    """A feed. Profiles are in `records["users"]` by their first identity; events of too many names are dropped."""

    def __init__(self, *, key: str = "key", secret: str = "secret", too_large: int = 413, **common: Any) -> None:
        super().__init__(**common)
        self.key, self.secret, self.too_large = key, secret, too_large
        self.names: set[str] = set()
        self.dropped = 0

    def documented_limits(self) -> list[Limit]:
        return [Sliding("account", RATE, 1.0, _batches)]

    def authorise(self, call: Call) -> None:
        header = call.headers.get("authorization", "")
        if header != basic(self.key, self.secret):
            answer = self.error(403 if header.startswith("Basic ") else 401, "UNAUTHORIZED", "Unauthorized")
            raise self.refuse(answer, "Basic of the key and the secret of a feed")

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, by: str = "account", **_: Any) -> Answer:
        answer = self.error(429, "TOO_MANY_REQUESTS", "Too many requests")
        answer.headers |= {"Retry-After": str(int(wait) + 1), "X-mp-rate-limit-exceeded": by}
        return answer

    def broken(self, call: Call, *, status: int = 503) -> Answer:
        return self.error(status, "SERVICE_UNAVAILABLE", "Service unavailable")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"errors": [{"code": code, "message": message}]})

    def finish(self, call: Call, answer: Answer) -> None:
        if answer.status < 300 and self.limits:
            limit = self.limits[0]
            used = 100 - 100 * limit.left(self.clock()) / limit.amount
            answer.headers["X-mp-rate-limit-percentage-used"] = f"{used:.0f}"

    @route("POST", "/v2/events")
    def event_batch(self, call: Call) -> Answer:
        return self._take_all(call, [call.body])

    @route("POST", "/v2/bulkevents")
    def bulk(self, call: Call) -> Answer:
        if not isinstance(call.body, list) or not 1 <= len(call.body) <= BATCHES:
            raise self._refused(f"1 to {BATCHES} batches")
        return self._take_all(call, call.body)

    def _take_all(self, call: Call, batches: list[Any]) -> Answer:
        large = call.size > REQUEST_BYTES or any(
            len(orjson.dumps(batch)) > BATCH_BYTES for batch in batches if call.size > BATCH_BYTES
        )
        if large:
            answer = self.error(self.too_large, "REQUEST_ENTITY_TOO_LARGE", "Request is too large")
            raise self.refuse(answer, "256 KB a request and 128 KB a batch")
        for batch in batches:
            rule = _wrong(batch)
            if rule or self.is_bad(values(batch), call):
                # which batch it was is not told
                raise self._refused(rule)
        for batch in batches:
            self._take_batch(batch)
        return Answer(202)

    def _refused(self, rule: str | None) -> Refused:
        return self.refuse(self.error(400, "BAD_REQUEST", "Request is malformed or contains invalid data"), rule)

    def _take_batch(self, batch: dict[str, Any]) -> None:
        user = next((str(value) for value in (batch.get("user_identities") or {}).values() if value), None)
        if user is not None:
            record = self.table("users").setdefault(user, {})
            attributes = batch.get("user_attributes", {})
            if attributes is None:
                record.clear()
            for name in batch.get("deleted_user_attributes", ()):
                record.pop(name, None)
            record.update(attributes or {})
        for event in batch.get("events", ()):
            name = event["data"].get("event_name", event["event_type"])
            if name not in self.names and len(self.names) >= NAMES:
                self.dropped += 1
                continue
            self.names.add(name)
            self.events.append({"user": user, **event})


def _wrong(batch: Any) -> str | None:
    """Return the rule that a batch breaks."""
    if not isinstance(batch, dict) or batch.get("environment") not in ("production", "development", "unknown"):
        return "environment is production, development or unknown"
    if not fits(batch, _MEMBERS):
        return "members of a batch have their types"
    identities = batch.get("user_identities", {})
    if not set(identities) <= IDENTITIES or not all(isinstance(value, str | None) for value in identities.values()):
        return "user_identities are documented kinds with text"
    attributes = batch.get("user_attributes") or {}
    if len(attributes) > ATTRIBUTES or any(len(str(value)) > VALUE for value in attributes.values()):
        return f"{ATTRIBUTES} user attributes of {VALUE} characters"
    if any(isinstance(value, dict) for value in attributes.values()):
        return "attributes are texts, numbers, booleans, lists"
    if not set(batch) <= set(_MEMBERS) | _OTHER_MEMBERS:
        return "members of a batch are documented"
    return next((rule for rule in map(_wrong_event, batch.get("events", ())) if rule), None)


def _wrong_event(event: dict[str, Any]) -> str | None:
    if event.get("event_type") not in EVENT_TYPES or "data" not in event:
        return "events have data and a documented event_type"
    data = event["data"]
    if event["event_type"] == "custom_event" and not data.get("event_name"):
        return "a custom_event has event_name"
    if data.get("custom_event_type", "other") not in CUSTOM_TYPES:
        return "custom_event_type is documented"
    if not all(isinstance(value, str) for value in data.get("custom_attributes", {}).values()):
        return "custom_attributes are texts"
    return None
