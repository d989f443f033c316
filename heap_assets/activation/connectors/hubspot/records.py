"""Contacts and companies, up to 100 a call; each row of an answer is told by the number that it was sent with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.hubspot.account import HubSpotDeletion, HubSpotDestination, ToHubSpot, as_text
from heap_assets.activation.connectors.hubspot.preflight import tried_records
from heap_assets.activation.connectors.hubspot.read import HubSpotSource
from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_OBJECTS = {"hubspot_contacts": "contacts", "hubspot_companies": "companies"}


class HubSpotRecordsSync(RecordSettings, MatchSettings, ToHubSpot):
    """What contacts and companies have in common."""

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert")

    properties: dict[str, str] = PROPERTIES
    key_property: str = Field(description="Unique property that holds the key: one of your own, made in HubSpot before")
    path: str = Field(default="", description="Path of the objects, for another version of the API")

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that HubSpot can keep: it has no reliable call that only updates by e-mail."""
        return ("upsert",) if self.key_property == "email" else self.matches

    @property
    def contact_property(self) -> str:
        """The property of contacts that holds the key."""
        return self.key_property

    @property
    def objects_path(self) -> str:
        """Path of the objects; the version is part of it."""
        return self.path.rstrip("/") or f"/crm/v3/objects/{_OBJECTS[self.kind]}"


class HubSpotContactsSync(HubSpotRecordsSync):
    """Contacts of HubSpot, by a unique property.

    **To create there:** a private app with the scope `crm.objects.contacts.write`; the property of `key_property`, for
    which "unique values" is chosen; the properties that are mapped.

    **What is matched:** the key with `key_property`. Keys without a contact are left alone (`no_match`) unless
    `match: upsert` is set. By `email` there is only `match: upsert`, which has to be said; secondary addresses match,
    too.

    **What can be refused:** rows with a property that HubSpot does not have or does not let anybody write, or with a
    value that does not fit its type. A withdrawn value is emptied. `lifecyclestage` never moves backwards: HubSpot says
    yes and keeps the old one.

    **Never run against HubSpot itself,** and not said in its documents: whether an upsert by `email` empties properties
    that it does not name; whether texts have a longest length.
    """

    kind: Literal["hubspot_contacts"] = "hubspot_contacts"


class HubSpotCompaniesSync(HubSpotRecordsSync):
    """Companies of HubSpot, by a unique property.

    **To create there:** a private app with the scope `crm.objects.companies.write`; a property with "unique values",
    because `domain` is not unique; the properties that are mapped. What is matched and what can be refused is as with
    `hubspot_contacts`. Never run against HubSpot itself.
    """

    kind: Literal["hubspot_companies"] = "hubspot_companies"
    source: str = Field(description="A warehouse table with one row per company")


S = TypeVar("S", bound=HubSpotRecordsSync)


class HubSpotRecordsConnector(PeopleConnector[S], ABC, Generic[S]):
    """What contacts and companies have in common."""

    untried = "whether the private app may write: HubSpot tells no scopes of a token. It needs crm.schemas.….read"

    @abstractmethod
    def destination(self, table: str = "") -> HubSpotRecords: ...

    def preflight(self) -> Iterator[Permission]:
        sync = self.settings
        of, names = _OBJECTS[sync.kind], tuple(sync.properties)
        with self.api() as api:
            yield from tried_records(api, self.destination(), of, sync.key_property, self.column_types(), names)


class HubSpotContactsConnector(HubSpotRecordsConnector[HubSpotContactsSync]):
    """People to contacts."""

    settings_model = HubSpotContactsSync
    deletes = HubSpotDeletion
    source_model = HubSpotSource

    def destination(self, table: str = "") -> HubSpotRecords:
        return HubSpotRecords(self.settings)


class HubSpotCompaniesConnector(HubSpotRecordsConnector[HubSpotCompaniesSync]):
    """Accounts to companies."""

    settings_model = HubSpotCompaniesSync

    def destination(self, table: str = "") -> HubSpotRecords:
        return HubSpotRecords(self.settings)


class HubSpotRecords(HubSpotDestination):
    """Updates or upserts objects by a unique property."""

    mode = Mode.UPSERT

    def __init__(self, settings: HubSpotRecordsSync) -> None:
        super().__init__(settings, forbidden_names=frozenset({settings.key_property.lower(), "hs_object_id"}))
        self.kind, self._key, self._creates = settings.kind, settings.key_property, settings.match_policy == "upsert"
        self._path = f"{settings.objects_path}/batch/{'upsert' if self._creates else 'update'}"

    @property
    def target(self) -> str:
        return f"{super().target}:{self._key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        if self._key != "email":
            return {}
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        return {"another key is the same e-mail address but for upper case": same}

    def element(self, row: Row) -> dict[str, Any]:
        key = row.key.lower() if self._key == "email" else row.key
        properties = {name: as_text(value) for name, value in row.values.items()}
        return {"idProperty": self._key, "id": key, "properties": properties}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        # what turns on verdicts on single rows, and what they are told by
        traced = [element[:-1] + b',"objectWriteTraceId":"%d"}' % i for i, element in enumerate(elements)]
        return self.post(self._path, traced)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        document = response.fields
        if not response.accepted:
            return Verdict(rest="unknown", reason=reason_of(response))
        verdicts: dict[int, RowVerdict] = {}
        results, errors = document.get("results") or [], document.get("errors") or []
        for result in results:
            for index in _traces(result.get("objectWriteTraceId"), len(rows)):
                verdicts[index] = RowVerdict("acknowledged", remote_id=str(result.get("id") or "") or None)
        for error in errors:
            for index in _traces((error.get("context") or {}).get("objectWriteTraceId"), len(rows)):
                verdicts[index] = self._refused(error)
        if not errors and len(results) == len(rows):
            return Verdict(verdicts)
        # some rows are in no list, or nothing is: HubSpot says 200 and does nothing
        return Verdict(verdicts, "unknown", "HubSpot answered without a word about this record")

    def _refused(self, error: Mapping[str, Any]) -> RowVerdict:
        category, message = error.get("category"), error.get("message")
        if category == "OBJECT_NOT_FOUND" and not self._creates:
            return RowVerdict("no_match", "HubSpot has no record with this key")
        return RowVerdict("rejected", f"{category}: {message}")


def _traces(traces: Any, rows: int) -> list[int]:
    listed = traces if isinstance(traces, list) else [traces]
    return [int(one) for one in listed if str(one).isdecimal() and int(one) < rows]
