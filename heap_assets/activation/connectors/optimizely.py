"""Optimizely Data Platform: profiles, events, and lists of subscribers, up to 500 a call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.connectors.inputs import (
    EventRowConnector,
    EventRowSettings,
    MemberConnector,
    MemberSettings,
    PeopleConnector,
    RecordSettings,
)
from heap_assets.activation.engine.auth import ApiKey
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.events import event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, Verdict, reason_of
from heap_assets.config import PROPERTIES, VendorSettings

_OBJECTS, _CALLS_A_SECOND, _NAME = 500, 10, 255
_BATCH_BYTES = 1_000_000
"""No limit is documented."""
_JUNK = frozenset({"null", "none", "nil", "undefined", "unknown", "anonymous", "0", "-1"})
_UNTRIED = "with a public key the Data Platform has no call that only looks"


class ToOptimizely(VendorSettings):
    """An account of the Optimizely Data Platform."""

    api_key: SecretStr = Field(description="Public API key of the account, as ${OPTIMIZELY_API_KEY}")
    region: Literal["us1", "eu1", "au1"] = Field(default="us1", description="Where the account's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Optimizely's host, without /v3")
    identifier: str = Field(
        default="customer_id", min_length=1, description="Field that the key is: email, phone, fs_user_id, one's own"
    )
    compliance: Literal["gdpr", "ccpa", "lgpd"] = Field(default="gdpr", description="Law that deletion requests name")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or f"https://api.{self.region}.odp.optimizely.com").rstrip("/")


class OptimizelyProfilesSync(RecordSettings, ToOptimizely):
    """Profiles of the Optimizely Data Platform, by an identifier.

    **To create there:** in the schema of customers the identifier, and a field for each of `properties`; the public API
    key.

    **What is matched:** the key with the identifier. Missing profiles are made.

    **What can be refused:** a profile with an unknown field. An answer only says that a call came in, so rows count as
    sent. Values that are gone are sent as null.

    **Never run against Optimizely itself,** and not said in its documents: whether null empties a field.
    """

    kind: Literal["optimizely_profiles"] = "optimizely_profiles"
    properties: dict[str, str] = PROPERTIES


class OptimizelyEventsSync(EventRowSettings, ToOptimizely):
    """Rows of a table as events of the Optimizely Data Platform; the name is the type.

    **To create there:** in the schema of events a field for each of `properties`; the public API key.

    **What is matched:** nothing: Optimizely counts a row twice that it gets twice. One whose answer was lost stays
    `unknown` and is not sent again by itself (`heap-assets sync retry`).

    **What can be refused:** an event with an unknown field; an answer only says that a call came in.

    **Never run against Optimizely itself.**
    """

    kind: Literal["optimizely_events"] = "optimizely_events"
    action: str | None = Field(default=None, description="Action of the events, such as purchase")


class OptimizelyListSync(MemberSettings, ToOptimizely):
    """Subscribers of a list of the Optimizely Data Platform.

    **To create there:** the list; the public API key.

    **What is matched:** the key with the identifier. Who leaves is unsubscribed from the list. **What can be refused:**
    an identifier that the account does not have. **Never run against Optimizely itself.**
    """

    takes_properties: ClassVar[bool] = False

    kind: Literal["optimizely_list"] = "optimizely_list"
    list_id: str = Field(min_length=1, description="Id of the list")


class OptimizelyDeletion(Deletion):
    """`/v3/compliance/<law>/delete`, with a status."""

    ids_per_call = _OBJECTS

    def __init__(self, settings: ToOptimizely) -> None:
        self._settings = settings
        self._url = f"{settings.url}/v3/compliance/{settings.compliance}"

    def destination(self) -> DeletionApi:
        key = self._settings.api_key.get_secret_value()
        account = hashlib.sha256(key.encode()).hexdigest()[:16]
        limits = Limits(rates=(Rate(_CALLS_A_SECOND, 1, per_call=True),), shared_by=f"optimizely:{account}")
        return DeletionApi("optimizely", account, auth=ApiKey(key, "x-api-key"), limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        answer = yield json_call(f"{self._url}/delete", [{self._settings.identifier: key} for key in keys])
        number = answer.fields.get("request_id")
        if not answer.accepted:
            return refused(answer)
        return Deleted("pending", str(number)) if number else Deleted("requested")

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}/status/{request_id}", method="GET", rows=0)
        if not answer.accepted:
            return refused(answer)
        return Deleted("complete" if answer.fields.get("status") == "completed" else "pending", request_id)


class OptimizelyProfilesConnector(PeopleConnector[OptimizelyProfilesSync]):
    """Rows to profiles."""

    settings_model = OptimizelyProfilesSync
    untried = _UNTRIED
    deletes = OptimizelyDeletion

    def destination(self, table: str = "") -> OptimizelyProfiles:
        return OptimizelyProfiles(self.settings, "/v3/profiles")


class OptimizelyEventsConnector(EventRowConnector[OptimizelyEventsSync]):
    """Rows to events."""

    settings_model = OptimizelyEventsSync
    untried = _UNTRIED
    deletes = OptimizelyDeletion

    def destination(self, table: str = "") -> OptimizelyEvents:
        return OptimizelyEvents(self.settings)


class OptimizelyListConnector(MemberConnector[OptimizelyListSync]):
    """Members to subscribers."""

    settings_model = OptimizelyListSync
    untried = _UNTRIED
    deletes = OptimizelyDeletion

    def destination(self, table: str = "") -> OptimizelyList:
        return OptimizelyList(self.settings)


class OptimizelyDestination(BaseDestination):
    """Base of the destinations at the Data Platform; `path`: where to, `limited`: whether calls are counted."""

    accepted = "sent"

    def __init__(self, settings: ToOptimizely, path: str, *, limited: bool = True, **limits: Any) -> None:
        key = settings.api_key.get_secret_value()
        self.kind, self.url, self.identifier, self._path = settings.kind, settings.url, settings.identifier, path
        self.auth = ApiKey(key, "x-api-key")
        self._account = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.limits = Limits(
            batch_rows=_OBJECTS,
            batch_bytes=_BATCH_BYTES,
            rates=(Rate(_CALLS_A_SECOND, 1, per_call=True),) if limited else (),
            shared_by=f"optimizely:{self.url}:{self._account}:{path}" if limited else "",
            junk_keys=_JUNK,
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._account}:{self.identifier}"

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(self.url + self._path, b"[" + b",".join(elements) + b"]")

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A refused call takes nothing: it names fields, and not of which row."""
        if response.accepted:
            return Verdict()
        answer = response.fields
        detail = answer.get("detail")
        invalid = detail.get("invalids") if isinstance(detail, dict) else None
        named = "; ".join(f"{one.get('field')} {one.get('reason')}" for one in invalid or ())
        return Verdict(rest="not_applied", reason=named or reason_of(response))


class OptimizelyProfiles(OptimizelyDestination):
    """Sets fields of profiles."""

    def element(self, row: Row) -> dict[str, Any]:
        return {"attributes": {self.identifier: row.key, **row.values}}


class OptimizelyEvents(OptimizelyDestination):
    """Sends events; one that arrives twice counts twice."""

    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time",)
    dedupe = Dedupe("none")

    def __init__(self, settings: OptimizelyEventsSync) -> None:
        super().__init__(settings, "/v3/events", limited=False, forbidden_names=frozenset({"ts"}))
        self._action = settings.action

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, _NAME)

    def element(self, row: Row) -> dict[str, Any]:
        event: dict[str, Any] = {"type": row.extra["event"]}
        if self._action is not None:
            event["action"] = self._action
        data = row.filled
        if row.extra.get("time") is not None:
            data["ts"] = unix_ms(row.extra["time"]) // 1000
        return {**event, "identifiers": {self.identifier: row.person}, "data": data}


class OptimizelyList(OptimizelyDestination):
    """Subscribes and unsubscribes."""

    mode = Mode.SET

    def __init__(self, settings: OptimizelyListSync) -> None:
        super().__init__(settings, "/v3/lists/subscriptions")
        self._list = settings.list_id

    @property
    def target(self) -> str:
        return f"{super().target}:{self._list}"

    def element(self, row: Row) -> dict[str, Any]:
        return {self.identifier: row.key, "list_id": self._list, "subscribed": not row.removed}
