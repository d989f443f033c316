"""The `sync:` section: what is sent where, and how carefully."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.settings.base import Section

SyncKind = Literal[
    "heap_user_properties",
    "heap_account_properties",
    "heap_events",
    "heap_identify",
    "segment_track",
    "segment_identify",
    "segment_group",
    "webhook",
]


class SyncGuard(Section):
    """A run that would change more than this asks for confirmation first."""

    max_removed: float = Field(default=0.05, ge=0, le=1, description="Share of keys removed or withdrawn")
    max_changed: float = Field(default=0.20, ge=0, le=1, description="Share of keys changed (and 3x the usual)")
    max_same_value: float = Field(default=0.20, ge=0, le=1, description="Share of keys that newly take one same value")


class Sync(Section):
    """One sync; its name is its asset's name below sync/."""

    kind: SyncKind | None = Field(default=None, description="The sync's name unless given")
    mode: Literal["upsert", "insert"] | None = None
    source: str = Field(default="profiles", description="profiles, or a warehouse table for events and accounts")
    key: str | None = Field(
        default=None, description="Column that is the destination's key; profiles use heap_identity"
    )
    properties: dict[str, str] = Field(default={}, description="Destination property to trait or column")
    identities: Literal["all", "one", "none"] = Field(
        default="all", description="What to send to when a profile has several Heap identities"
    )
    on_withdrawn: Literal["clear", "keep"] = "clear"
    cleared_value: str = "(none)"
    nulls: dict[str, Literal["skip", "send"]] = Field(default={}, description="Per property; skip unless said")
    changed_fields_only: bool = False
    schedule: str | None = Field(default="0 * * * *", description="Cron in UTC; null: only by hand")
    event_name: str | None = None
    event_name_column: str | None = None
    event_key: str | None = None
    timestamp_column: str | None = None
    since: str | None = None
    hold_days: int = Field(default=30, ge=0)
    account_id_configured: bool = Field(default=False, description="Account ID is set in Heap: Account > Manage")
    tables: list[str] = Field(default=["*"], description="Heap event tables that segment_track forwards")
    write_key: SecretStr | None = Field(default=None, description="Segment's write key, as ${SEGMENT_WRITE_KEY}")
    url: str | None = Field(default=None, description="Base URL instead of the vendor's own; a webhook's address")
    secret: SecretStr | None = Field(default=None, description="Signs a webhook's body")
    requests_in_flight: int = Field(default=4, ge=1, le=64)
    limit_share: float = Field(default=0.9, gt=0, le=1, description="Share of the documented rate limit to use")
    max_rejected: float = Field(
        default=0.01, ge=0, le=1, description="Share of rejected rows above which a check fails"
    )
    guard: SyncGuard = SyncGuard()
