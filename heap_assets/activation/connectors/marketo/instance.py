"""The instance: its address, its login, its limits, and the two levels of errors that calls have as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.preflight import Fields, is_boolean, is_time, may_be_number
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.auth import ClientCredentials
from heap_assets.activation.engine.destination import BaseDestination
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Quota, Rate
from heap_assets.activation.engine.verdict import Response, Trouble
from heap_assets.config import VendorSettings
from heap_assets.sources.warehouse import Permission

BATCH_ROWS, _BATCH_BYTES = 300, 1 << 20
_AROUND = 1024
"""Bytes of a body that are not rows."""
_EXPIRED = frozenset({"601", "602"})
_THROTTLED = frozenset({"606", "615"})
_RETRY = frozenset({"502", "604", "608", "611", "614", "713", "719"})
_STOP = {
    "607": "the day's calls of the Marketo instance are used up",
    "600": "Marketo was sent no token",
    "603": "Marketo refuses: the role of the API user lacks a right, or the address is not on the allow-list",
    "605": "Marketo does not take calls of this kind",
    "610": "there is nothing at this address of Marketo: check base_url",
    "612": "Marketo does not take bodies of this kind",
    "616": "the Marketo subscription does not have this API",
    "703": "the Marketo subscription does not have this feature",
    "1013": "Marketo has no static list of list_id",
}
NO_LEAD = "1004"


_NUMBER = ("integer", "score", "float", "currency", "percent")
_FIELDS = Fields(
    "field",
    "take its REST API name; make it in Marketo: Admin, Field Management",
    {**dict.fromkeys(_NUMBER, may_be_number), "boolean": is_boolean, "date": is_time, "datetime": is_time},
)


class ToMarketo(VendorSettings):
    """An instance of Marketo."""

    cadence: ClassVar[str] = "*/30 * * * *"

    base_url: str = Field(description="Endpoint as Admin > Web Services shows it: https://….mktorest.com/rest")
    client_id: SecretStr = Field(description="Client id of the custom service, as ${MARKETO_CLIENT_ID}")
    client_secret: SecretStr = Field(description="Its secret, as ${MARKETO_CLIENT_SECRET}")
    lookup_field: str = Field(default="email", description="REST API name of the field that holds the key")
    calls_per_day: int = Field(default=50_000, ge=1, description="Of the instance; 10,000 in older contracts")

    @property
    def url(self) -> str:
        """The address without the `/rest` that the UI shows with it."""
        return self.base_url.rstrip("/").removesuffix("/rest")


class MarketoDestination(BaseDestination):
    """Base of the destinations at Marketo, which answers 200 to whatever it refuses."""

    def __init__(self, settings: ToMarketo) -> None:
        self.url, self.lookup = settings.url, settings.lookup_field
        secret = settings.client_secret.get_secret_value()
        self.auth = ClientCredentials(f"{self.url}/identity/oauth/token", settings.client_id.get_secret_value(), secret)
        self.limits = Limits(
            batch_rows=BATCH_ROWS,
            batch_bytes=_BATCH_BYTES - _AROUND,
            row_bytes=_BATCH_BYTES - _AROUND,
            key_units=255,
            rates=(Rate(100, 20, per_call=True),),
            quotas=(Quota(settings.calls_per_day, zone="America/Chicago"),),
            in_flight=10,
            shared_by=f"marketo:{self.url}",
            forbidden_names=frozenset({self.lookup.lower(), "id"}),
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self.lookup}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        key = pl.col("key")
        same = key.str.to_lowercase().is_duplicated() & ~key.is_duplicated()
        faults = {"another key is the same but for upper case": same}
        if self.lookup == "id":
            return faults | {"key is no id of a lead": ~key.str.contains(r"^[0-9]+$")}
        faults["key has a comma"] = key.str.contains(",", literal=True)
        if self.lookup == "email":
            faults["key is no e-mail address in ASCII"] = ~key.str.contains(r"^[\x21-\x7e]+@[\x21-\x7e]+$")
        return faults

    def trouble(self, response: Response) -> Trouble | None:
        if not response.accepted:
            return super().trouble(response)
        code = _code(response)
        if code in _EXPIRED:
            return Trouble.expired()
        if code in _THROTTLED:
            return Trouble.throttled(reason=f"error {code}")
        if code in _RETRY:
            return Trouble.retry(f"error {code}")
        return Trouble.stop(_STOP[code]) if code in _STOP else None


def _code(response: Response) -> str | None:
    """Return the code of the error of a whole call, None if it was carried out."""
    document = response.fields
    return None if document.get("success") else str((document.get("errors") or [{}])[0].get("code", ""))


def tried(
    api: Api, service: MarketoDestination, names: Iterable[str], columns: Mapping[str, pl.DataType]
) -> Iterator[Permission]:
    """Yield what was tried: the login, whether leads are found by the key's field, each mapped field and its type."""
    answer = api.call(Request(f"{service.url}/rest/v1/leads/describe2.json", method="GET", longest_answer=16 << 20))
    lead = (results_of(answer) or [{}])[0]
    fields = {str(one["name"]): one for one in lead.get("fields") or ()}
    yield Permission(
        "login", bool(fields), f"{len(fields)} fields of leads can be read", "let the API user read people"
    )
    searchable = {name for names in lead.get("searchableFields") or () for name in names} | {"id"}
    finds = service.lookup in searchable
    detail = "leads are found by it" if finds else "Marketo finds no leads by it"
    yield Permission(f"key {service.lookup}", finds, detail, f"take one of {', '.join(sorted(searchable))}")
    kinds = {name: str(one["dataType"]) for name, one in fields.items() if one.get("updateable", True)}
    yield from _FIELDS.tried(names, kinds, columns)


def results_of(response: Response) -> list[Any] | None:
    """Return what is told of each row; None if the call was refused."""
    return response.json.get("result") or [] if response.accepted and _code(response) is None else None


def reason_of_row(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and text of a skipped row's reason."""
    reason = (result.get("reasons") or [{}])[0]
    return str(reason.get("code", "")), f"{reason.get('code', '')}: {reason.get('message', 'skipped')}"
