"""Braze: attributes of users and events by `/users/track`, whose answer names refused objects by their index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, SecretStr, model_validator

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, json_call, refused
from heap_assets.activation.connectors.inputs import (
    EventRowConnector,
    EventRowSettings,
    PeopleConnector,
    RecordSettings,
)
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.events import event_faults
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.config import PROPERTIES, Match, MatchSettings, VendorSettings

_OBJECTS, _BATCH_BYTES, _ROW_BYTES, _TEXT = 75, (4 << 20) - 64, 100_000, 255
_THROTTLED, _MALFORMED = 429, 400
_OWN = frozenset({"external_id", "user_alias", "braze_id", "_update_existing_only"})
_DELETED_BY = {
    "external_id": "external_ids",
    "braze_id": "braze_ids",
    "user_alias": "user_aliases",
    "email": "email_addresses",
    "phone": "phone_numbers",
}
_JUNK = frozenset({"null", "none", "nil", "undefined", "unknown", "anonymous", "0", "-1"})
_UNTRIED = "with the permission users.track Braze has no call that only looks"


class ToBraze(VendorSettings):
    """A workspace of Braze."""

    instance: str | None = Field(
        default=None,
        pattern=r"^rest\.[a-z]{2,4}-\d{2}\.braze\.(com|eu)$",
        description="REST endpoint of the instance, such as rest.iad-01.braze.com (in Braze: Settings, APIs)",
    )
    base_url: str | None = Field(default=None, description="Stands in for the instance")
    api_key: SecretStr = Field(description="REST API key, as ${BRAZE_API_KEY}")
    identifier: Literal["external_id", "braze_id", "user_alias", "email", "phone"] = Field(
        default="external_id", description="What the key is"
    )
    alias_label: str | None = Field(default=None, description="Label of the aliases, for identifier: user_alias")
    batch_rows: int = Field(default=_OBJECTS, ge=1, le=_OBJECTS, description="Objects of a call; 50 in some contracts")
    calls_per_3_seconds: int = Field(default=3_000, ge=1, description="Limit of the workspace, by contract")

    @model_validator(mode="after")
    def _address_is_whole(self) -> ToBraze:
        if self.instance is None and self.base_url is None:
            raise ValueError("instance: which one is it, such as rest.iad-01.braze.com? (in Braze: Settings, APIs)")
        if (self.identifier == "user_alias") != (self.alias_label is not None):
            raise ValueError("alias_label: give it with identifier: user_alias, and only then")
        return self

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or f"https://{self.instance}").rstrip("/")


class BrazeUsersSync(RecordSettings, MatchSettings, ToBraze):
    """Attributes of Braze's users.

    **To create there:** a REST API key with the permission `users.track`.

    **What is matched:** the key with the user's id or alias. Braze drops the rows of users that it does not have
    without a word, unless `match: upsert` makes them; rows count as sent, because an answer says that they are queued.

    **What can be refused:** texts and names above 255 characters. Braze bills each attribute that is written, so only
    changed ones are sent; values that are gone are sent as null.

    **Never run against Braze itself.**
    """

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert")

    kind: Literal["braze_users"] = "braze_users"
    properties: dict[str, str] = PROPERTIES
    changed_fields_only: bool = Field(default=True, description="Else all mapped fields of a changed key are sent")


class BrazeEventsSync(EventRowSettings, ToBraze):
    """Rows of a table as custom events of Braze.

    **To create there:** a REST API key with the permission `users.track`; `timestamp_column`, or the table's
    `created_at`, has the time.

    **What is matched:** nothing: Braze counts a row twice that it gets twice. One whose answer was lost stays `unknown`
    and is not sent again by itself (`heap-assets sync retry`). Events of users that Braze does not have are dropped
    without a word, unless `match: upsert` makes them.

    **What can be refused:** texts and names above 255 characters.

    **Never run against Braze itself.**
    """

    kind: Literal["braze_events"] = "braze_events"
    match: Literal["update_only", "upsert"] = Field(
        default="update_only", description="update_only: no new users; upsert: missing ones are made"
    )


class BrazeDeletion(Deletion):
    """`/users/delete`, final; the key needs the permission `users.delete`. A later call for the user makes it anew."""

    ids_per_call = 50

    def __init__(self, settings: ToBraze) -> None:
        self._settings = settings

    def destination(self) -> BaseDestination:
        return BrazeUsers(BrazeUsersSync.model_construct(**dict(self._settings)))

    def ask(self, keys: Sequence[str]) -> Calls:
        settings = self._settings
        people: list[Any] = list(keys)
        if settings.identifier == "user_alias":
            people = [{"alias_name": key, "alias_label": settings.alias_label} for key in keys]
        answer = yield json_call(f"{settings.url}/users/delete", {_DELETED_BY[settings.identifier]: people})
        if not answer.accepted:
            return refused(answer)
        return Deleted("complete", note=f"{answer.fields.get('deleted', '?')} users were deleted")


class BrazeUsersConnector(PeopleConnector[BrazeUsersSync]):
    """Rows to users."""

    settings_model = BrazeUsersSync
    untried = _UNTRIED
    deletes = BrazeDeletion

    def destination(self, table: str = "") -> BrazeUsers:
        return BrazeUsers(self.settings)


class BrazeEventsConnector(EventRowConnector[BrazeEventsSync]):
    """Rows to events."""

    settings_model = BrazeEventsSync
    untried = _UNTRIED
    deletes = BrazeDeletion

    def destination(self, table: str = "") -> BrazeEvents:
        return BrazeEvents(self.settings)


class BrazeDestination(BaseDestination):
    """Base of the destinations at Braze; `array`: the member of a call that holds the objects."""

    accepted = "sent"
    array: str

    def __init__(self, settings: ToBraze, match: Match | None, **limits: Any) -> None:
        key = settings.api_key.get_secret_value()
        self.kind, self.url = settings.kind, settings.url
        self.auth = Bearer(key)
        self._identifier, self._label = settings.identifier, settings.alias_label
        # of an alias it is the default, of others it is not
        self._only_existing = match == "update_only"
        self._workspace = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.limits = Limits(
            batch_rows=settings.batch_rows,
            batch_bytes=_BATCH_BYTES,
            row_bytes=_ROW_BYTES,
            key_units=_TEXT,
            name_units=_TEXT,
            value_units=_TEXT,
            rates=(Rate(settings.calls_per_3_seconds, 3, per_call=True),),
            shared_by=f"braze:{self.url}:{self._workspace}",
            junk_keys=_JUNK,
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._workspace}:{self._identifier}:{self._label or ''}"

    def person(self, key: str) -> dict[str, Any]:
        """Return who an object is about, and whether a missing user is made."""
        alias = {"alias_name": key, "alias_label": self._label}
        address: Any = alias if self._identifier == "user_alias" else key
        return {self._identifier: address, "_update_existing_only": self._only_existing}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/users/track", f'{{"{self.array}":['.encode() + b",".join(elements) + b"]}")

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == _THROTTLED:
            seconds = response.headers.get("x-ratelimit-retry-after", "")
            return Trouble.throttled(float(seconds) if seconds.isdigit() else None)
        return super().trouble(response)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """An object that is named is refused; the others are queued, or (400) none is taken."""
        answer = response.fields
        errors = [one for one in answer.get("errors") or () if isinstance(one, dict)]
        named = {
            one["index"]: RowVerdict("rejected", str(one.get("type", "refused")))
            for one in errors
            if one.get("input_array") == self.array and type(one.get("index")) is int
        }
        if response.accepted and str(answer.get("message", "")) in ("success", "queued"):
            return Verdict(named)
        remaining: Literal["not_applied", "unknown"] = "not_applied" if response.status == _MALFORMED else "unknown"
        return Verdict(named, remaining, reason_of(response))


class BrazeUsers(BrazeDestination):
    """Writes attributes; null clears."""

    array = "attributes"

    def __init__(self, settings: BrazeUsersSync) -> None:
        super().__init__(settings, settings.match_policy, forbidden_names=_OWN)

    def element(self, row: Row) -> dict[str, Any]:
        return {**self.person(row.key), **row.values}


class BrazeEvents(BrazeDestination):
    """Sends events; one that arrives twice counts twice."""

    array = "events"
    mode = Mode.INSERT
    required = ("event_key", "event", "time")
    dedupe = Dedupe("none")

    def __init__(self, settings: BrazeEventsSync) -> None:
        super().__init__(settings, settings.match)

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**event_faults(rows, _TEXT), "it has no time": pl.col("time").is_null()}

    def element(self, row: Row) -> dict[str, Any]:
        event = {"name": row.extra["event"], "time": row.extra["time"]}
        return {**self.person(row.person), **event, "properties": row.filled}
