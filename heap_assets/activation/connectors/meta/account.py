"""Who calls Meta's Graph API, and what its errors mean: codes in the body tell, statuses do not."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import Field, SecretStr

from heap_assets import clock
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import BaseDestination
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.config import VendorSettings, VersionedSettings

_THROTTLED = frozenset({4, 17, 613, 80003, 80004})
_RETRY = frozenset({1, 2, 341, 368, 5000})
_STOP: Mapping[tuple[Any, Any], str] = {
    (190, None): "Meta does not accept the access token",
    (10, None): "Meta refuses: the app lacks a permission",
    (200, None): "Meta refuses: the token lacks a permission",
    (294, None): "Meta refuses: the token lacks ads_management",
    (2635, None): "Meta has ended this api_version",
    (2650, None): "Meta does not let the audience be changed",
    (2655, None): "the terms of custom audiences have not been accepted for the ad account",
    (100, 33): "the token may not see the audience of audience_id, or there is none",
    (100, 1487366): "the audience was deleted in Meta",
    (100, 1713230): "Meta has blocked uploads to the audience: look at its status in the Audience Manager",
}
"""Code and subcode (None: any) to what they mean for the run."""


class ToMeta(VersionedSettings, VendorSettings):
    """A user of the Graph API."""

    access_token: SecretStr = Field(description="Access token of a system user, as ${META_TOKEN}")
    app_secret: SecretStr | None = Field(
        default=None, description="Secret of the app, where calls need its proof (appsecret_proof)"
    )
    proof_has_time: bool = Field(default=False, description="Whether the proof also signs the time of the call")
    api_version: str = Field(default="v25.0", pattern=r"^v[0-9]+\.[0-9]+$", description="Version of the Graph API")
    base_url: str | None = Field(default=None, description="Stands in for Meta's host")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or "https://graph.facebook.com").rstrip("/")


class MetaDestination(BaseDestination):
    """Base of the destinations at Meta."""

    def __init__(self, settings: ToMeta) -> None:
        self.url, self.versioned = settings.url, f"{settings.url}/{settings.api_version}"
        self.auth = Bearer(settings.access_token.get_secret_value())
        self._token, self._secret = self.auth.token, settings.app_secret
        self._signs_time = settings.proof_has_time

    def proof(self) -> Mapping[str, str]:
        """Return what shows that the caller has the app's secret; it goes into the body: addresses are logged."""
        if self._secret is None:
            return {}
        at = {"appsecret_time": str(int(clock.now().timestamp()))} if self._signs_time else {}
        signed = "|".join((self._token, *at.values()))
        proof = hmac.new(self._secret.get_secret_value().encode(), signed.encode(), hashlib.sha256).hexdigest()
        return {"appsecret_proof": proof, **at}

    def trouble(self, response: Response) -> Trouble | None:
        error = response.fields.get("error")
        if not isinstance(error, dict):
            return super().trouble(response)
        code, subcode = error.get("code"), error.get("error_subcode")
        if code in _THROTTLED:
            return Trouble.throttled(_regained(response), f"error {code}")
        if code in _RETRY or error.get("is_transient") is True:
            return Trouble.retry(f"error {code}")
        stop = _STOP.get((code, subcode)) or _STOP.get((code, None))
        return Trouble.stop(f"{stop} (error {code})") if stop else None


def _regained(response: Response) -> float | None:
    """Return the seconds until calls are taken again, from the header that tells minutes per business."""
    try:
        usage = orjson.loads(response.headers.get("x-business-use-case-usage", ""))
        minutes = [one["estimated_time_to_regain_access"] for business in usage.values() for one in business]
        return max(minutes, default=0) * 60.0 or None
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
