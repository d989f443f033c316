"""mParticle: batches of one user each, with attributes or with an event; answers name nobody; nothing is deduped."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field, SecretStr

from heap_assets import clock
from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.connectors.inputs import (
    EventRowConnector,
    EventRowSettings,
    PeopleConnector,
    RecordSettings,
)
from heap_assets.activation.engine.auth import Basic
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, Trouble, Verdict, reason_of, retry_after
from heap_assets.config import VendorSettings

_BATCHES, _REQUEST_BYTES, _BATCH_BYTES, _A_SECOND = 100, 256 << 10, 128 << 10, 270
_ATTRIBUTES, _VALUE, _NAME, _UNAVAILABLE = 100, 4_096, 256, 503
_JUNK = frozenset({"null", "none", "nil", "undefined", "unknown", "anonymous", "0", "-1"})
Identity = Literal["customer_id", "email", "other", "other_id_2", "other_id_3", "other_id_4", "mobile_number"]
_UNTRIED = "with the key of a feed mParticle has no call that only looks"


class ToMParticle(VendorSettings):
    """A server-to-server input of mParticle."""

    api_key: SecretStr = Field(description="Key of the input, as ${MPARTICLE_KEY}")
    api_secret: SecretStr = Field(description="Secret of the input, as ${MPARTICLE_SECRET}")
    pod: Literal["", "us1", "us2", "eu1", "au1"] = Field(default="", description="Data center of the account, if known")
    base_url: str | None = Field(default=None, description="Stands in for mParticle's host")
    environment: Literal["production", "development"] = Field(default="production", description="Of the input")
    identity: Identity = Field(default="customer_id", description="Kind of identity that the key is")

    deletion_url: str = Field(
        default="https://opendsr.mparticle.com/v3", description="Address of the Data Subject Request API"
    )
    deletion_key: SecretStr | None = Field(default=None, description="Its key, with which erased people are deleted")
    deletion_secret: SecretStr | None = Field(default=None, description="The secret of the key")
    compliance: Literal["gdpr", "ccpa"] = Field(default="gdpr", description="Law that deletion requests name")

    @property
    def url(self) -> str:
        """The address that is called."""
        pod = f".{self.pod}" if self.pod else ""
        return (self.base_url or f"https://s2s{pod}.mparticle.com").rstrip("/")


class MParticleUsersSync(RecordSettings, ToMParticle):
    """User attributes of mParticle, by an identity.

    **To create there:** a feed or a custom input, with key and secret.

    **What is matched:** the key with the identity. mParticle makes users that it does not know.

    **What can be refused:** an answer only says that a call came in: rows count as sent, and mParticle's live stream
    shows what became of them. Values that are gone are deleted.

    **Never run against mParticle itself.**
    """

    kind: Literal["mparticle_users"] = "mparticle_users"
    properties: dict[str, str] = Field(
        min_length=1, max_length=_ATTRIBUTES, description="Attribute to trait or column; nothing else is ever sent"
    )


class MParticleEventsSync(EventRowSettings, ToMParticle):
    """Rows of a table as custom events of mParticle.

    **To create there:** a feed or a custom input, with key and secret.

    **What is matched:** nothing: mParticle counts a row twice that it gets twice. One whose answer was lost stays
    `unknown` and is not sent again by itself (`heap-assets sync retry`).

    **What can be refused:** attributes of events are texts. A workspace takes 1,000 names of events, and drops later
    ones without a word.

    **Never run against mParticle itself.**
    """

    kind: Literal["mparticle_events"] = "mparticle_events"
    event_type: Literal[
        "other", "navigation", "location", "search", "transaction", "user_content", "user_preference", "social"
    ] = Field(default="other", description="Type of the custom events")


class MParticleDeletion(Deletion):
    """A request `erasure` of OpenDSR, one person each, with a status."""

    def __init__(self, settings: ToMParticle) -> None:
        self._settings, self._url = settings, settings.deletion_url.rstrip("/")
        self.missing = "" if settings.deletion_key and settings.deletion_secret else "deletion_key"

    def destination(self) -> DeletionApi:
        key, secret = self._settings.deletion_key, self._settings.deletion_secret
        login = Basic(key.get_secret_value() if key else "", secret.get_secret_value() if secret else "")
        limits = Limits(rates=(Rate(16, 1, per_call=True),), shared_by=f"mparticle opendsr:{self._url}")
        return DeletionApi("mparticle", self._url, auth=login, limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        # the same person has the same id, so that asking twice is one request
        number = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._url}\x1f{self._settings.identity}\x1f{keys[0]}"))
        body = {
            "regulation": self._settings.compliance,
            "subject_request_id": number,
            "subject_request_type": "erasure",
            "submitted_time": f"{clock.now():%Y-%m-%dT%H:%M:%SZ}",
            "subject_identities": {self._settings.identity: {"value": keys[0], "encoding": "raw"}},
            "api_version": "3.0",
        }
        answer = yield json_call(f"{self._url}/requests", body)
        if not answer.accepted:
            return refused(answer)
        return Deleted("pending", str(answer.fields.get("subject_request_id", number)))

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}/requests/{request_id}", method="GET", rows=0)
        status = answer.fields.get("request_status")
        if not answer.accepted or status == "cancelled":
            return refused(answer, f"mParticle says {status}" if answer.accepted else "")
        return Deleted("complete" if status == "completed" else "pending", request_id)


class MParticleUsersConnector(PeopleConnector[MParticleUsersSync]):
    """Rows to users."""

    settings_model = MParticleUsersSync
    untried = _UNTRIED
    deletes = MParticleDeletion

    def destination(self, table: str = "") -> MParticleUsers:
        return MParticleUsers(self.settings)


class MParticleEventsConnector(EventRowConnector[MParticleEventsSync]):
    """Rows to events."""

    settings_model = MParticleEventsSync
    untried = _UNTRIED
    deletes = MParticleDeletion

    def destination(self, table: str = "") -> MParticleEvents:
        return MParticleEvents(self.settings)


class MParticleDestination(BaseDestination):
    """Base of the destinations at mParticle."""

    accepted = "sent"

    def __init__(self, settings: ToMParticle) -> None:
        self.kind, self.url, self._identity = settings.kind, settings.url, settings.identity
        self._environment = settings.environment
        key = settings.api_key.get_secret_value()
        self.auth = Basic(key, settings.api_secret.get_secret_value())
        self._input = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.limits = Limits(
            batch_rows=_BATCHES,
            batch_bytes=_REQUEST_BYTES - 2,
            row_bytes=_BATCH_BYTES,
            key_units=_VALUE,
            name_units=_NAME,
            value_units=_VALUE,
            rates=(Rate(_A_SECOND, 1),),
            shared_by=f"mparticle:{self.url}:{self._input}",
            junk_keys=_JUNK,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._input}:{self._environment}:{self._identity}"

    def batch(self, person: str, **members: Any) -> dict[str, Any]:
        """Return a batch of one user."""
        return {"environment": self._environment, "user_identities": {self._identity: person}, **members}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/v2/bulkevents", b"[" + b",".join(elements) + b"]")

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == _UNAVAILABLE:  # documented as one to make again
            return Trouble.retry(f"HTTP {response.status}", retry_after(response) or 0.0, arrived=False)
        return super().trouble(response)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A refused call takes nothing, and does not say why."""
        return Verdict() if response.accepted else Verdict(rest="not_applied", reason=reason_of(response))


class MParticleUsers(MParticleDestination):
    """Sets and deletes user attributes."""

    def element(self, row: Row) -> dict[str, Any]:
        changes = {"user_attributes": row.filled, "deleted_user_attributes": row.cleared}
        return self.batch(row.key, **{name: value for name, value in changes.items() if value})


class MParticleEvents(MParticleDestination):
    """Uploads custom events; one that arrives twice counts twice."""

    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time",)
    dedupe = Dedupe("none")

    def __init__(self, settings: MParticleEventsSync) -> None:
        super().__init__(settings)
        self._source, self._type = settings.source, settings.event_type

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, _NAME)

    def element(self, row: Row) -> dict[str, Any]:
        data: dict[str, Any] = {"event_name": row.extra["event"], "custom_event_type": self._type}
        if row.extra.get("time") is not None:
            data["timestamp_unixtime_ms"] = unix_ms(row.extra["time"])
        attributes = {name: _as_text(value) for name, value in row.filled.items()}
        event = {"event_type": "custom_event", "data": {**data, "custom_attributes": attributes}}
        return self.batch(row.person, source_request_id=derived_id(self._source, row.key), events=[event])


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
