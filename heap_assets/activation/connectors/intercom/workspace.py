"""The workspace: its address, its token, its limits, and what its errors mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, refused
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import Service
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Hint, Limits, Rate
from heap_assets.activation.engine.value_rules import ValueRules
from heap_assets.activation.engine.verdict import Response, Trouble, reason_of
from heap_assets.config import VendorSettings, VersionedSettings

_HOSTS: Mapping[str, str] = {
    "us": "https://api.intercom.io",
    "eu": "https://api.eu.intercom.io",
    "au": "https://api.au.intercom.io",
}
_WINDOWS = 6
"""Limits of a minute are cut into so many windows."""
_JUNK = frozenset({"null", "none", "nil", "undefined", "unknown", "anonymous", "0", "-1"})
NOT_THERE = 404


class ToIntercom(VersionedSettings, VendorSettings):
    """A workspace of Intercom."""

    workspace: str = Field(min_length=1, description="Id of the workspace: in Intercom's address after /apps/")
    token: SecretStr = Field(description="Access token of an app, as ${INTERCOM_TOKEN}")
    region: Literal["us", "eu", "au"] = Field(default="us", description="Where the workspace's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Intercom's host")
    api_version: str = Field(default="2.15", pattern=r"^[0-9]+\.[0-9]+$", description="Version of Intercom's API")
    identifier: Literal["external_id", "email", "id"] = Field(
        default="external_id", description="What the key is; id: Intercom's own"
    )
    calls_per_minute: int = Field(default=10_000, ge=60, description="Of the app")
    searches_per_minute: int = Field(default=1_000, ge=60, description="Of the app")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or _HOSTS[self.region]).rstrip("/")


VALUES = ValueRules(time="s", date="s")
"""Times are in Unix seconds."""


class IntercomApi(Service):
    """A workspace as calls see it; a call takes one record."""

    def __init__(self, settings: ToIntercom, **limits: Any) -> None:
        self.kind, self.url, self.identifier = settings.kind, settings.url, settings.identifier
        self._workspace = settings.workspace
        self._headers = {"Intercom-Version": settings.api_version}
        self.auth = Bearer(settings.token.get_secret_value())
        self.limits = Limits(
            rates=(
                Rate(settings.calls_per_minute // _WINDOWS, 10, per_call=True),
                Rate(settings.searches_per_minute // _WINDOWS, 10, per_call=True, label="search"),
            ),
            hints=(Hint("X-RateLimit-Remaining", "X-RateLimit-Reset", "epoch"),),
            shared_by=f"intercom:{self.url}:{self._workspace}",
            junk_keys=_JUNK,
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._workspace}:{self.identifier}"

    def call(self, path: str, body: Any = b"", method: str = "POST", **choices: Any) -> Request:
        """Return a call of the version that the settings name."""
        encoded = body if isinstance(body, bytes) else orjson.dumps(body)
        return Request(self.url + path, encoded, method, self._headers, **choices)

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == 401:
            return Trouble.stop("Intercom does not accept the token: check token and region")
        if response.status == 403:
            return Trouble.stop("Intercom refuses: the app lacks a permission")
        return super().trouble(response)


class IntercomDeletion(Deletion):
    """`/user_delete_requests`, by Intercom's own id, which is looked up first; hard deletion within 90 days."""

    def __init__(self, settings: ToIntercom) -> None:
        self._settings = settings

    def destination(self) -> IntercomApi:
        return IntercomApi(self._settings)

    def ask(self, keys: Sequence[str]) -> Calls:
        destination, own = self.destination(), self._settings.identifier
        ids = list(keys)
        if own != "id":
            query = {"field": own, "operator": "IN", "value": sorted({*keys, *map(str.lower, keys)})}
            body = {"query": {"operator": "AND", "value": [query]}}
            answer = yield destination.call("/contacts/search", body, repeatable=True, rows=0, label="search")
            if not answer.accepted:
                return refused(answer)
            ids = [str(contact["id"]) for contact in answer.fields.get("data", ())]
        for one in ids:
            answer = yield destination.call(
                "/user_delete_requests",
                {"intercom_user_id": one},
                repeatable=True,
                rows=0,
                reads=frozenset({NOT_THERE}),
            )
            if not answer.accepted and answer.status != NOT_THERE:
                return refused(answer)
        return (
            Deleted("requested", note="within 90 days") if ids else Deleted("complete", note="no contact has this key")
        )


def why(response: Response) -> str:
    """Return code and text of an answer that refuses."""
    errors = response.fields.get("errors") or [{}]
    return f"{errors[0].get('code')}: {errors[0].get('message')}" if errors[0] else reason_of(response)
