"""Leads, up to 300 a call; each row of an answer is told by its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.marketo.instance import (
    NO_LEAD,
    MarketoDestination,
    ToMarketo,
    reason_of_row,
    results_of,
    tried,
)
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_SEVERAL = "1007"


class MarketoLeadsSync(RecordSettings, MatchSettings, ToMarketo):
    """Leads of Marketo, by e-mail address or another field.

    **To create there:** a custom service in LaunchPoint whose API user may read and write people; the fields that are
    mapped, by their REST API names.

    **What is matched:** the key with `lookup_field`, whatever its case. Keys without a lead are left alone (`no_match`)
    unless `match: upsert` is set; of a key that several leads have none is written.

    **What can be refused:** single rows with an unknown field, a company field, a value that does not fit, or a lead in
    another partition. A withdrawn value is sent as null. Two syncs that upsert the same keys at the same time make
    duplicates. **Never run against Marketo itself.**
    """

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert")

    kind: Literal["marketo_leads"] = "marketo_leads"
    properties: dict[str, str] = PROPERTIES
    partition: str | None = Field(
        default=None, description="Partition that new leads are made in; the default one else"
    )

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that Marketo can keep: it makes the ids itself."""
        return ("update_only",) if self.lookup_field == "id" else self.matches

    @model_validator(mode="after")
    def _partition_is_of_new_leads(self) -> MarketoLeadsSync:
        if self.match != "upsert" and self.partition is not None:
            raise ValueError("partition: only new leads are given one, which match: upsert makes")
        return self


class MarketoLeadsConnector(PeopleConnector[MarketoLeadsSync]):
    """People to leads."""

    settings_model = MarketoLeadsSync
    untried = "whether the API user may write people, and whether the field of the key is unique: Marketo has no call"

    def destination(self, table: str = "") -> MarketoLeads:
        return MarketoLeads(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from tried(api, self.destination(), self.settings.properties, self.column_types())


class MarketoLeads(MarketoDestination):
    """Updates or upserts leads."""

    kind = "marketo_leads"
    mode = Mode.UPSERT

    def __init__(self, settings: MarketoLeadsSync) -> None:
        super().__init__(settings)
        action = "createOrUpdate" if settings.match_policy == "upsert" else "updateOnly"
        partition = f',"partitionName":{orjson.dumps(settings.partition).decode()}' if settings.partition else ""
        self._head = (
            f'{{"action":"{action}","lookupField":{orjson.dumps(self.lookup).decode()}{partition},"input":['.encode()
        )

    def element(self, row: Row) -> dict[str, Any]:
        return {self.lookup: int(row.key) if self.lookup == "id" else row.key, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/rest/v1/leads.json", self._head + b",".join(elements) + b"]}")

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        results = results_of(response)
        if results is None:
            return Verdict(rest="not_applied", reason=reason_of(response))
        if len(results) != len(rows):
            return Verdict(rest="unknown", reason=f"Marketo told of {len(results)} of {len(rows)} leads")
        return Verdict({index: _lead(result) for index, result in enumerate(results)})


def _lead(result: Mapping[str, Any]) -> RowVerdict:
    code, reason = reason_of_row(result)
    if result.get("status") in ("created", "updated"):
        return RowVerdict("acknowledged", remote_id=str(result["id"]))
    if code == NO_LEAD:
        return RowVerdict("no_match", "Marketo has no lead with this key")
    return RowVerdict("invalid" if code == _SEVERAL else "rejected", reason)
