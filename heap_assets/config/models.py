"""The whole of heap_assets.yaml, and the mistakes that only show when sections are read together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from heap_assets import clock
from heap_assets.config.base import Day, Section
from heap_assets.config.cadences import USUAL, usual_schedule
from heap_assets.config.derived import ModelSettings, UnifiedEvents, sent_tables, source_models
from heap_assets.config.functions import FunctionsSettings
from heap_assets.config.heap import HeapSettings, IdentifierTypes
from heap_assets.config.heap_api import HeapQuerySettings, LabelsSettings
from heap_assets.config.identity import AccountsSettings, IdentitySettings, ProfilesSettings
from heap_assets.config.inbox import InboxSettings, LiveSettings
from heap_assets.config.operations import Alert, Host, Keep, RunSettings
from heap_assets.config.privacy import PrivacySettings
from heap_assets.config.reports import ReportSettings
from heap_assets.config.reverse_etl import ReverseEtlSync
from heap_assets.config.sync import SyncSettings
from heap_assets.config.warehouse import SourceName, SourceSettings, TargetName, TargetSettings, WarehouseTable
from heap_assets.errors import did_you_mean
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    ACCOUNT_PROFILES,
    PROFILE_COLUMNS,
    WAREHOUSE_SOURCE,
    is_inbox_table,
    is_model,
    warehouse_asset,
    warehouse_table,
)

HEAP_DEFAULT_IDENTIFIERS: dict[str, dict[str, IdentifierTypes]] = {
    "users": {"user_id": "heap_user_id", "identity": "heap_identity", "email": "email"},
    "events": {"user_id": "heap_user_id"},
}
"""What Heap's own columns mean, unless the settings say otherwise; types that are not declared are left out."""


class LakeSettings(Section):
    """Where tables are stored: a folder, s3:// or gs://, with the object store's options."""

    url: str = Field(description="A folder, s3://bucket/prefix or gs://bucket/prefix")
    options: dict[str, str] = Field(default={}, description="Options of the object store, such as aws_region")


class Settings(Section):
    """heap_assets.yaml. Of which kinds its sections may be is handed in (`kinds.settings_model`)."""

    sync_kinds: ClassVar[tuple[type[SyncSettings], ...]] = ()

    start_date: Day = Field(description="First day of every table; rows before it are counted and left out")
    lake: LakeSettings = Field(description="Where tables are stored; the URL alone, unless options are needed")
    catalogue: Path = Field(default=Path("heap_catalogue.yaml"), description="Known event tables and columns")
    heap: HeapSettings = Field(description="Heap's environment and its export")
    warehouse: SourceSettings | None = Field(default=None, description="The warehouse with tables of customers")
    sources: dict[SourceName, SourceSettings] = Field(
        default={}, description="More systems, each as warehouse: is; other sections name their tables <source>/<table>"
    )
    inbox: InboxSettings | None = Field(default=None, description="Events that other systems post (docs/live.md)")
    live: LiveSettings = Field(default=LiveSettings(), description="The service that takes them in")
    identity: IdentitySettings = Field(description="How identifiers are joined to people")
    profiles: ProfilesSettings = Field(default=ProfilesSettings(), description="Columns of profiles, and audiences")
    accounts: AccountsSettings | None = Field(default=None, description="The companies that people belong to")
    signals: dict[TargetName, dict[str, object]] = Field(
        default={}, description="Name of a signal to its rule (docs/signals.md)"
    )
    models: dict[TargetName, ModelSettings] = Field(
        default={}, description="Name of a table to the SQL or the function that makes it (docs/models.md)"
    )
    models_folder: str | None = Field(default=None, description="Folder of .sql files that are models, too")
    unified_events: UnifiedEvents | None = Field(
        default=None, description="One table of the events of Heap and of the inbox (docs/unified_events.md)"
    )
    analytics: dict[TargetName, dict[str, object]] = Field(
        default={}, description="Name of a result to its kind and parameters (docs/analytics.md)"
    )
    sync: dict[str, SyncSettings] = Field(default={}, description="What is sent where, by name of the sync")
    publish: dict[TargetName, TargetSettings] = Field(
        default={}, description="Warehouses that tables are published to, by name of the target"
    )
    reports: dict[TargetName, ReportSettings] = Field(
        default={}, description="Results of SQL as files and mails, by name (docs/reports.md)"
    )
    heap_query: HeapQuerySettings | None = Field(
        default=None, description="Heap's own query API, which nobody has verified (docs/reports.md)"
    )
    labels: LabelsSettings | None = Field(
        default=None, description="Heap's labels as a reviewed file; nobody has verified the API (docs/labels.md)"
    )
    reverse_etl: dict[TargetName, ReverseEtlSync] = Field(
        default={}, description="Syncs of Hightouch and Census that are started here and waited for, by name"
    )
    functions: FunctionsSettings = Field(
        default=FunctionsSettings(), description="JavaScript of one's own (docs/functions.md)"
    )
    privacy: PrivacySettings = Field(
        default=PrivacySettings(), description="Erasure of people, and what it leaves behind (docs/privacy.md)"
    )
    checks: dict[str, float] = Field(default={}, description="Thresholds by name; docs/checks.md lists them")
    alerts: list[Alert] = Field(default=[], description="Channels that alerts are sent to")
    allowed_hosts: list[Host] | None = Field(
        default=None,
        description="Hosts that may be called besides those of lake and sources: host, host:port or *.domain; "
        "[] for none, all unless given",
    )
    keep: Keep = Field(default=Keep(), description="How long days of snapshots stay")
    run: RunSettings = Field(default=RunSettings(), description="How Dagster runs things")

    @field_validator("lake", mode="before", json_schema_input_type=str | LakeSettings)
    @classmethod
    def _lake_from_url(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("start_date")
    @classmethod
    def _is_not_in_the_future(cls, value: date) -> date:
        if value > clock.today():
            raise ValueError(f"a day that has begun; today is {clock.today()} in UTC")
        return value

    @property
    def first_day(self) -> date:
        """The first day that tables have now: `start_date`, or a later one before which events are not kept."""
        events_from = self.keep.events_from(clock.today())
        return self.start_date if events_from is None else max(self.start_date, events_from)

    @property
    def all_sources(self) -> dict[str, SourceSettings]:
        """The warehouse and the other sources, by their names."""
        return ({WAREHOUSE_SOURCE: self.warehouse} if self.warehouse else {}) | self.sources

    @property
    def source_tables(self) -> dict[str, WarehouseTable]:
        """The tables of all sources, by the names that settings refer to them by: `contacts`, `crm/contacts`.

        Those of the inbox are among them; see :attr:`read_tables`.
        """
        return self.snapshot_tables | (self.inbox.event_tables() if self.inbox else {})

    @property
    def snapshot_tables(self) -> dict[str, WarehouseTable]:
        """The tables that hold how things stood: of all sources, those folded from messages, and models."""
        return self.read_tables | (self.inbox.snapshot_tables() if self.inbox else {}) | source_models(self.models)

    @property
    def read_tables(self) -> dict[str, WarehouseTable]:
        """The tables that are read from the warehouse and the other sources, by their names."""
        return {
            warehouse_table(f"{source}/{name}"): table
            for source, settings in self.all_sources.items()
            for name, table in settings.tables.items()
        }

    @property
    def account_assets(self) -> list[str]:
        """The assets of accounts: profiles, and who is in which audience; none if nothing is to be known of them."""
        if self.accounts is None or not self.accounts.columns:
            return []
        return [ACCOUNT_PROFILES, *([ACCOUNT_AUDIENCES] if self.accounts.audiences else [])]

    @property
    def derived_tables(self) -> dict[str, WarehouseTable]:
        """Tables that this platform makes and syncs may send, by the names that settings refer to them by."""
        return sent_tables(self.signals, self.models, self.accounts, set(self.identity.types))

    @property
    def sync_tables(self) -> dict[str, WarehouseTable]:
        """The tables whose rows syncs may send."""
        return {**self.source_tables, **self.derived_tables}

    def section_of(self, source: str) -> str:
        """Return the key of a source's section."""
        return source if source == WAREHOUSE_SOURCE else f"sources.{source}"

    def section_of_table(self, table: str) -> str:
        """Return the key of the section of a source's table, by the name that settings refer to it by."""
        source, _, name = warehouse_asset(table).partition("/")
        if is_inbox_table(table):
            return "inbox.tables"
        if is_model(table):
            return f"models.{name}"
        return f"{self.section_of(source)}.tables.{name}"

    def read_schedule(self, source: str) -> str:
        """Return when a source is read, as cron in UTC."""
        return self.all_sources[source].schedule or self.run.warehouse_schedule

    def sync_schedule(self, name: str) -> str | None:
        """Return when a sync runs, as cron in UTC; None if only by hand."""
        sync = self.sync[name]
        return usual_schedule(sync.cadence, self.heap.plan) if sync.schedule == USUAL else sync.schedule

    @model_validator(mode="after")
    def _relations_are_understood(self) -> Settings:
        for source, settings in self.all_sources.items():
            if mistake := settings.mistake(self.section_of(source)):
                raise ValueError(mistake)
        return self

    @model_validator(mode="after")
    def _names_of_tables_stay_apart(self) -> Settings:
        by_name: dict[str, str] = {}
        for table in self.read_tables:
            # Dagster joins the parts of a key with `__`, and so do names of checks, which leave out the warehouse
            for name in {asset.replace("/", "__") for asset in (table, warehouse_asset(table))}:
                if (other := by_name.setdefault(name, table)) != table:
                    raise ValueError(
                        f"{self.section_of_table(table)}: it would share the name {name} in Dagster with "
                        f"{self.section_of_table(other)}; give one of the two another name"
                    )
        return self

    @model_validator(mode="after")
    def _starts_are_not_in_the_future(self) -> Settings:
        for name, sync in self.sync.items():
            since = sync.first_day
            if isinstance(since, date) and since > clock.today():
                raise ValueError(
                    f"sync.{name}.since is {since}, a day ahead: nothing would be sent. Today is {clock.today()} in UTC"
                )
        return self

    @model_validator(mode="after")
    def _types_are_declared(self) -> Settings:
        declared = set(self.identity.types)
        for where, mapped in self._mapped_types():
            if mapped not in declared:
                hint = did_you_mean(mapped, declared)
                raise ValueError(
                    f"{where} is {mapped!r}, which identity.identifiers does not declare. "
                    f"Declared: {', '.join(self.identity.types)}.{hint}"
                )
        return self

    @model_validator(mode="after")
    def _sources_exist(self) -> Settings:
        tables = self.snapshot_tables
        for name, trait in self.profiles.traits.items():
            for index, source in enumerate(trait.sources):
                table = source.split(".")[0]
                if table != "users" and table not in tables:
                    raise ValueError(
                        f"profiles.traits.{name}.from[{index}] is {source!r}, but there is no table {table!r}. "
                        f"Tables: {', '.join(['users', *tables])}"
                    )
        return self

    @model_validator(mode="after")
    def _the_table_of_decisions_exists(self) -> Settings:
        table = self.identity.decisions_table
        if table is not None and table not in self.source_tables:
            raise ValueError(
                f"identity.decisions_table is {table!r}, which is no table of a source. "
                f"Tables: {', '.join(self.source_tables) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _accounts_exist(self) -> Settings:
        if (accounts := self.accounts) is None:
            return self
        if accounts.table not in self.source_tables:
            raise ValueError(
                f"accounts.table is {accounts.table!r}, which is no table of a source. "
                f"Tables: {', '.join(self.source_tables) or 'none'}"
            )
        if accounts.member_of not in self.profiles.traits:
            raise ValueError(
                f"accounts.member_of is {accounts.member_of!r}, which is no trait. "
                f"Traits: {', '.join(self.profiles.traits) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _sent_properties_do_not_come_back(self) -> Settings:
        sent = {prop for sync in self.sync.values() if sync.writes_heap_users for prop in sync.properties}
        fold = {p.lower().replace(" ", "_"): p for p in sent} | {p: p for p in sent}
        for name, trait in self.profiles.traits.items():
            for source in trait.sources:
                table, column = source.split(".", 1)
                if table == "users" and column in fold:
                    raise ValueError(
                        f"profiles.traits.{name}.from has {source!r}, a property that sync writes to Heap as "
                        f"{fold[column]!r}: what is pushed comes back in the next dump and would prove itself"
                    )
        for column in self.heap.identifiers.get("users", {}):
            if column in fold:
                raise ValueError(
                    f"heap.identifiers.users.{column} is a property that sync writes to Heap: "
                    "what is pushed cannot identify anybody"
                )
        return self

    @model_validator(mode="after")
    def _sources_of_syncs_exist(self) -> Settings:
        tables = self.sync_tables
        for name, sync in self.sync.items():
            if sync.source not in (*sync.own_sources(), "profiles", *tables):
                readers = [kind for kind in self.sync_kinds if "heap" in kind.own_sources()]
                names = " and ".join(kind.kind_name() for kind in sorted(readers, key=lambda kind: not kind.by_table))
                heap = f": only {names} read Heap events" if sync.source == "heap" else ""
                raise ValueError(
                    f"sync.{name}.source is {sync.source!r}, which is no warehouse table{heap}. "
                    f"Tables: {', '.join(tables) or 'none'}"
                )
            used = sync.identifier_type
            if used is not None and used not in self.identity.types:
                raise ValueError(
                    f"sync.{name} addresses people by {used!r}, which identity.identifiers does not declare. "
                    f"Declared: {', '.join(self.identity.types)}"
                )
        return self

    @model_validator(mode="after")
    def _live_syncs_follow_messages(self) -> Settings:
        messages = self.inbox.event_tables() if self.inbox else {}
        for name, sync in ((name, sync) for name, sync in self.sync.items() if sync.live):
            if self.inbox is None:
                raise ValueError(f"sync.{name}.live is true, but there is no `inbox:` section: it follows messages")
            if sync.source != "profiles" and (sync.source not in messages or sync.is_upsert):
                raise ValueError(
                    f"sync.{name}.live is true, but it sends {sync.source!r} by key or from another source: only "
                    f"profiles, and as events tables of messages, follow. Tables: {', '.join(messages)}"
                )
        return self

    @model_validator(mode="after")
    def _reports_have_their_source(self) -> Settings:
        for name, report in self.reports.items():
            if report.source == "heap" and self.heap_query is None:
                raise ValueError(f"reports.{name}.source is 'heap', but there is no `heap_query:` section to ask by")
        return self

    @model_validator(mode="after")
    def _purposes_of_syncs_exist(self) -> Settings:
        purposes = self.privacy.consent.purposes
        for name, sync in self.sync.items():
            if sync.purpose is not None and sync.purpose not in purposes:
                raise ValueError(
                    f"sync.{name}.purpose is {sync.purpose!r}, which privacy.consent.purposes does not list. "
                    f"Purposes: {', '.join(purposes) or 'none'}"
                )
            if sync.purpose is not None and sync.consent:
                raise ValueError(
                    f"sync.{name}.purpose is beside consent: {sync.consent}, which the kind asks for or you named. "
                    f"Name the column of the purpose, and no purpose: consent: consent_{sync.purpose}"
                )
            if sync.purpose is not None and (sync.source != "profiles" and not sync.is_of_events):
                raise ValueError(
                    f"sync.{name}.purpose is for a sync of profiles or of events without consent: of source "
                    f"{sync.source!r} name a Boolean column as consent"
                )
            if sync.before_consent != "leave" and not (sync.purpose and sync.is_of_events):
                raise ValueError(f"sync.{name}.before_consent is for a sync of events with a purpose")
        return self

    @property
    def profile_columns(self) -> list[str]:
        """Columns of `profiles` that the settings make."""
        return [*self.profiles.columns, *self.functions.profile_columns]

    @model_validator(mode="after")
    def _columns_of_functions_are_their_own(self) -> Settings:
        names = {*PROFILE_COLUMNS, *self.profiles.columns, *(f"{trait}__source" for trait in self.profiles.traits)}
        for function, settings in self.functions.enrich.items():
            for name in settings.columns:
                if name in names:
                    raise ValueError(
                        f"functions.enrich.{function}.columns.{name}: profiles has a column of this name already"
                    )
                names.add(name)
        return self

    @model_validator(mode="after")
    def _traits_of_syncs_exist(self) -> Settings:
        purposes = (f"consent_{purpose}" for purpose in self.privacy.consent.purposes)
        columns = {*self.profile_columns, *purposes, "profile_id", "first_seen", "last_seen"}
        for name, sync in self.sync.items():
            if sync.source != "profiles":
                continue
            for prop, trait in sync.properties.items():
                if trait not in columns:
                    raise ValueError(
                        f"sync.{name}.properties.{prop} is {trait!r}, which is no trait. "
                        f"Traits: {', '.join(sorted(columns))}"
                    )
        return self

    def columns_of_syncs(self, table: str) -> set[str]:
        """Return the columns of a source's table that syncs send or go by: kept, whatever `columns` leaves out."""
        reading = [sync for sync in self.sync.values() if sync.source == table]
        columns = {column for sync in reading for _, column in sync.named_columns()}
        for sync in self.sync.values():
            if (back := sync.reads_back) is not None and back.table == table:
                columns |= {back.columns.get(prop, prop) for prop in sync.properties}
                columns |= {back.key} if back.key else set()
        return columns

    @model_validator(mode="after")
    def _tables_of_records_exist(self) -> Settings:
        tables = self.source_tables
        for name, sync in self.sync.items():
            if (back := sync.reads_back) is None:
                continue
            if back.table not in tables:
                raise ValueError(
                    f"sync.{name}.read_back.table is {back.table!r}, which is no table of a source. "
                    f"Tables: {', '.join(tables) or 'none'}"
                )
            newest = [prop for prop in sync.properties if sync.whose(prop) == "newest"]
            if newest and tables[back.table].updated_at is None:
                raise ValueError(
                    f"sync.{name}.conflicts.{newest[0]} is newest: say what changes there by updated_at of "
                    f"{self.section_of_table(back.table)}"
                )
            source = tables.get(sync.source)
            if newest and back.changed_at is None and (source is None or source.updated_at is None):
                raise ValueError(
                    f"sync.{name}.conflicts.{newest[0]} is newest: name what says when ours changed as "
                    f"sync.{name}.read_back.changed_at"
                )
        return self

    def _mapped_types(self) -> Iterator[tuple[str, str]]:
        declared = set(self.identity.types)
        tables = {f"heap.identifiers.{t}": m for t, m in self.heap.identifiers.items()}
        tables |= {f"{self.section_of_table(t)}.identifiers": s.identifiers for t, s in self.read_tables.items()}
        tables |= {f"models.{name}.identifiers": model.identifiers for name, model in self.models.items()}
        if self.inbox is not None:
            tables |= {"inbox.identifiers": self.inbox.identifiers}
            tables |= {f"inbox.tables.{t}.identifiers": s.identifiers for t, s in self.inbox.tables.items()}
        for where, mapping in tables.items():
            for column, types in mapping.items():
                if isinstance(types, list) and column in declared and not set(types) & declared:
                    continue  # a composite: an identifier type made of several columns
                for one in [types] if isinstance(types, str) else types:
                    yield f"{where}.{column}", one
