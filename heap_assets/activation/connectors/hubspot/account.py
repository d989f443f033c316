"""The account: its address, its token, its limits, and what its errors mean."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, json_call, refused
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import BaseDestination, Row, Service
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Quota, Rate
from heap_assets.activation.engine.verdict import Response, Trouble, Verdict, reason_of, retry_after
from heap_assets.config import Section, VendorSettings

HOST = "https://api.hubapi.com"
"""Of all regions."""
BATCH_ROWS = 100
SEARCH = "search"
"""Label of searches, which have a limit of their own."""
_CONTACTS = "/crm/v3/objects/contacts"
_LOCKED, _MIGRATING, _THROTTLED = 423, 477, 429


class HubSpotAccount(Section):
    """An account of HubSpot, of a sync or of a source."""

    hub_id: int = Field(ge=1, description="Hub ID of the account (in HubSpot: the account menu)")
    token: SecretStr = Field(description="Access token of a private app, as ${HUBSPOT_TOKEN}")
    base_url: str | None = Field(default=None, description="Stands in for HubSpot's host")
    calls_per_10_seconds: int = Field(
        default=100, ge=1, description="100 for Free and Starter, 190 for Professional and Enterprise, 250 with add-on"
    )
    calls_per_day: int = Field(default=250_000, ge=1, description="Of the whole account, other apps included, by plan")
    searches_per_second: int = Field(default=4, ge=1, description="Of the whole account: 4, or 5 by newer plans")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or HOST).rstrip("/")


class ToHubSpot(HubSpotAccount, VendorSettings):
    """A sync to an account."""

    @property
    def contact_property(self) -> str:
        """The property of contacts that holds the key."""
        return "hs_object_id"


class HubSpotApi(Service):
    """An account of HubSpot as calls see it."""

    kind = "hubspot"

    def __init__(self, settings: HubSpotAccount, batch_rows: int = BATCH_ROWS, **limits: Any) -> None:
        self.url, self._hub = settings.url, settings.hub_id
        self.auth = Bearer(settings.token.get_secret_value())
        self.limits = Limits(
            batch_rows=batch_rows,
            rates=(
                Rate(settings.calls_per_10_seconds, 10, per_call=True),
                Rate(settings.searches_per_second, 1, per_call=True, label=SEARCH),
            ),
            quotas=(Quota(settings.calls_per_day),),
            shared_by=f"hubspot:{self.url}:{self._hub}",
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._hub}"

    def post(self, path: str, elements: Sequence[bytes], **choices: Any) -> Request:
        """Return a call that gives a list of inputs."""
        return Request(self.url + path, b'{"inputs":[' + b",".join(elements) + b"]}", **choices)

    def trouble(self, response: Response) -> Trouble | None:
        document = response.fields
        if response.status == 401:
            return Trouble.stop("HubSpot does not accept the token: check token, and that its private app still exists")
        if response.status == 403:
            return Trouble.stop("HubSpot refuses: the private app lacks a scope, or the plan the feature")
        if response.status == _THROTTLED and document.get("policyName") == "DAILY":
            return Trouble.stop("the day's calls of the HubSpot account are used up")
        if response.status in (_LOCKED, _MIGRATING):
            return Trouble.retry(f"HTTP {response.status}", retry_after(response) or 2.0)
        return super().trouble(response)


class HubSpotDestination(HubSpotApi, BaseDestination):
    """Base of the destinations at HubSpot."""

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """Return the verdict of a call that tells nothing of single rows: all are taken, or none is."""
        return Verdict() if response.accepted else Verdict(rest="not_applied", reason=reason_of(response))


class HubSpotDeletion(Deletion):
    """`gdpr-delete` of a contact by its id, which is looked up first: an address that HubSpot does not have is put on a
    block list by that call, and so is never given to it."""

    def __init__(self, settings: ToHubSpot) -> None:
        self._settings, self._property = settings, settings.contact_property

    def destination(self) -> HubSpotApi:
        return HubSpotApi(self._settings)

    def ask(self, keys: Sequence[str]) -> Calls:
        destination = self.destination()
        named = {} if self._property == "hs_object_id" else {"idProperty": self._property}
        body = {"properties": ["hs_object_id"], **named, "inputs": [{"id": key} for key in keys]}
        answer = yield json_call(f"{destination.url}{_CONTACTS}/batch/read", body)
        if not answer.accepted:
            return refused(answer)
        ids = [str(one["id"]) for one in answer.fields.get("results", ())]
        for one in ids:
            answer = yield json_call(f"{destination.url}{_CONTACTS}/gdpr-delete", {"objectId": one})
            if not answer.accepted:
                return refused(answer)
        return (
            Deleted("requested", note="within 30 days") if ids else Deleted("complete", note="no contact has this key")
        )


def as_text(value: Any) -> str:
    """Return a value as HubSpot takes it: all are texts, and an empty one clears."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
