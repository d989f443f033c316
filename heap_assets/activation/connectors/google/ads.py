"""The older Ads endpoints, for developer tokens that Google still lets in: headers, versions, errors by their codes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, ClassVar

import orjson
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.google.login import PACIFIC, GoogleDestination, ToGoogle, details_of, digits
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Quota
from heap_assets.activation.engine.verdict import Response, Trouble, reason_of
from heap_assets.config import VersionedSettings
from heap_assets.sources.warehouse import Permission

_SCOPE = "https://www.googleapis.com/auth/adwords"
_SECONDS = re.compile(r"([0-9.]+)s")
_STOP: Mapping[str, str] = {
    "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE": "Google has closed this endpoint to developer tokens without recent "
    "use: take the kinds google_audiences and google_conversions",
    "UNSUPPORTED_VERSION": "Google has ended this api_version",
    "DEVELOPER_TOKEN_INVALID": "Google does not know the developer token",
    "DEVELOPER_TOKEN_NOT_APPROVED": "the developer token is for test accounts only",
    "INVALID_LOGIN_CUSTOMER_ID": "login_customer_id is no manager account of customer_id",
    "USER_PERMISSION_DENIED": "the login may not use customer_id: check login_customer_id",
    "INVALID_USER_LIST": "customer_id has no user list of audience_id",
}


class ToGoogleAds(VersionedSettings, ToGoogle):
    """An account of Google Ads, by the Ads API."""

    api_ends: ClassVar[Mapping[str, date]] = {"v21": date(2026, 10, 31), "v22": date(2026, 10, 31)}

    customer_id: str = Field(pattern=r"^[0-9-]+$", description="Id of the account")
    login_customer_id: str | None = Field(
        default=None, pattern=r"^[0-9-]+$", description="Manager account through which the login may use it"
    )
    developer_token: SecretStr = Field(description="Developer token, as ${GOOGLE_DEVELOPER_TOKEN}")
    api_version: str = Field(default="v25", pattern=r"^v[0-9]+$", description="Version of the Ads API")
    operations_per_day: int | None = Field(
        default=15_000, ge=1, description="Rows a day of the developer token; null: as many as there are"
    )

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or "https://googleads.googleapis.com").rstrip("/")


class GoogleAdsDestination(GoogleDestination):
    """Base of the destinations at the Ads API; `product`: what is written to."""

    def __init__(self, settings: ToGoogleAds, product: str, batch_rows: int) -> None:
        customer = digits(settings.customer_id)
        self.url, self.customer, self._product = settings.url, f"customers/{customer}", product
        self._versioned = f"{self.url}/{settings.api_version}"
        self.auth = settings.login(_SCOPE)
        self._headers = {"developer-token": settings.developer_token.get_secret_value()}
        if settings.login_customer_id is not None:
            self._headers["login-customer-id"] = digits(settings.login_customer_id)
        daily = settings.operations_per_day
        self.limits = Limits(
            batch_rows=batch_rows,
            quotas=(Quota(daily, zone=PACIFIC, per_row=True),) if daily else (),
            shared_by=f"google_ads:{self.url}:{settings.caller}",
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self.customer}:{self._product}"

    def call(self, path: str, body: bytes | Mapping[str, Any], **choices: Any) -> Request:
        """Return a call; `path` begins with the name of a resource."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return Request(f"{self._versioned}/{path}", content, headers=self._headers, **choices)

    def trouble(self, response: Response) -> Trouble | None:
        errors = [] if response.accepted else errors_of(details_of(response))
        for error in errors:
            kind, code = code_of(error)
            if code in _STOP:
                return Trouble.stop(_STOP[code])
            if code == "CONCURRENT_MODIFICATION":
                return Trouble.retry(code, arrived=False)
            if kind == "quotaError":
                delay = str((error.get("details") or {}).get("quotaErrorDetails", {}).get("retryDelay", ""))
                seconds = _SECONDS.fullmatch(delay)
                return Trouble.throttled(float(seconds[1]) if seconds else None, code)
        return super().trouble(response)


def looked_up(api: Api, service: GoogleAdsDestination, resource: str, name: str) -> Iterator[Permission]:
    """Yield whether the account has what is written to. `resource`: the kind of thing in Google's query language."""
    query = f"SELECT {resource}.resource_name FROM {resource} WHERE {resource}.resource_name = '{name}'"
    answer = api.call(service.call(f"{service.customer}/googleAds:search", {"query": query}, repeatable=True, rows=0))
    yield Permission("login", answer.accepted, "the account can be asked" if answer.accepted else reason_of(answer))
    if answer.accepted:
        exists = bool(answer.fields.get("results"))
        detail = "it is there" if exists else f"customer_id has no {resource} of this id"
        yield Permission(resource.replace("_", " "), exists, detail, "take its id from Google Ads")


UNTRIED = "whether Google still lets the developer token upload: only an upload shows it"


def errors_of(details: Any) -> list[dict[str, Any]]:
    """Return the errors that are listed in the details of a refusal, of a call or of some of its rows."""
    lists = [one.get("errors") for one in details or () if isinstance(one, dict)]
    return [error for errors in lists for error in errors or () if isinstance(error, dict)]


def code_of(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return kind and code of an error."""
    codes = error.get("errorCode") or {}
    return next(((str(kind), str(code)) for kind, code in codes.items()), ("", "UNKNOWN"))


def refused_rows(response: Response, name: str) -> dict[int, str] | None:
    """Return place to code of the rows of a list that a partial failure refuses; None if it names none."""
    failure = response.fields.get("partialFailureError")
    if not failure:
        return {}
    named: dict[int, str] = {}
    for error in errors_of(failure.get("details")):
        path = (error.get("location") or {}).get("fieldPathElements") or ()
        places = [int(step["index"]) for step in path if step.get("fieldName") == name and "index" in step]
        if not places:
            return None
        named.setdefault(places[0], code_of(error)[1])
    return named or None
