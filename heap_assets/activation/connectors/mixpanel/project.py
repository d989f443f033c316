"""A project of Mixpanel: where it is, who is let in, what it takes, and the deletion of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.config import VendorSettings

_HOSTS: Mapping[str, str] = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
_DELETION: Mapping[str, str] = {
    "us": "https://mixpanel.com",
    "eu": "https://eu.mixpanel.com",
    "in": "https://in.mixpanel.com",
}
LONGEST_TEXT = 255
BATCH_BYTES = 1_900_000
"""Newer pages allow 10 MB, older ones 2."""
JUNK = frozenset(
    ("anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "<nil>", "0", "-1")
) | {"true", "false", "[]", "{}", "00000000-0000-0000-0000-000000000000"}
UNTRIED = "with what sends Mixpanel has no call that only looks, and any property and event is made when it comes"


class ToMixpanel(VendorSettings):
    """A project of Mixpanel."""

    project_id: int = Field(ge=1, description="Project ID (in Mixpanel: Project Settings, Overview)")
    token: SecretStr = Field(description="Project token, as ${MIXPANEL_TOKEN}")
    region: Literal["us", "eu", "in"] = Field(default="us", description="Where the project's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Mixpanel's host")

    deletion_token: SecretStr | None = Field(
        default=None, description="GDPR OAuth token of a person, with which erased people are deleted; it ends yearly"
    )
    deletion_url: str | None = Field(default=None, description="Stands in for the host of deletion requests")
    compliance: Literal["GDPR", "CCPA"] = Field(default="GDPR", description="Law that deletion requests name")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or _HOSTS[self.region]).rstrip("/")


class MixpanelDeletion(Deletion):
    """`/api/app/data-deletions/v3.0`, up to 1,999 users; a task that is done within 30 days."""

    ids_per_call = 1_999

    def __init__(self, settings: ToMixpanel) -> None:
        self._settings = settings
        host = (settings.deletion_url or _DELETION[settings.region]).rstrip("/")
        self._url, self._token = f"{host}/api/app/data-deletions/v3.0/", settings.token.get_secret_value()
        self.missing = "" if settings.deletion_token else "deletion_token"

    def destination(self) -> DeletionApi:
        token = self._settings.deletion_token
        limits = Limits(rates=(Rate(1, 1, per_call=True),), shared_by=f"mixpanel deletion:{self._settings.project_id}")
        login = Bearer(token.get_secret_value() if token else "")
        return DeletionApi("mixpanel", str(self._settings.project_id), auth=login, limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        body = {"distinct_ids": list(keys), "compliance_type": self._settings.compliance}
        answer = yield json_call(f"{self._url}?token={self._token}", body)
        results = answer.fields.get("results")
        results = results[0] if isinstance(results, list) and results else results
        if not answer.accepted or not isinstance(results, dict):
            return refused(answer)
        return Deleted("pending", str(results["tracking_id"]))

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}{request_id}?token={self._token}", method="GET", rows=0)
        results = answer.fields.get("results")
        results = results[0] if isinstance(results, list) and results else results
        status = results.get("status") if isinstance(results, dict) else None
        if status == "SUCCESS":
            return Deleted("complete", request_id)
        if status in ("FAILURE", "REVOKED", "NOT_FOUND"):
            return Deleted("failed", request_id, f"Mixpanel says {status}")
        return Deleted("pending", request_id) if answer.accepted else refused(answer)
