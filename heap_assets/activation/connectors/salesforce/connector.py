"""Rows of the lake to records of Salesforce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Literal

import polars as pl

from heap_assets.activation.connectors.base import Requirement, Rows
from heap_assets.activation.connectors.inputs import PeopleConnector
from heap_assets.activation.connectors.salesforce.preflight import tried
from heap_assets.activation.connectors.salesforce.read import SalesforceSource
from heap_assets.activation.connectors.salesforce.records import SalesforceRecords
from heap_assets.activation.connectors.salesforce.settings import SalesforceSettings
from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.sources.warehouse import Permission
from heap_assets.values import PRIVATE, apart

_OBJECT = f"{PRIVATE}object"


class SalesforceSync(SalesforceSettings):
    """Leads, contacts, opportunities and other records of Salesforce.

    **To create there:** an external client app with a "run as" user for the client credentials flow (or a certificate
    for JWT bearer) and the scope `api`; a permission set that lets this user read and edit the objects and each mapped
    field; on each object a text field with *External ID* and *Unique*, such as `Heap_Id__c`, that holds the key.

    **What is matched:** the key with `external_id`, or with `lookup_field`, such as `Email` or `Id`. Keys without a
    record are left alone (`no_match`) unless `match: upsert` or `create_only` is set; a key that several records have
    is `invalid`. Records are looked up each time, since people merge and convert them there.

    **Several objects:** `objects` names them with what a row of each has; the first that fits is chosen. Properties are
    of all of them, or of one: `Lead.Lead_Score__c`. A row that fits none is held. When a row becomes a record of
    another object, its former record stays as it is.

    ```yaml
    objects:
      Contact: {lifecycle_stage: [customer, champion]}
      Lead: {}
    ```

    **Converted leads** cannot be written: those of `converted_fields` go to the contact that the lead became; without
    them it is `no_match`.

    **What can be refused:** single rows whose value does not fit its field, that a rule of the org refuses, or that
    look like duplicates to it. A value that is gone empties its field, one that never was leaves it alone; fields that
    Salesforce requires are never emptied. Values above 32,000 characters are `invalid`.

    **Calls:** 200 rows a call, or jobs of the Bulk API 2.0 from `bulk_from_rows` rows a run on. A run ends when the
    org, all its apps together, has used `most_api_usage` of its calls. **Never run against Salesforce itself.**
    """

    kind: Literal["salesforce"] = "salesforce"


class SalesforceConnector(PeopleConnector[SalesforceSync]):
    """People, accounts or deals to records."""

    settings_model = SalesforceSync
    source_model = SalesforceSource

    def destination(self, table: str = "") -> SalesforceRecords:
        return SalesforceRecords(self.settings)

    def rows(self, day: date, table: str = "") -> Rows:
        rows, records = super().rows(day, table), self.settings.records
        if not records.are_several:
            return rows
        plain = rows if isinstance(rows, Addressed) else Addressed(rows, no_addresses(), no_addresses())
        frame = plain.rows.with_columns(records.chosen(self._named).alias(_OBJECT))
        frame = frame.with_columns(records.values(pl.col(_OBJECT), self._named))
        has_profile = "profile_id" in frame.collect_schema()
        none = frame.filter(pl.col(_OBJECT).is_null()).select(
            profile_id=pl.col("profile_id") if has_profile else pl.lit(None, pl.String),
            key=pl.col("key").cast(pl.String),
            reason=pl.lit("it fits none of the objects"),
        )
        held = pl.concat([plain.held, none])
        return replace(plain, rows=frame.filter(pl.col(_OBJECT).is_not_null()).drop(_OBJECT), held=held)

    def columns_sent(self, table: str, day: date | None) -> Mapping[str, str]:
        mapped = self.settings.records.mapped()
        return mapped if self.settings.records.are_several else {n: self._named[c] for n, c in mapped.items()}

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        yield from super().requirements(day)
        conditions = (column for conditions in self.settings.objects.values() for column in conditions)
        yield Requirement(self.source_asset, str(day), frozenset(conditions))

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from tried(api, self.destination().base, self.settings, self.source_types())

    def read_back(self, key: str) -> Mapping[str, Any]:
        destination, records = self.destination(), self.settings.records
        values: dict[str, Any] = {}
        with self.api() as api:
            for object in self.settings.choice:
                for record in api.through(destination.records_of(object, key)):
                    prefix = f"{object}." if records.are_several else ""
                    values |= {prefix + field: record.get(field) for field in records.fields(object)}
        return values

    @property
    def _named(self) -> Mapping[str, str]:
        """Column of the settings to that of the rows."""
        columns = {column for _, column in self.settings.named_columns()}
        of_table = self.settings.source in self.warehouse_tables
        return {column: apart(column, self.own_columns) if of_table else column for column in columns}
