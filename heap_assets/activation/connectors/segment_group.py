"""Accounts as Segment's Group (heap.md 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.base import Connector, Requirement
from heap_assets.activation.connectors.rows import keyed_rows, profiles_by_identifier, suppressed_keys
from heap_assets.activation.connectors.segment import SegmentDestination, SegmentSource, ToSegmentUser
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import KEY_COLUMNS
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import PROPERTIES, KeyedSettings, UpsertSettings, named
from heap_assets.tables import PROFILES
from heap_assets.values import apart, key_text


class SegmentGroupSync(ToSegmentUser, KeyedSettings, UpsertSettings):
    """Accounts as Group."""

    kind: Literal["segment_group"] = "segment_group"
    mode: Literal["upsert"] = "upsert"
    source: str = Field(description="A warehouse table with one row per account")
    key: str | None = Field(default=None, description="Column of group ids; the table's key unless given")
    member_trait: str | None = Field(default=None, description="Trait of profiles that names their account")
    member_column: str | None = Field(default=None, description="Or the source's column with a member's userId")
    properties: dict[str, str] = PROPERTIES

    @model_validator(mode="after")
    def _names_a_member(self) -> SegmentGroupSync:
        if (self.member_trait is None) == (self.member_column is None):
            raise ValueError("either member_trait or member_column: Segment wants a member's userId with every group")
        return self

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        yield from named(member_column=self.member_column)


class SegmentGroupConnector(Connector[SegmentGroupSync]):
    """Rows of a table of accounts with one of their members; another member is no change."""

    settings_model = SegmentGroupSync
    own_columns = (*KEY_COLUMNS, "user_id")

    def destination(self, table: str = "") -> SegmentGroup:
        return SegmentGroup(SegmentSource.of(self.settings))

    def inputs(self) -> list[str]:
        return self.read_by_day()

    def read_by_day(self) -> list[str]:
        """Return the assets of which the very day is read: with the trait of a member, profiles too."""
        return [self.source_asset, PROFILES] if self.settings.member_trait else [self.source_asset]

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        yield from super().requirements(day)
        if trait := self.settings.member_trait:
            yield Requirement(PROFILES, str(day), frozenset({trait}))

    def rows(self, day: date, table: str = "") -> pl.LazyFrame:
        sync = self.settings
        rows = keyed_rows(self, sync.key, day)
        if sync.member_column is not None:
            name = apart(sync.member_column, self.own_columns)
            member = key_text(pl.col(name), rows.collect_schema()[name])
            suppressed = sorted(suppressed_keys(self.deployment, sync.user_id))
            return rows.with_columns(user_id=pl.when(~member.is_in(suppressed)).then(member))
        people = profiles_by_identifier(self.deployment, sync.user_id, "all", day).rows
        account = key_text(pl.col(str(sync.member_trait)), people.collect_schema()[str(sync.member_trait)])
        members = people.group_by(_account=account).agg(user_id=pl.col("key").min())
        return rows.join(members, left_on="key", right_on="_account", how="left")


class SegmentGroup(SegmentDestination):
    """Upserts account traits as Group: `key` is the group, `user_id` the member that Segment requires in every call."""

    kind = "segment_group"
    mode = Mode.UPSERT
    required = ("user_id",)
    key_may_be_null = False

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        if "user_id" not in rows.collect_schema():
            return {}
        return {"no member of the group is known": pl.col("user_id").is_null()}

    def element(self, row: Row) -> dict[str, Any]:
        message = {"type": "group", "messageId": self._upsert_id(row), "groupId": row.key}
        member = row.extra.get("user_id") or row.key
        return {**message, "userId": member, "traits": dict(row.values), "integrations": {"Heap": False}}
