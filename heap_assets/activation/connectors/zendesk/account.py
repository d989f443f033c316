"""The account: its address, its login, its limits, and what its errors mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from heap_assets.activation.connectors.preflight import Takes, is_boolean, is_date, is_integer, is_numeric, is_text
from heap_assets.activation.engine.auth import Basic, Bearer
from heap_assets.activation.engine.destination import Service
from heap_assets.activation.engine.limits import Hint, Limits, Rate
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.config import Section, VendorSettings

EXPORT = "export"
"""Label of incremental exports, which have a limit of their own."""
FIELD_TYPES: Mapping[str, Takes] = {
    **dict.fromkeys(("text", "textarea", "regexp", "tagger"), is_text),
    "integer": is_integer,
    "decimal": is_numeric,
    "checkbox": is_boolean,
    "date": is_date,
}
"""What fields of users and tickets take, by type."""
_CONFLICT = 409


class ZendeskAccount(Section):
    """An account of Zendesk, of a sync or of a source."""

    subdomain: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9-]*$", description="The part of its address before .zendesk.com"
    )
    base_url: str | None = Field(default=None, description="Stands in for the account's address")
    email: str | None = Field(default=None, description="Who made the API token; with api_token")
    api_token: SecretStr | None = Field(default=None, description="API token, as ${ZENDESK_API_TOKEN}")
    oauth_token: SecretStr | None = Field(default=None, description="OAuth access token in place of both")
    calls_per_minute: int = Field(default=200, ge=1, description="By plan: 200, 400, 700, or 2,500 with the add-on")
    exports_per_minute: int = Field(default=10, ge=1, description="Of incremental exports: 10, or 30 with the add-on")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or f"https://{self.subdomain}.zendesk.com").rstrip("/")

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.subdomain is None and self.base_url is None:
            raise ValueError("subdomain: which one is it? It stands before .zendesk.com in the account's address")
        with_token = self.email is not None and self.api_token is not None
        if with_token == (self.oauth_token is not None) or (self.email is None) != (self.api_token is None):
            raise ValueError("email: log in by email and api_token, or by oauth_token alone")
        return self


class ToZendesk(ZendeskAccount, VendorSettings):
    """A sync to an account."""


class ZendeskApi(Service):
    """An account of Zendesk as calls see it."""

    kind = "zendesk"

    def __init__(self, settings: ZendeskAccount, **limits: Any) -> None:
        self.url = settings.url
        if settings.oauth_token is not None:
            self.auth = Bearer(settings.oauth_token.get_secret_value())
        elif settings.api_token is not None:
            self.auth = Basic(f"{settings.email}/token", settings.api_token.get_secret_value())
        self.limits = Limits(
            rates=(
                Rate(settings.calls_per_minute, 60, per_call=True),
                Rate(settings.exports_per_minute, 60, per_call=True, label=EXPORT),
            ),
            hints=(Hint("X-Rate-Limit-Remaining", "ratelimit-reset"),),
            shared_by=f"zendesk:{self.url}",
            **limits,
        )

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == 401:
            return Trouble.stop("Zendesk does not accept the token: check email and api_token, or oauth_token")
        return Trouble.retry("HTTP 409") if response.status == _CONFLICT else super().trouble(response)
