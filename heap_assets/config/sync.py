"""The `sync:` section: what every sync has. What a kind has besides is in `activation/connectors/<kind>.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from heap_assets.config.base import Cron, Day, Section
from heap_assets.config.cadences import HOURLY
from heap_assets.config.heap import HeapSettings

Since = Literal["beginning"] | Day | None
"""Which events are sent: all, those from a day on, or those from the day on which the sync first ran."""


PROPERTIES: Any = Field(min_length=1, description="Destination property to trait or column; nothing else is ever sent")
"""The field `properties` of a kind that sends nothing without them."""


class SyncGuard(Section):
    """A run that would change more than this asks for confirmation first."""

    max_removed: float = Field(default=0.05, ge=0, le=1, description="Share of keys removed or withdrawn")
    max_changed: float = Field(default=0.20, ge=0, le=1, description="Share of keys changed (and 3x the usual)")
    max_same_value: float = Field(default=0.20, ge=0, le=1, description="Share of keys that newly take one same value")


class UpsertRules(NamedTuple):
    """How the values of a key are kept up to date; what a sync does that says nothing of it."""

    nulls: Mapping[str, Literal["skip", "send"]] = {}
    on_withdrawn: Literal["clear", "keep"] = "keep"
    changed_fields_only: bool = False


class SyncSettings(Section):
    """What every sync has; its name is its asset's name below sync/, and its kind unless that is given.

    Attributes
    ----------
    by_table
        It forwards Heap's event tables, each with a ledger and a gate of its own.
    by_heap_identity
        Its keys are Heap identities.
    writes_heap_users
        Its properties become columns of Heap's users, which the next dump brings back.
    first_population
        How long the destination may take over the rows that it is sent first.
    cadence
        How often such a destination is usually sent to, hourly at the least: a cron in UTC.
    in_every_plan, needs_full_api, is_custom
        What Heap's plan says of it: even the limited integrations have it; it takes full API access; it is a
        destination of one's own.
    """

    by_table: ClassVar[bool] = False
    by_heap_identity: ClassVar[bool] = False
    writes_heap_users: ClassVar[bool] = False
    first_population: ClassVar[timedelta] = timedelta()
    cadence: ClassVar[str] = HOURLY
    in_every_plan: ClassVar[bool] = False
    needs_full_api: ClassVar[bool] = False
    is_custom: ClassVar[bool] = False

    kind: str
    source: str = Field(description="A warehouse table, or what the kind reads by itself")
    description: str = Field(default="", description="Description of the asset")
    properties: dict[str, str] = Field(default={}, description="Destination property to trait or column")
    schedule: Literal["usual"] | Cron | None = Field(
        default="usual",
        description="Cron in UTC; usual: as often as such a destination is sent to by heap.plan; null: only by hand",
    )
    requests_in_flight: int = Field(default=4, ge=1, le=64, description="Requests that are made at once")
    limit_share: float = Field(default=0.9, gt=0, le=1, description="Share of the documented rate limit to use")
    max_rejected: float | None = Field(
        default=None, ge=0, le=1, description="Share of rejected rows above which a check fails; checks.sync_rejected"
    )
    guard: SyncGuard = Field(default=SyncGuard(), description="Changes above which a run asks for confirmation")
    live: bool = Field(
        default=False,
        description="Sent as messages come (docs/live.md): the profiles that they change, or they themselves as events",
    )
    consent: str | None = Field(
        default=None, description="Boolean trait or column; without true a row is not sent, and a member is removed"
    )
    purpose: str | None = Field(
        default=None,
        description="Purpose of privacy.consent, of a sync of profiles or events: without consent nothing is sent; of "
        "profiles what was sent is cleared, and a member removed, by the next run",
    )
    before_consent: Literal["leave", "send"] = Field(
        default="leave",
        description="Of events with a `purpose`: those from before their person consented are never sent, or are sent "
        "once there is consent",
    )
    erase: bool = Field(
        default=True, description="Have erased people deleted there, where the destination has calls for it"
    )

    @classmethod
    def kind_name(cls) -> str:
        """Return the kind that this is the model of."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def own_sources(cls) -> tuple[str, ...]:
        """Return what the kind itself reads, besides profiles and warehouse tables."""
        return get_args(cls.model_fields["source"].annotation)

    @property
    def consent_column(self) -> str | None:
        """The column without whose truth a row is not sent."""
        return f"consent_{self.purpose}" if self.purpose else self.consent

    @property
    def is_of_events(self) -> bool:
        """Whether what people did is sent, each event once."""
        return False

    @property
    def vendor(self) -> str:
        """The destination as people call it: `heap`, `segment`, `webhook`, `custom`."""
        return self.kind.partition("_")[0]

    @property
    def scheduled(self) -> bool:
        """Whether it runs by itself."""
        return self.schedule is not None

    @property
    def is_upsert(self) -> bool:
        """Whether the settings alone say that it keeps keys up to date; else its rows are sent once each."""
        return False

    @property
    def upsert_rules(self) -> UpsertRules:
        """How the values of a key are kept up to date."""
        return UpsertRules()

    @property
    def unmatched_for(self) -> timedelta:
        """How long an unchanged row is left alone that the destination cannot place."""
        return timedelta(days=7)

    @property
    def hashed_properties(self) -> frozenset[str]:
        """Properties whose columns hold identifiers that are hashed already."""
        return frozenset()

    @property
    def api_end(self) -> date | None:
        """The day on which the version of the destination's API ends, if that is known."""
        return None

    @property
    def first_day(self) -> Literal["beginning"] | date | None:
        """Which events are sent, as :data:`Since` says."""
        return None

    @property
    def identifier_type(self) -> str | None:
        """The identifier type by which people are addressed, if the settings name one."""
        return None

    @property
    def reads_back(self) -> ReadBackSettings | None:
        """Where the destination's records are read back; None if they are not."""
        return None

    def whose(self, prop: str) -> Whose:
        """Return whose value of a property counts, where both sides write it."""
        del prop
        return "ours"

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from ((f"properties.{prop}", column) for prop, column in self.properties.items())
        yield from named(consent=self.consent)

    def called_url(self, heap: HeapSettings) -> str | None:
        """Return the URL that is called; None if only the destination's own code knows it."""
        del heap
        return None

    def anchored(self, folder: Path) -> Self:
        """Return the settings with the file's relative paths made relative to the file."""
        del folder
        return self


Whose = Literal["ours", "theirs", "newest"]
"""Whose value of a field counts, where both sides write it."""


class ReadBackSettings(Section):
    """The table that the destination's records are read back into, so that both sides may write them."""

    table: str = Field(description="Table of a source, such as crm/contacts")
    key: str | None = Field(default=None, description="Its column that holds the sync's key; its own key unless given")
    columns: dict[str, str] = Field(default={}, description="Property to its column there, where the names differ")
    changed_at: str | None = Field(
        default=None,
        description="Trait or column that says when our row changed, for `newest`; updated_at of the sync's table",
    )


class UpsertSettings(SyncSettings):
    """A sync that keeps each key of the destination as the newest row says."""

    nulls: dict[str, Literal["skip", "send"]] = Field(default={}, description="Per property; skip unless said")
    on_withdrawn: Literal["clear", "keep"] = Field(
        default="clear", description="What happens to a value that is no longer true"
    )
    changed_fields_only: bool = Field(default=False, description="Else all mapped fields of a changed key are sent")
    read_back: ReadBackSettings | None = Field(
        default=None, description="Where the records are read back, so that others may change them"
    )
    conflicts: dict[str, Whose] = Field(
        default={},
        description="Property to whose value counts, ours unless said: of theirs, only what is empty there is filled; "
        "newest is the later change",
    )

    @model_validator(mode="after")
    def _conflicts_can_be_told(self) -> Self:
        for name, whose in self.conflicts.items():
            if name not in self.properties:
                raise ValueError(f"conflicts: {name!r} is no property of this sync")
            if self.read_back is None:
                raise ValueError("conflicts: name the table that the records are read back into as read_back.table")
            if whose != "ours" and self.nulls.get(name) == "send":
                raise ValueError(f"conflicts: a null that is sent would empty {name} there; take it out of nulls")
        if self.read_back and (unknown := [*self.read_back.columns.keys() - self.properties.keys()]):
            raise ValueError(f"read_back.columns: {unknown[0]!r} is no property of this sync")
        return self

    @property
    def reads_back(self) -> ReadBackSettings | None:
        """Where the destination's records are read back."""
        return self.read_back

    def whose(self, prop: str) -> Whose:
        """Return whose value of a property counts."""
        return self.conflicts.get(prop, "ours")

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        if self.read_back is not None and self.read_back.changed_at is not None:
            yield "read_back.changed_at", self.read_back.changed_at

    @property
    def is_upsert(self) -> bool:
        """Whether the settings alone say that it keeps keys up to date."""
        return True

    @property
    def upsert_rules(self) -> UpsertRules:
        """How the values of a key are kept up to date."""
        return UpsertRules(self.nulls, self.on_withdrawn, self.changed_fields_only)


def named(**columns: str | None) -> Iterator[tuple[str, str]]:
    """Yield key and column of the keys that name one."""
    yield from ((key, column) for key, column in columns.items() if column is not None)


class KeyedSettings(SyncSettings):
    """A sync whose key is chosen: an identifier type of profiles, or a column of a table."""

    key: str | None = None

    @property
    def identifier_type(self) -> str | None:
        """The identifier type by which people are addressed, if the settings name one."""
        return self.key if self.source == "profiles" else None

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        yield from named(key=self.key)


class EventSettings(SyncSettings):
    """How rows of a warehouse table become events."""

    event_name: str | None = Field(default=None, description="A constant; or event_name_column")
    event_name_column: str | None = Field(default=None, description="Column that holds the name of each event")
    event_key: str | None = Field(
        default=None,
        description="Column that tells events apart; the table's key unless given, with event_name_column and "
        "timestamp_column where they are set",
    )
    timestamp_column: str | None = Field(default=None, description="When it happened; the table's created_at if any")
    since: Since = Field(default=None, description="Events before it stay; the day the sync was first run unless given")

    @property
    def first_day(self) -> Literal["beginning"] | date | None:
        """Which events are sent."""
        return self.since

    @property
    def sends_events(self) -> bool:
        """Whether its rows are events, which have a name."""
        return self.event_name is not None or self.event_name_column is not None

    @property
    def is_of_events(self) -> bool:
        """Whether what people did is sent, each event once."""
        return self.sends_events and self.source != "profiles" and not self.is_upsert

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        yield from named(
            event_name_column=self.event_name_column,
            event_key=self.event_key,
            timestamp_column=self.timestamp_column,
        )


def sync_section(kinds: Sequence[type[SyncSettings]]) -> Any:
    """Return the type of a `sync:` section: name to settings of a kind, in which another kind's key is a mistake."""
    names = [model.kind_name() for model in kinds]
    message = f"a kind (the sync's name unless given), one of {', '.join(names)}"
    tagged: Any = tuple(Annotated[model, Tag(name)] for model, name in zip(kinds, names, strict=True))
    union: Any = Annotated[
        Union[tagged],  # noqa: UP007  built of a list
        Discriminator(_kind, custom_error_type="sync_kind", custom_error_message=message),
    ]
    return Annotated[dict[str, union], BeforeValidator(_with_kinds)]


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else value.kind if isinstance(value, SyncSettings) else None


def _with_kinds(value: Any) -> Any:
    """A sync that says no kind is of the kind that it is called."""
    if not isinstance(value, dict):
        return value
    return {
        name: {**sync, "kind": sync.get("kind") or name} if isinstance(sync, dict) else sync
        for name, sync in value.items()
    }
