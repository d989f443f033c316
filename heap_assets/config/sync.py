"""The `sync:` section: what is sent where, and how carefully. One model per kind: another kind's key is a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, SecretStr, Tag, field_validator, model_validator

from heap_assets.config.base import Cron, Day, Section
from heap_assets.config.heap import Region
from heap_assets.yaml_core import core

Property = Field(min_length=1, description="Destination property to trait or column; nothing else is ever sent")


class SyncGuard(Section):
    """A run that would change more than this asks for confirmation first."""

    max_removed: float = Field(default=0.05, ge=0, le=1, description="Share of keys removed or withdrawn")
    max_changed: float = Field(default=0.20, ge=0, le=1, description="Share of keys changed (and 3x the usual)")
    max_same_value: float = Field(default=0.20, ge=0, le=1, description="Share of keys that newly take one same value")


class BaseSync(Section):
    """What every sync has; its name is its asset's name below sync/, and its kind unless that is given."""

    kind: str
    source: str
    description: str = ""
    properties: dict[str, str] = {}
    schedule: Cron | None = Field(default="0 * * * *", description="Cron in UTC; null: only by hand")
    requests_in_flight: int = Field(default=4, ge=1, le=64)
    limit_share: float = Field(default=0.9, gt=0, le=1, description="Share of the documented rate limit to use")
    max_rejected: float | None = Field(
        default=None, ge=0, le=1, description="Share of rejected rows above which a check fails; checks.sync_rejected"
    )
    guard: SyncGuard = SyncGuard()

    @property
    def vendor(self) -> str:
        """The destination as people call it: `heap`, `segment`, `webhook`, `custom`."""
        return self.kind.partition("_")[0]

    @property
    def scheduled(self) -> bool:
        """Whether it runs by itself."""
        return self.schedule is not None


class Upsert(BaseSync):
    """A sync that keeps each key of the destination as the newest row says."""

    mode: Literal["upsert"] = "upsert"
    nulls: dict[str, Literal["skip", "send"]] = Field(default={}, description="Per property; skip unless said")
    on_withdrawn: Literal["clear", "keep"] = Field(
        default="clear", description="What happens to a value that is no longer true"
    )
    changed_fields_only: bool = Field(default=False, description="Else all mapped fields of a changed key are sent")


class EventSource(Section):
    """How rows of a warehouse table become events."""

    event_name: str | None = Field(default=None, description="A constant; or event_name_column")
    event_name_column: str | None = None
    event_key: str | None = Field(default=None, description="The table's own key; else the hash of all its columns")
    timestamp_column: str | None = Field(default=None, description="When it happened; the table's created_at if any")
    since: Literal["beginning"] | Day | None = Field(
        default=None, description="Events before it stay; the day the sync was first run unless given"
    )


class HeapUserProperties(Upsert):
    """User properties of Heap users, by identity. Only identities that Heap knows are written to."""

    kind: Literal["heap_user_properties"] = "heap_user_properties"
    source: str = Field(default="profiles", description="profiles, or a warehouse table with a column of identities")
    key: str | None = Field(default=None, description="Column of identities, for a warehouse table")
    properties: dict[str, str] = Property
    identities: Literal["all", "one", "none"] = Field(
        default="all", description="What to send to when a profile has several Heap identities"
    )
    cleared_value: str = Field(default="(none)", description="What a withdrawn value is overwritten with")

    @model_validator(mode="after")
    def _table_has_key(self) -> HeapUserProperties:
        if self.source != "profiles" and self.key is None:
            raise ValueError(f"key: which column of {self.source} holds the Heap identity?")
        return self


class HeapAccountProperties(Upsert):
    """Account properties, by account id."""

    kind: Literal["heap_account_properties"] = "heap_account_properties"
    source: str = Field(description="A warehouse table with one row per account")
    key: str | None = Field(default=None, description="Column of account ids; the table's key unless given")
    properties: dict[str, str] = Property
    account_id_configured: bool = Field(default=False, description="Account ID is set in Heap: Account > Manage")
    cleared_value: str = "(none)"


class HeapEvents(EventSource, BaseSync):
    """Rows of a warehouse table as events, each once, to the identity its person has then."""

    kind: Literal["heap_events"] = "heap_events"
    mode: Literal["insert"] = "insert"
    source: str = Field(description="A warehouse table whose identifiers are mapped")
    identities: Literal["one", "none"] = Field(
        default="one", description="A person on several identities: the one Heap changed last, or none"
    )
    hold_days: int = Field(default=30, ge=0, description="Days an event waits for its person to appear in Heap")

    @model_validator(mode="after")
    def _is_named(self) -> HeapEvents:
        if (self.event_name is None) == (self.event_name_column is None):
            raise ValueError("either event_name (a constant) or event_name_column (a column that holds it)")
        return self


class HeapIdentify(BaseSync):
    """Joins anonymous users to an identity, for ever: off unless `enabled: true`."""

    kind: Literal["heap_identify"] = "heap_identify"
    mode: Literal["insert"] = "insert"
    source: Literal["profiles"] = "profiles"
    properties: dict[str, str] = Field(default={}, max_length=0, description="Identify takes none")
    enabled: bool = Field(default=False, description="Identify cannot be undone at Heap")
    stands_days: int = Field(default=14, ge=14, description="How long a join must have stood; 14 at least")

    @property
    def scheduled(self) -> bool:
        """Whether it runs by itself: not before it is switched on."""
        return self.enabled and self.schedule is not None


class _ToSegment(BaseSync):
    write_key: SecretStr = Field(description="Segment's write key, as ${SEGMENT_WRITE_KEY}")
    region: Region = Field(default=Region.US, description="An EU workspace loses what is posted to the US host")
    url: str | None = Field(default=None, description="Base URL instead of Segment's own")


class SegmentIdentify(Upsert, _ToSegment):
    """Traits of profiles as Identify."""

    kind: Literal["segment_identify"] = "segment_identify"
    source: Literal["profiles"] = "profiles"
    user_id: str = Field(default="heap_identity", description="Identifier type that is Segment's userId")
    properties: dict[str, str] = Property
    identities: Literal["all", "one", "none"] = Field(default="all", description="A profile with several userIds")


class SegmentTrack(_ToSegment):
    """Heap events of the day as Track; never those we sent ourselves. One ledger per table."""

    kind: Literal["segment_track"] = "segment_track"
    mode: Literal["insert"] = "insert"
    source: Literal["heap"] = "heap"
    tables: list[str] = Field(default=["*"], description="Patterns of Heap event tables; `!pattern` leaves out")
    columns: list[str] = Field(
        default=[],
        description="Patterns of columns forwarded under their own names; `!pattern` leaves out, personal ones are",
    )
    event_names: dict[str, str] = Field(default={}, description="Table to event name; the catalogue's unless given")
    user_id: str = Field(default="heap_identity", description="Identifier type that is Segment's userId")
    tracking_plan: Path | None = Field(default=None, description="JSON file: which events and properties may leave")
    since: Literal["beginning"] | Day | None = Field(
        default=None, description="Events before it stay; the day the sync was first run unless given"
    )


class SegmentGroup(Upsert, _ToSegment):
    """Accounts as Group."""

    kind: Literal["segment_group"] = "segment_group"
    source: str = Field(description="A warehouse table with one row per account")
    key: str | None = Field(default=None, description="Column of group ids; the table's key unless given")
    user_id: str = Field(default="heap_identity", description="Identifier type that is Segment's userId")
    member_trait: str | None = Field(default=None, description="Trait of profiles that names their account")
    member_column: str | None = Field(default=None, description="Or the source's column with a member's userId")
    properties: dict[str, str] = Property

    @model_validator(mode="after")
    def _names_a_member(self) -> SegmentGroup:
        if (self.member_trait is None) == (self.member_column is None):
            raise ValueError("either member_trait or member_column: Segment wants a member's userId with every group")
        return self


class SegmentReidentify(_ToSegment):
    """One Identify per user whose history changed (a migration), with both ids, once."""

    kind: Literal["segment_reidentify"] = "segment_reidentify"
    mode: Literal["insert"] = "insert"
    source: Literal["heap"] = "heap"
    properties: dict[str, str] = Field(default={}, max_length=0)


class _Keyed(EventSource, BaseSync):
    source: str = Field(default="profiles", description="profiles, or a warehouse table")
    key: str | None = Field(
        default=None,
        description="Identifier type (profiles; heap_identity unless given) or column (a table; its key unless given)",
    )
    identities: Literal["all", "one", "none"] = "all"
    nulls: dict[str, Literal["skip", "send"]] = {}
    on_withdrawn: Literal["clear", "keep"] = "clear"
    changed_fields_only: bool = False


class Webhook(_Keyed):
    """Signed JSON batches to any address."""

    kind: Literal["webhook"] = "webhook"
    mode: Literal["upsert", "insert"] = "upsert"
    url: SecretStr = Field(description="http:// or https:// address; it may hold a secret and is never shown")
    secret: SecretStr | None = Field(default=None, description="Signs the body")
    headers: dict[str, SecretStr] = Field(default={}, description="Such as an API key")
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    batch_rows: int = Field(default=100, ge=1)
    rows_per_minute: int | None = Field(default=None, ge=1, description="Rate limit of the receiver")

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("an address that begins with http:// or https://")
        return value

    @model_validator(mode="after")
    def _events_come_from_tables(self) -> Webhook:
        if self.mode == "insert" and self.source == "profiles":
            raise ValueError("mode: insert sends rows of a warehouse table; profiles are upserted")
        if self.mode == "insert" and (self.event_name is None) == (self.event_name_column is None):
            raise ValueError("mode: insert needs either event_name or event_name_column")
        return self


class Custom(_Keyed):
    """A destination of an installed package (entry point group `heap_assets.activation`)."""

    kind: Literal["custom"] = "custom"
    destination: str = Field(description="Name of the entry point")
    options: dict[str, Any] = Field(default={}, description="Given to its class", repr=False)

    @field_validator("options", mode="before")
    @classmethod
    def _are_typed(cls, value: Any) -> Any:
        return core(value)


KINDS: dict[str, type[BaseSync]] = {
    str(model.model_fields["kind"].default): model
    for model in (
        *(HeapUserProperties, HeapAccountProperties, HeapEvents, HeapIdentify),
        *(SegmentIdentify, SegmentTrack, SegmentGroup, SegmentReidentify, Webhook, Custom),
    )
}


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Sync = Annotated[
    Annotated[HeapUserProperties, Tag("heap_user_properties")]
    | Annotated[HeapAccountProperties, Tag("heap_account_properties")]
    | Annotated[HeapEvents, Tag("heap_events")]
    | Annotated[HeapIdentify, Tag("heap_identify")]
    | Annotated[SegmentIdentify, Tag("segment_identify")]
    | Annotated[SegmentTrack, Tag("segment_track")]
    | Annotated[SegmentGroup, Tag("segment_group")]
    | Annotated[SegmentReidentify, Tag("segment_reidentify")]
    | Annotated[Webhook, Tag("webhook")]
    | Annotated[Custom, Tag("custom")],
    Discriminator(
        _kind,
        custom_error_type="sync_kind",
        custom_error_message=f"a kind (the sync's name unless given), one of {', '.join(KINDS)}",
    ),
]


def _with_kinds(value: Any) -> Any:
    """A sync that says no kind is of the kind that it is called."""
    if not isinstance(value, dict):
        return value
    return {
        name: {**sync, "kind": sync.get("kind") or name} if isinstance(sync, dict) else sync
        for name, sync in value.items()
    }


Syncs = Annotated[dict[str, Sync], BeforeValidator(_with_kinds)]
