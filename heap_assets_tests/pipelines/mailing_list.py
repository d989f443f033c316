"""A connector as another company would write it: members of a mailing list, sent a line of text each, and read back.

Nothing here is known to heap_assets; the tests install it as a package with an entry point.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation import (
    BaseDestination,
    Bearer,
    Connector,
    Limits,
    Permission,
    Rate,
    ReadSettings,
    Request,
    Requirement,
    Response,
    Row,
)
from heap_assets.config import PROPERTIES, HeapSettings, UpsertSettings
from heap_assets.errors import SourceError
from heap_assets.http_client import Answer, HttpClient


class MailingListSync(UpsertSettings):
    """Profiles of some plans as members of a mailing list, by the email address of their contact."""

    kind: Literal["mailing_list"] = "mailing_list"
    source: Literal["profiles"] = "profiles"
    properties: dict[str, str] = PROPERTIES
    url: str = Field(description="Base URL of the service")
    list_id: int = Field(ge=1, description="Which list")
    token: SecretStr = Field(description="Token of the service, as ${MAILING_LIST_TOKEN}")
    plans: list[str] = Field(min_length=1, description="Values of the trait `plan` whose profiles are members")

    def called_url(self, heap: HeapSettings) -> str:
        return self.url


class MailingListSource(ReadSettings):
    """Members of a mailing list as a table."""

    kind: Literal["mailing_list"]
    url: str = Field(description="Base URL of the service")
    list_id: int = Field(ge=1, description="Which list")
    token: SecretStr = Field(description="Token of the service, as ${MAILING_LIST_TOKEN}")

    def hosts(self) -> Iterator[str]:
        yield self.url

    def schemas(self) -> Mapping[str, pl.Schema]:
        columns = {"address": pl.String, "plan": pl.String, "changed_at": pl.Datetime("us", "UTC")}
        return {"members": pl.Schema(columns)}

    def read(self, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        changed = f"?changed_since={since:%Y-%m-%dT%H:%M:%SZ}" if since else ""
        url = f"{self.url}/lists/{self.list_id}/{table}{changed}"
        headers = {"Authorization": f"Token {self.token.get_secret_value()}"}
        answer = HttpClient().exchange("GET", url, b"", headers, timeout=30)
        if not isinstance(answer, Answer) or answer.status != 200:
            reason = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
            raise SourceError(f"the mailing list cannot be read: {reason}")
        frame = pl.DataFrame(json.loads(answer.body), schema=dict.fromkeys(self.schemas()[table], pl.String))
        yield frame.with_columns(pl.col("changed_at").str.to_datetime(time_unit="us", time_zone="UTC"))


class MailingListConnector(Connector[MailingListSync]):
    settings_model = MailingListSync
    source_model = MailingListSource

    def inputs(self) -> list[str]:
        return ["profiles", "warehouse/contacts"]

    def read_by_day(self) -> list[str]:
        return self.inputs()

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        yield from super().requirements(day)
        yield Requirement("warehouse/contacts", str(day))

    def rows(self, day: date, table: str = "") -> pl.LazyFrame:
        lake = self.deployment.lake
        members = lake.scan("profiles", str(day)).filter(pl.col("plan").is_in(self.settings.plans))
        contacts = lake.scan("warehouse/contacts", str(day)).select(crm_id="contact_id", key="email")
        identifiers = pl.element().filter(pl.element().struct.field("type") == "crm_id").struct.field("value")
        crm_id = pl.col("identifiers").list.eval(identifiers).list.first()
        return members.with_columns(crm_id=crm_id).join(contacts, on="crm_id").sort("key")

    def destination(self, table: str = "") -> BaseDestination:
        return MailingList(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            found = api.call(Request(MailingList(self.settings).url, method="GET", reads=frozenset({401})))
        remedy = "make a token under Settings, Tokens"
        yield Permission("token", found.status == 200, f"the list answers HTTP {found.status}", remedy)


class MailingList(BaseDestination):
    """One call has a line per member; the answer is 200 whatever happens, with a line per member that was refused."""

    kind = "mailing_list"
    limits = Limits(batch_rows=2, rates=(Rate(1000, 1),))

    def __init__(self, settings: MailingListSync) -> None:
        self._settings = settings
        self.auth = Bearer(settings.token.get_secret_value(), "Token")
        self.url = f"{settings.url}/lists/{settings.list_id}/members"

    @property
    def target(self) -> str:
        return f"{self.kind}:{self._settings.url}:{self._settings.list_id}"

    def element(self, row: Row) -> Any:
        return {"address": row.key, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(self.url, b"\n".join(elements), method="PUT")

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        lines = [json.loads(line) for line in response.body.splitlines()]
        return {line["line"]: line["error"] for line in lines}
