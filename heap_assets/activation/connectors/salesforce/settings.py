"""The settings of a sync to Salesforce: which objects, which records, which fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import RecordSettings
from heap_assets.activation.connectors.salesforce.account import ToSalesforce
from heap_assets.activation.connectors.salesforce.objects import NAME, REQUIRED, Choice, Objects
from heap_assets.config import PROPERTIES, Match, MatchSettings, UpsertRules


class SalesforceSettings(RecordSettings, MatchSettings, ToSalesforce):
    """How rows become records of which object, and which records are theirs."""

    properties: dict[str, str] = PROPERTIES
    object: str | None = Field(default=None, description="API name of the object; or objects")
    objects: dict[str, dict[str, list[Any]]] = Field(
        default={}, description="Object to trait or column and its values: the first object that fits a row is its own"
    )
    external_id: str | None = Field(default=None, description="External ID field that holds the key, unique")
    lookup_field: str | None = Field(default=None, description="Another text field that holds it; for update_only")
    case_sensitive: bool = Field(default=False, description="The key's field tells upper from lower case")
    look_up_by: Literal["composite", "query"] = Field(
        default="composite", description="query: by calls whose address holds keys, which proxies log"
    )
    bulk_from_rows: int = Field(
        default=2_000, ge=1, description="From so many rows a run on, they are sent as jobs of the Bulk API 2.0"
    )
    poll_seconds: float = Field(
        default=5.0, gt=0, description="Seconds before the first look at a job; later ones more"
    )
    converted_fields: list[str] = Field(
        default=[], description="Fields of a lead that its contact has, too: they go there once it is converted"
    )

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that can be kept: without an external id two calls may make two records."""
        return ("update_only",) if self.external_id is None else self.matches

    @property
    def key_field(self) -> str:
        """The field that holds the key."""
        return self.external_id or self.lookup_field or ""

    @property
    def choice(self) -> Choice:
        """The objects in the order in which they are tried, and what a row of each has."""
        return self.objects or {self.object or "": {}}

    @property
    def records(self) -> Objects:
        """The objects and their mappings."""
        return Objects(self.choice, self.properties)

    @property
    def upsert_rules(self) -> UpsertRules:
        """How values are kept up to date; of several objects each has its own names."""
        rules, records = super().upsert_rules, self.records
        if not records.are_several:
            return rules
        nulls = {
            name: how
            for name in records.mapped()
            if (how := self.nulls.get(name) or self.nulls.get(name.rpartition(".")[2]))
        }
        return rules._replace(nulls=nulls)

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        yield from ((f"objects.{o}.{column}", column) for o, when in self.objects.items() for column in when)

    @model_validator(mode="after")
    def _object_and_key_are_named(self) -> SalesforceSettings:
        if (self.object is None) == (not self.objects):
            raise ValueError("object: give either object or objects")
        if (self.external_id is None) == (self.lookup_field is None):
            raise ValueError("external_id: give either external_id or lookup_field")
        if not NAME.fullmatch(self.key_field):
            raise ValueError(f"external_id: {self.key_field!r} is no API name of a field")
        if self.read_back is not None and self.records.are_several:
            raise ValueError("read_back: it is of one object; make a sync of each")
        for mistake in self.records.mistakes():
            raise ValueError(mistake)
        return self

    @model_validator(mode="after")
    def _what_is_made_is_whole(self) -> SalesforceSettings:
        for name in self.choice if self.match_policy != "update_only" else ():
            own = {*self.records.fields(name), self.key_field}
            if missing := [field for field in REQUIRED.get(name, ()) if field not in own]:
                raise ValueError(f"match: no {name} is made without {missing[0]}: map it, or say update_only")
        mapped = {field for name in self.choice for field in self.records.fields(name)}
        if unknown := [field for field in self.converted_fields if field not in mapped]:
            raise ValueError(f"converted_fields: {unknown[0]!r} is no property of this sync")
        return self
