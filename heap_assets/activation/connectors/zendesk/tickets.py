"""Fields of tickets, one ticket a call: what only we know of a ticket, such as the session that it was opened in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.preflight import Fields, untried
from heap_assets.activation.connectors.zendesk.account import FIELD_TYPES, ToZendesk, ZendeskApi
from heap_assets.activation.engine.destination import Row, RowByRowDestination
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import PROPERTIES
from heap_assets.sources.warehouse import Permission

_AT_ONCE, _PAGE, _NOT_FOUND, _FORBIDDEN = 15, 100, 404, 403
_FIELDS = Fields("ticket field", "make it in the Admin Center, Objects and rules, Tickets, Fields", FIELD_TYPES)


class ZendeskTicketsSync(RecordSettings, ToZendesk):
    """Fields of Zendesk's tickets, by ticket id.

    **To create there:** an API token of an administrator, or an OAuth token that may write tickets; the ticket fields
    of `ticket_fields` (Admin Center, Objects and rules, Tickets, Fields), by their ids.

    **What is matched:** the key with the id of a ticket, such as `id` of the table that tickets are read into. Tickets
    that are not there, or are deleted, are left alone (`no_match`); none is made, and no comment is written.

    **What is sent:** each property as the ticket field of its id: dates, numbers, true or false, and of a drop-down the
    tag. A withdrawn value is sent as null. What changes a ticket changes its `updated_at` too, so that it is read again
    by a source of tickets; only a value that changed is sent.

    **What can be refused:** a value that does not fit. A field that the account does not have would be ignored without
    a word: the answer has what the ticket holds then, and a row whose fields are not among it is refused. A ticket that
    is closed takes no change. **Never run against Zendesk itself.**

    ```yaml
    kind: zendesk_tickets
    subdomain: acme
    email: admin@acme.example
    api_token: ${ZENDESK_API_TOKEN}
    source: models/session_links   # a table whose key is the id of a ticket
    ticket_fields: {session_link: 360001234567}
    properties: {session_link: session_link}
    ```
    """

    kind: Literal["zendesk_tickets"] = "zendesk_tickets"
    source: str = Field(description="A warehouse table or a model with one row per ticket")
    properties: dict[str, str] = PROPERTIES
    ticket_fields: dict[str, int] = Field(min_length=1, description="Property to the id of its ticket field")

    @model_validator(mode="after")
    def _every_property_has_a_field(self) -> ZendeskTicketsSync:
        if missing := sorted(self.properties.keys() - self.ticket_fields.keys()):
            raise ValueError(f"ticket_fields: the id of the ticket field for {missing[0]!r} is not there")
        if unused := sorted(self.ticket_fields.keys() - self.properties.keys()):
            raise ValueError(f"ticket_fields: {unused[0]!r} is none of the properties")
        return self


class ZendeskTicketsConnector(PeopleConnector[ZendeskTicketsSync]):
    """Rows to tickets."""

    settings_model = ZendeskTicketsSync

    def destination(self, table: str = "") -> ZendeskTickets:
        return ZendeskTickets(self.settings)

    def preflight(self) -> Iterator[Permission]:
        """Try the login, and whether each ticket field exists and takes what its column has."""
        kinds, page = dict[int, str](), 1
        with self.api() as api:
            while page:
                url = f"{self.settings.url}/api/v2/ticket_fields.json?per_page={_PAGE}&page={page}"
                request = Request(url, method="GET", reads=frozenset({_NOT_FOUND, _FORBIDDEN}))
                answer = api.call(request)
                if not answer.accepted:
                    yield untried("ticket fields", "the token may not list them")
                    return
                fields = [one for one in answer.json["ticket_fields"] if one.get("active", True)]
                kinds |= {int(one["id"]): str(one.get("type", "")) for one in fields}
                page = page + 1 if answer.json.get("next_page") else 0
        yield Permission("login", passed=True, detail="ticket fields can be read")
        ids = self.settings.ticket_fields
        existing = {name: kinds[id] for name, id in ids.items() if id in kinds}
        yield from _FIELDS.tried(sorted(ids), existing, self.column_types())


class ZendeskTickets(ZendeskApi, RowByRowDestination):
    """Updates tickets."""

    kind = "zendesk_tickets"
    mode = Mode.UPSERT

    def __init__(self, settings: ZendeskTicketsSync) -> None:
        self._ids = settings.ticket_fields
        super().__init__(settings, batch_rows=_AT_ONCE)

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {"key is no id of a ticket": ~pl.col("key").str.contains(r"^[0-9]{1,18}$")}

    def element(self, row: Row) -> dict[str, Any]:
        return {"ticket": {"custom_fields": [{"id": self._ids[n], "value": value} for n, value in row.values.items()]}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        url = f"{self.url}/api/v2/tickets/{rows[0].key}.json"
        return Request(url, elements[0], "PUT", reads=frozenset({_NOT_FOUND}))

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A field that the account does not have is none of the ticket that comes back."""
        if response.status == _NOT_FOUND:
            return Verdict({0: RowVerdict("no_match", "Zendesk has no ticket with this id")})
        if not response.accepted:
            return Verdict({0: RowVerdict("rejected", reason_of(response))})
        ticket = response.fields.get("ticket") or {}
        held = {one.get("id") for one in ticket.get("custom_fields") or ()}
        missing = [name for name in rows[0].filled if self._ids[name] not in held]
        if missing:
            reason = f"Zendesk has no ticket field {self._ids[missing[0]]} ({missing[0]}): make it there"
            return Verdict({0: RowVerdict("rejected", reason)})
        return Verdict()
