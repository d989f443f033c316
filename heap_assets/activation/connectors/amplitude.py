"""Amplitude: user properties by Identify, and events in batches whose refusal names the rows and takes none of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal
from urllib.parse import quote_plus

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.connectors.inputs import (
    EventRowConnector,
    EventRowSettings,
    PeopleConnector,
    RecordSettings,
)
from heap_assets.activation.engine.auth import ApiKey, Basic
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.config import PROPERTIES, Region, VendorSettings

_HOSTS: Mapping[str, str] = {"us": "https://api2.amplitude.com", "eu": "https://api.eu.amplitude.com"}
_DELETION: Mapping[str, str] = {"us": "https://amplitude.com", "eu": "https://analytics.eu.amplitude.com"}
_EVENTS, _EVENT_BYTES, _USERS, _USER_BYTES = 2_000, 19 << 20, 200, 300_000
_TEXT, _SHORTEST_ID, _PER_USER = 1_024, 5, 1_000
_WEEK = 7 * 86_400.0
_THROTTLED_FOR = timedelta(seconds=30)
_JUNK = frozenset(
    ("anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "{}", "lmy47d", "0", "-1")
) | {"00000000-0000-0000-0000-000000000000"}
_FAULTS = {
    "events_with_invalid_fields": "is invalid",
    "events_with_missing_fields": "is missing",
    "events_with_invalid_id_lengths": "is too short",
}
_UNTRIED = "with its API key Amplitude has no call that only looks, and any property and event is made when it comes"


class ToAmplitude(VendorSettings):
    """A project of Amplitude."""

    api_key: SecretStr = Field(description="API key of the project, as ${AMPLITUDE_API_KEY}")
    region: Region = Field(default=Region.US, description="Where the project's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Amplitude's host")
    events_per_second: int | None = Field(
        default=None, ge=1, description="Limit of the project, if its plan has one: 1000 on Starter"
    )

    secret_key: SecretStr | None = Field(
        default=None, description="Secret key of the project, with which erased people are deleted"
    )
    deletion_url: str | None = Field(default=None, description="Stands in for the host of deletion requests")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or _HOSTS[self.region.value]).rstrip("/")


class AmplitudeUsersSync(RecordSettings, ToAmplitude):
    """User properties of Amplitude, by user id.

    **To create there:** nothing; the project's API key.

    **What is matched:** the key with the user id. Amplitude makes users that it does not know, and shows new values
    only after the user's next event.

    **What can be refused:** ids below 5 characters, placeholders as ids, and texts above 1,024 characters, which
    Amplitude would cut: they are not sent. Values that are gone are unset; one of country, region, city and dma resets
    the other three.

    **Never run against Amplitude itself,** and not said in its documents: how many users an Identify call may hold.
    """

    kind: Literal["amplitude_users"] = "amplitude_users"
    properties: dict[str, str] = PROPERTIES


class AmplitudeEventsSync(EventRowSettings, ToAmplitude):
    """Rows of a table as events of Amplitude, each once.

    **To create there:** nothing; the project's API key.

    **What is matched:** nothing. For 7 days Amplitude drops a second event with the same `insert_id`.

    **What can be refused:** ids below `min_id_length` and placeholders are not sent. Events of a user who has too many
    wait: 30 seconds, or until the next day (UTC) after 500,000 in one.

    **Never run against Amplitude itself.**
    """

    kind: Literal["amplitude_events"] = "amplitude_events"
    min_id_length: int = Field(default=_SHORTEST_ID, ge=1, description="Fewest characters of a user id")


class AmplitudeDeletion(Deletion):
    """`/api/2/deletions/users`, up to 100 users; a job of the day that is done within 30 days."""

    ids_per_call = 100

    def __init__(self, settings: ToAmplitude) -> None:
        self._settings = settings
        self._url = f"{(settings.deletion_url or _DELETION[settings.region.value]).rstrip('/')}/api/2/deletions/users"
        self.missing = "" if settings.secret_key else "secret_key"

    def destination(self) -> DeletionApi:
        key, secret = self._settings.api_key.get_secret_value(), self._settings.secret_key
        limits = Limits(rates=(Rate(1, 1, per_call=True),), shared_by=f"amplitude deletion:{self._url}")
        login = Basic(key, secret.get_secret_value() if secret else "")
        return DeletionApi("amplitude", hashlib.sha256(key.encode()).hexdigest()[:16], auth=login, limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        ignore = dict.fromkeys(("ignore_invalid_id", "ignore_invalid_ids"), "true")  # their documents have both
        answer = yield json_call(self._url, {"user_ids": list(keys), "requester": "heap_assets", **ignore})
        jobs = answer.json
        if not answer.accepted or not isinstance(jobs, list) or not jobs:
            return refused(answer)
        return Deleted("pending", str(jobs[0]["day"]))

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}?start_day={request_id}&end_day={request_id}", method="GET", rows=0)
        jobs = answer.json
        if not answer.accepted or not isinstance(jobs, list):
            return refused(answer)
        is_done = all(one.get("status") == "done" for one in jobs if one.get("day") == request_id)
        return Deleted("complete" if is_done else "pending", request_id)


class AmplitudeUsersConnector(PeopleConnector[AmplitudeUsersSync]):
    """Rows to users."""

    settings_model = AmplitudeUsersSync
    untried = _UNTRIED
    deletes = AmplitudeDeletion

    def destination(self, table: str = "") -> AmplitudeUsers:
        return AmplitudeUsers(self.settings)


class AmplitudeEventsConnector(EventRowConnector[AmplitudeEventsSync]):
    """Rows to events."""

    settings_model = AmplitudeEventsSync
    untried = _UNTRIED
    deletes = AmplitudeDeletion

    def destination(self, table: str = "") -> AmplitudeEvents:
        return AmplitudeEvents(self.settings)


class AmplitudeDestination(BaseDestination):
    """Base of the destinations at Amplitude; `shortest_id`: fewest characters of a user id."""

    def __init__(self, settings: ToAmplitude, shortest_id: int, **limits: Any) -> None:
        key = settings.api_key.get_secret_value()
        self.kind, self.url, self._shortest_id = settings.kind, settings.url, shortest_id
        self.auth = ApiKey(key, "api_key", "body")
        self._project = hashlib.sha256(key.encode()).hexdigest()[:16]
        plan, users = settings.events_per_second, limits.pop("rates", ())
        self.limits = Limits(
            key_units=_TEXT,
            value_units=_TEXT,
            junk_keys=_JUNK,
            rates=(*users, *([Rate(plan, 1)] if plan else ())),
            shared_by=f"amplitude:{self.url}:{self._project}" if plan else "",
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._project}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {
            f"key is shorter than {self._shortest_id} characters": pl.col("key").str.len_chars() < self._shortest_id
        }

    def trouble(self, response: Response) -> Trouble | None:
        answer = response.fields
        message = str(answer.get("error", "")) if answer else response.body[:100].decode("utf-8", "replace")
        if response.status == 400 and (
            answer.get("missing_field") == "api_key" or message.lower().replace("_", " ").startswith("invalid api key")
        ):
            return Trouble.stop("Amplitude does not accept the API key: check api_key and region")
        return None if _throttled_rows(response) else super().trouble(response)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A call that is refused takes nothing, whatever it names."""
        if response.accepted:
            return Verdict()
        if throttled := _throttled_rows(response):
            return Verdict(_later(response, rows, throttled), "not_applied")
        return Verdict(dict(_refused(response)), "not_applied", reason_of(response))


class AmplitudeUsers(AmplitudeDestination):
    """Sets and unsets user properties."""

    def __init__(self, settings: AmplitudeUsersSync) -> None:
        super().__init__(settings, _SHORTEST_ID, batch_rows=_USERS, batch_bytes=_USER_BYTES)

    def element(self, row: Row) -> dict[str, Any]:
        cleared = dict.fromkeys(row.cleared, "-")
        changes = {operator: value for operator, value in (("$set", row.filled), ("$unset", cleared)) if value}
        return {"user_id": row.key, "user_properties": changes}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        body = b"identification=" + quote_plus(b"[" + b",".join(elements) + b"]").encode()
        return Request(f"{self.url}/identify", body, headers={"Content-Type": "application/x-www-form-urlencoded"})


class AmplitudeEvents(AmplitudeDestination):
    """Uploads events; one with the same `insert_id` counts once within a week."""

    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time",)
    dedupe = Dedupe("window", _WEEK)

    def __init__(self, settings: AmplitudeEventsSync) -> None:
        rates = (Rate(_PER_USER, 1, per_key=True),)
        super().__init__(settings, settings.min_id_length, batch_rows=_EVENTS, batch_bytes=_EVENT_BYTES, rates=rates)
        self._source = settings.source

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**event_faults(rows, _TEXT), **super().invalid_rows(rows)}

    def element(self, row: Row) -> dict[str, Any]:
        event = {
            "user_id": row.person,
            "event_type": row.extra["event"],
            "insert_id": derived_id(self._source, row.key),
        }
        if row.extra.get("time") is not None:
            event["time"] = unix_ms(row.extra["time"])
        return {**event, "event_properties": row.filled}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        options = b'],"options":{"min_id_length":%d}}' % self._shortest_id
        return Request(f"{self.url}/batch", b'{"events":[' + b",".join(elements) + options)


def _refused(response: Response) -> Iterator[tuple[int, RowVerdict]]:
    """Yield the rows that a refused call names, with their reasons."""
    answer = response.fields
    for kind, value in _FAULTS.items():
        for field, indices in (answer.get(kind) or {}).items():
            yield from ((index, RowVerdict("rejected", f"{field} {value}")) for index in indices)
    silenced = answer.get("silenced_events") or ()
    yield from ((index, RowVerdict("rejected", "silenced by Amplitude")) for index in silenced)


def _throttled_rows(response: Response) -> list[int]:
    """Return the rows of a 429 that is about some users; none if it is about all calls."""
    return list(response.fields.get("throttled_events") or ()) if response.status == 429 else []


def _later(response: Response, rows: Sequence[Row], throttled: Sequence[int]) -> dict[int, RowVerdict]:
    """Put rows off: those of users whose quota of the day is used up until the next day."""
    now = datetime.now(UTC)
    spent = {user for name in ("users", "devices") for user in response.json.get(f"exceeded_daily_quota_{name}") or ()}
    tomorrow = datetime.combine(now.date() + timedelta(days=1), time.min, UTC)
    reasons = {True: "the user's events of the day are used up", False: "too many events of the user at once"}
    return {
        index: RowVerdict("deferred", reasons[is_spent], until=tomorrow if is_spent else now + _THROTTLED_FOR)
        for index in throttled
        if index < len(rows)
        for is_spent in [rows[index].person in spent]
    }
