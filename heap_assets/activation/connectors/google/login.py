"""How calls to Google say who they are, and what all its APIs answer to a call that cannot be made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field, SecretStr, model_validator

from heap_assets import clock
from heap_assets.activation.engine.auth import Auth, RefreshToken
from heap_assets.activation.engine.auth_google import ServiceAccount
from heap_assets.activation.engine.destination import BaseDestination
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict
from heap_assets.config import VendorSettings

_TOKENS = "https://oauth2.googleapis.com/token"
PACIFIC = "America/Los_Angeles"
"""Zone in which Google's daily quotas begin anew."""
_LONGEST_WORK = timedelta(hours=48)
"""What an audience takes Google at most (destinations_b.md 1.2)."""
_AGAIN_AFTER = timedelta(hours=1)


class ToGoogle(VendorSettings):
    """A login at Google: a service account, or a user's refresh token."""

    service_account: SecretStr | None = Field(
        default=None, description="JSON of a service account's key file, as ${GOOGLE_SERVICE_ACCOUNT}"
    )
    client_id: SecretStr | None = Field(default=None, description="OAuth client of a user's login, instead")
    client_secret: SecretStr | None = Field(default=None, description="Its secret, as ${GOOGLE_CLIENT_SECRET}")
    refresh_token: SecretStr | None = Field(default=None, description="The user's token, as ${GOOGLE_REFRESH_TOKEN}")
    token_url: str = Field(default=_TOKENS, description="Where a refresh token is exchanged")
    base_url: str | None = Field(default=None, description="Stands in for Google's host")

    @model_validator(mode="after")
    def _has_one_login(self) -> ToGoogle:
        user = [self.client_id, self.client_secret, self.refresh_token]
        if self.service_account is not None and any(user):
            raise ValueError("service_account: give it, or client_id, client_secret and refresh_token")
        if self.service_account is None and not all(user):
            raise ValueError("service_account is missing, or all of client_id, client_secret and refresh_token")
        return self

    def login(self, scope: str) -> Auth:
        """Return the login for an API's scope."""
        if self.service_account is not None:
            return ServiceAccount(_text(self.service_account), (scope,))
        client, secret = _text(self.client_id), _text(self.client_secret)
        return RefreshToken(self.token_url, client, secret, refresh_token=_text(self.refresh_token))

    @property
    def caller(self) -> str:
        """Whose limits these are, as a hash: the project of a login."""
        return hashlib.sha256(_text(self.service_account or self.client_id).encode()).hexdigest()[:16]


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


class GoogleDestination(BaseDestination):
    """Base of the destinations at Google."""

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == 401:
            return Trouble.expired()
        if response.status == 403:
            message = error_of(response).get("message", "")
            return Trouble.stop(f"Google refuses: the login lacks the scope or may not use the account ({message})")
        return super().trouble(response)


def begun_now() -> dict[str, str]:
    """Return what is remembered of work that Google begins now, for :func:`overdue`."""
    return {"began": clock.now().isoformat()}


def overdue(state: Mapping[str, Any], rows: int) -> Verdict | None:
    """Return the verdict of a batch that Google has worked on for 48 hours: it is given once more, which is harmless.

    None before that, and of what was begun by a release that did not remember when.
    """
    if "began" not in state or clock.now() - datetime.fromisoformat(state["began"]) < _LONGEST_WORK:
        return None
    late = RowVerdict("deferred", "Google has not ended it within 48 hours", until=clock.now() + _AGAIN_AFTER)
    return Verdict(dict.fromkeys(range(rows), late))


def error_of(response: Response) -> dict[str, Any]:
    """Return the error that an answer tells; empty if there is none."""
    error = response.fields.get("error")
    return error if isinstance(error, dict) else {}


def details_of(response: Response) -> list[dict[str, Any]]:
    """Return the details of an answer's error."""
    return [one for one in error_of(response).get("details") or () if isinstance(one, dict)]


def digits(value: str) -> str:
    """Return the id of an account as calls have it: Google shows it with hyphens."""
    return value.replace("-", "")
