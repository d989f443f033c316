"""A project of Amplitude: where it is, what its refusals say (they take no row), and the deletion of people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.engine.auth import ApiKey, Basic
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.config import Region, VendorSettings

_HOSTS: Mapping[str, str] = {"us": "https://api2.amplitude.com", "eu": "https://api.eu.amplitude.com"}
_DELETION: Mapping[str, str] = {"us": "https://amplitude.com", "eu": "https://analytics.eu.amplitude.com"}
LONGEST_TEXT, SHORTEST_ID = 1_024, 5
_THROTTLED_FOR = timedelta(seconds=30)
_JUNK = frozenset(
    ("anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "{}", "lmy47d", "0", "-1")
) | {"00000000-0000-0000-0000-000000000000"}
_FAULTS = {
    "events_with_invalid_fields": "is invalid",
    "events_with_missing_fields": "is missing",
    "events_with_invalid_id_lengths": "is too short",
}
UNTRIED = "with its API key Amplitude has no call that only looks, and any property and event is made when it comes"


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


class AmplitudeDestination(BaseDestination):
    """Base of the destinations at Amplitude; `shortest_id`: fewest characters of a user id."""

    def __init__(self, settings: ToAmplitude, shortest_id: int, **limits: Any) -> None:
        key = settings.api_key.get_secret_value()
        self.kind, self.url, self._shortest_id = settings.kind, settings.url, shortest_id
        self.auth = ApiKey(key, "api_key", "body")
        self._project = hashlib.sha256(key.encode()).hexdigest()[:16]
        plan, users = settings.events_per_second, limits.pop("rates", ())
        self.limits = Limits(
            key_units=LONGEST_TEXT,
            value_units=LONGEST_TEXT,
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
