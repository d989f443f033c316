"""How calls to Google say who they are, and what all its APIs answer to a call that cannot be made."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field, SecretStr, model_validator

from heap_assets.activation.engine.auth import Auth, RefreshToken
from heap_assets.activation.engine.auth_google import ServiceAccount
from heap_assets.activation.engine.destination import BaseDestination
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.config import VendorSettings

_TOKENS = "https://oauth2.googleapis.com/token"
PACIFIC = "America/Los_Angeles"
"""Zone in which Google's daily quotas begin anew."""


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
