"""The org: its address, its logins, its version, how much of its calls is used, and what errors of a call mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from heap_assets.activation.engine.auth import Auth, ClientCredentials, JwtBearer, RefreshToken
from heap_assets.activation.engine.destination import Service
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.config import Day, Section, VendorSettings, VersionedSettings

_USAGE = re.compile(r"api-usage=(\d+)/(\d+)")
_MANY_CALLS = "REQUEST_LIMIT_EXCEEDED"
_LOGINS = {
    "client_credentials": ("client_secret",),
    "jwt_bearer": ("username", "private_key"),
    "refresh_token": ("refresh_token",),
}
_OLDEST = 46
"""The first version that has calls for many records at once."""
_SPRING, _SPRING_YEAR, _YEARS = 60, 2024, 3
_MONTHS = (2, 6, 10)
"""Version 60 is that of spring 2024; three a year follow, and each lives for three years at least."""


class Org(Section):
    """An org of Salesforce, of a sync or of a source."""

    my_domain: str = Field(description="Address of the org: https://….my.salesforce.com, of a sandbox with its name")
    login: Literal["client_credentials", "jwt_bearer", "refresh_token"] = Field(
        default="client_credentials", description="How the external client app logs in"
    )
    client_id: SecretStr = Field(description="Consumer key of the external client app, as ${SALESFORCE_CLIENT_ID}")
    client_secret: SecretStr | None = Field(default=None, description="Its secret, as ${SALESFORCE_CLIENT_SECRET}")
    username: SecretStr | None = Field(default=None, description="Of login: jwt_bearer: the user that it acts as")
    private_key: SecretStr | None = Field(default=None, description="Of login: jwt_bearer: PEM, as ${SALESFORCE_KEY}")
    audience: str = Field(
        default="https://login.salesforce.com",
        description="Of login: jwt_bearer: https://test.salesforce.com for a sandbox",
    )
    refresh_token: SecretStr | None = Field(default=None, description="Of login: refresh_token")
    api_version: str = Field(default="64.0", pattern=r"^\d{2,3}\.0$", description="Version of the API, at least 46.0")
    api_version_ends: Day | None = Field(
        default=None, description="When it ends, once that is announced; else the three years that each has for sure"
    )
    most_api_usage: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of the org's calls in 24 hours, of all its apps, at which a run ends",
    )

    @field_validator("api_version")
    @classmethod
    def _has_collections(cls, value: str) -> str:
        if float(value) < _OLDEST:
            raise ValueError(f"the calls for many records are in {_OLDEST}.0 and later versions")
        return value

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        for name in _LOGINS[self.login]:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: login: {self.login} needs it")
        return self

    @property
    def url(self) -> str:
        """The address that the login is asked at; further calls go where its answer says."""
        return self.my_domain.rstrip("/")

    @property
    def api_end(self) -> date:
        """The day until which the version is there for sure, or the announced one."""
        if self.api_version_ends is not None:
            return self.api_version_ends
        years, third = divmod(int(float(self.api_version)) - _SPRING, len(_MONTHS))
        return date(_SPRING_YEAR + years + _YEARS, _MONTHS[third], 1)

    def auth(self) -> Auth:
        """Return the login."""
        common: dict[str, Any] = {
            "token_url": f"{self.url}/services/oauth2/token",
            "client_id": self.client_id.get_secret_value(),
            "client_secret": _plain(self.client_secret),
            "base_url_from": "instance_url",
            "hosts": ("salesforce.com",),
        }
        if self.login == "client_credentials":
            return ClientCredentials(**common)
        if self.login == "refresh_token":
            return RefreshToken(**common, refresh_token=_plain(self.refresh_token))
        claims = {"iss": common.pop("client_id"), "sub": _plain(self.username), "aud": self.audience}
        return JwtBearer(**common, private_key=_plain(self.private_key), claims=claims)


class ToSalesforce(Org, VendorSettings, VersionedSettings):
    """A sync to an org."""

    cadence: ClassVar[str] = "*/15 * * * *"


class SalesforceApi(Service):
    """An org as calls see it."""

    kind = "salesforce"

    def __init__(self, settings: Org, **limits: Any) -> None:
        self.url, self.auth = settings.url, settings.auth()
        self.base = f"/services/data/v{settings.api_version}"
        self._most_usage, self._usage = settings.most_api_usage, 0.0
        self.limits = Limits(in_flight=25, shared_by=f"salesforce:{self.url}", **limits)

    @property
    def account(self) -> str:
        return f"{self.kind}:{self.url}"

    @property
    def used_up(self) -> str | None:
        """Why the run must end: others need the calls that are left."""
        return _used_up(self._usage, self._most_usage)

    def trouble(self, response: Response) -> Trouble | None:
        self._heed(response.headers)
        code, message = error_of(response)
        if response.status == 401:
            return Trouble.expired()
        if response.status == 403 and code == _MANY_CALLS:
            return Trouble.throttled(reason=f"HTTP 403 {code}")
        if response.status == 403:
            return Trouble.stop(f"Salesforce refuses ({code}): the user lacks a permission. {message}")
        if response.status == 404:
            return Trouble.stop(f"Salesforce has no such object, field or version ({code}): check the settings")
        return super().trouble(response)

    def _heed(self, headers: Mapping[str, str]) -> None:
        self._usage = _usage_of(headers) or self._usage


def usage_error(response: Response, most_usage: float) -> str | None:
    """Return why no further call may be made after an answer: others need the calls that are left."""
    return _used_up(_usage_of(response.headers) or 0.0, most_usage)


def _usage_of(headers: Mapping[str, str]) -> float | None:
    usage = _USAGE.search(headers.get("sforce-limit-info", ""))
    return int(usage[1]) / int(usage[2]) if usage and int(usage[2]) else None


def _used_up(usage: float, most_usage: float) -> str | None:
    if usage <= most_usage:
        return None
    return f"{usage:.0%} of the org's calls in 24 hours are used up; most_api_usage is {most_usage:.0%}"


def error_of(response: Response) -> tuple[str, str]:
    """Return code and text of a refused call: its body is a list of one."""
    document = response.json
    first = document[0] if isinstance(document, list) and document and isinstance(document[0], dict) else {}
    return str(first.get("errorCode", "")), str(first.get("message", ""))


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
