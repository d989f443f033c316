"""Traits of profiles as Segment's Identify (heap.md 5)."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field

from heap_assets.activation.connectors.base import Connector
from heap_assets.activation.connectors.rows import Identities, profiles_by_identifier
from heap_assets.activation.connectors.segment import SegmentDeletion, SegmentDestination, SegmentSource, ToSegmentUser
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import PROPERTIES, UpsertSettings
from heap_assets.tables import PROFILES, USERS


class SegmentIdentifySync(ToSegmentUser, UpsertSettings):
    """Traits of profiles as Identify."""

    kind: Literal["segment_identify"] = "segment_identify"
    mode: Literal["upsert"] = "upsert"
    source: Literal["profiles"] = "profiles"
    properties: dict[str, str] = PROPERTIES
    identities: Identities = Field(default="all", description="A profile with several userIds")


class SegmentIdentifyConnector(Connector[SegmentIdentifySync]):
    """Profiles by the identifier that is Segment's userId."""

    settings_model = SegmentIdentifySync
    deletes = SegmentDeletion

    def destination(self, table: str = "") -> SegmentIdentify:
        return SegmentIdentify(SegmentSource.of(self.settings))

    def inputs(self) -> list[str]:
        return [PROFILES, USERS]

    def rows(self, day: date, table: str = "") -> Addressed:
        return profiles_by_identifier(self.deployment, self.settings.user_id, self.settings.identities, day)


class SegmentIdentify(SegmentDestination):
    """Upserts traits as Identify, keyed by userId."""

    kind = "segment_identify"
    mode = Mode.UPSERT
    optional = ("anonymous_id",)
    key_may_be_null = False

    def element(self, row: Row) -> dict[str, Any]:
        message = self._addressed("identify", row, self._upsert_id(row))
        return {**message, "traits": dict(row.values), "integrations": {"Heap": False}}
