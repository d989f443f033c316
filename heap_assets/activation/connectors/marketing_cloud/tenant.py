"""The tenant: its addresses, its login for one business unit, and what errors of a call as a whole mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr, model_validator

from heap_assets.activation.engine.auth import ClientCredentials
from heap_assets.activation.engine.destination import BaseDestination
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.value_rules import ValueRules
from heap_assets.activation.engine.verdict import Response, Trouble, reason_of, retry_after
from heap_assets.config import VendorSettings

_HOST = "marketingcloudapis.com"
_THROTTLED = 429


class ToMarketingCloud(VendorSettings):
    """A business unit of a tenant of Marketing Cloud."""

    subdomain: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]{1,63}$",
        description="First part of the package's REST base URI: the 28 characters before .rest.marketingcloudapis.com",
    )
    base_url: str | None = Field(default=None, description="Stands in for the tenant's hosts")
    account_id: str = Field(
        pattern=r"^\d+$", description="MID of the business unit; with another one rows land in another unit"
    )
    client_id: SecretStr = Field(description="Client id of the installed package, as ${MARKETING_CLOUD_CLIENT_ID}")
    client_secret: SecretStr = Field(description="Its secret, as ${MARKETING_CLOUD_CLIENT_SECRET}")
    longest_value: int = Field(default=4_000, ge=1, description="Characters of the longest text column that is mapped")

    @model_validator(mode="after")
    def _tenant_is_named(self) -> ToMarketingCloud:
        if self.subdomain is None and self.base_url is None:
            raise ValueError("subdomain: which tenant is it? (in Marketing Cloud: Setup, Installed Packages)")
        return self

    @property
    def vendor(self) -> str:
        """The destination as people call it."""
        return "marketing_cloud"

    @property
    def url(self) -> str:
        """The address that the login is asked at; further calls go where its answer says."""
        return (self.base_url or f"https://{self.subdomain}.auth.{_HOST}").rstrip("/")


class MarketingCloudDestination(BaseDestination):
    """Base of what calls Marketing Cloud."""

    def __init__(self, settings: ToMarketingCloud, **limits: Any) -> None:
        self.kind, self.url, self._unit = settings.kind, settings.url, settings.account_id
        self.auth = ClientCredentials(
            f"{self.url}/v2/token",
            settings.client_id.get_secret_value(),
            settings.client_secret.get_secret_value(),
            {"account_id": settings.account_id},
            style="json",
            base_url_from="rest_instance_url",
            hosts=(_HOST,),
        )
        self.values = ValueRules(boolean="text", longest=settings.longest_value, unit="utf16")
        self.limits = Limits(shared_by=f"marketing_cloud:{self.url}", **limits)

    @property
    def account(self) -> str:
        return f"{self.kind}:{self.url}:{self._unit}"

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == 401:
            return Trouble.expired()
        if response.status == 403:
            return Trouble.stop("Marketing Cloud refuses: the installed package lacks a scope, or the business unit")
        if response.status == 404:
            return Trouble.stop(f"Marketing Cloud has nothing of this name: check the keys. {reason_of(response)}")
        if response.status == _THROTTLED:
            return Trouble.throttled(retry_after(response) or _seconds(response.fields))
        return super().trouble(response)


def _seconds(document: Mapping[str, Any]) -> float | None:
    """Return the seconds that the body of an answer asks to wait; one that blocks for a while tells none."""
    seconds = document.get("retryAfter")
    return float(seconds) if isinstance(seconds, int | float) else None
