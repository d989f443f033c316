"""Settings, catalogue and lake put together: what both the Dagster layer and the command line work with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path

from heap_assets import clock
from heap_assets.activation import ApiSettings
from heap_assets.config import HEAP_DEFAULT_IDENTIFIERS, Settings, settings_path
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.http_client import AllowedHosts
from heap_assets.identity import (
    HEAP_IDENTITY,
    HEAP_USER_ID,
    ColumnMapping,
    Decision,
    Rules,
    SourceTable,
    Timeline,
    Unusable,
    check_decisions,
    decisions_of_table,
    read_decisions,
    user_migrations_table,
    with_values,
    without_contradictions,
)
from heap_assets.privacy import TombstoneReader
from heap_assets.profiles import Audience, Condition
from heap_assets.project.allowed_hosts import allowed_hosts
from heap_assets.project.catalogue import load_catalogue
from heap_assets.project.heap_sources import files_source, s3_access
from heap_assets.project.inbox import check_folded_column, mappings_of, message_sources, message_tables
from heap_assets.project.masking import masked_landed
from heap_assets.project.names import PLAIN_NAMES, Names
from heap_assets.project.ownership import landed_without_erased
from heap_assets.project.settings import (
    identifier_rule,
    identity_engine,
    leave_out_rules,
    load_settings,
    parsed_audiences,
    parsed_signals,
)
from heap_assets.signals import Signal
from heap_assets.sources.heap_connect import (
    Catalogue,
    DumpSource,
    FolderSource,
    Landing,
    LandingConfig,
    Limits,
    S3Source,
    Selection,
    keys_of,
    s3_client,
)
from heap_assets.sources.inbox import MessageTable
from heap_assets.sources.warehouse import (
    AccessError,
    Column,
    Shape,
    Warehouse,
    WarehouseError,
    choose_columns,
    family_of,
)
from heap_assets.storage import Lake
from heap_assets.tables import (
    MIGRATIONS,
    SNAPSHOT_TABLES,
    USERS,
    WAREHOUSE_SOURCE,
    heap_asset,
    is_inbox_table,
    is_kept_for_years,
    source_of,
    warehouse_asset,
    warehouse_table,
)


def open_project(settings: Settings | None = None, file: Path | None = None) -> Project:
    """Return the project of settings or of a settings file (the one in use unless given), with its lake and catalogue.

    Raises
    ------
    SettingsError
        One message naming the key, its value and what was expected.
    """
    file = file or settings_path()
    settings = settings or load_settings(file)
    lake = Lake.open(settings.lake.url, settings.lake.options)
    return Project(settings, load_catalogue(settings, lake), lake, file)


@dataclass(frozen=True)
class Project:
    """Everything that the settings describe, ready to use; nothing is opened before it is needed."""

    settings: Settings
    catalogue: Catalogue
    lake: Lake
    file: Path = field(default_factory=settings_path)
    """The settings file."""
    names: Names = PLAIN_NAMES
    """What its assets and jobs are called in Dagster."""

    @cached_property
    def allowed_hosts(self) -> AllowedHosts:
        """Hosts that may be called."""
        return allowed_hosts(self.settings)

    def with_lake(self, lake: Lake) -> Project:
        """Return the same project on a lake that was opened elsewhere, such as by a Dagster resource."""
        return replace(self, lake=lake)

    def require_lake(self) -> None:
        """Check that the lake is there, so that an unmounted disk is not taken for an empty lake.

        Raises
        ------
        MissingInputError
            If the lake's folder is missing or empty.
        """
        if self.lake.store.is_missing:
            raise MissingInputError(
                f"there is no lake in {self.lake.store.url}: nothing has landed yet, or its disk is not mounted"
            )

    @cached_property
    def landing(self) -> Landing:
        """Where dumps land."""
        tables, limits, source = self.settings.heap.tables, self.settings.heap.limits, self.settings.heap.source
        return Landing(
            self.lake.store,
            LandingConfig(
                start_date=self.settings.start_date,
                kept_from=self.settings.keep.events_from(clock.today()),
                tables=Selection(tuple(tables.include), tuple(tables.exclude), tables.columns),
                limits=Limits(limits.block_mb << 20, limits.file_mb << 20),
                not_in_source=set(SNAPSHOT_TABLES) - set(source.tables) if source.kind == "files" else (),
                now=clock.now,
                without_erased=partial(landed_without_erased, self),
                masked=partial(masked_landed, self) if self.settings.privacy.rules else None,
            ),
        )

    def first_day_of(self, asset: str) -> date:
        """Return the first day that a table has: events go after `keep.event_years`, and nothing else does."""
        return self.settings.first_day if is_kept_for_years(asset) else self.settings.start_date

    @cached_property
    def tombstones(self) -> TombstoneReader:
        """What was erased and is left out whenever it comes again."""
        return TombstoneReader(self.lake.store, self.settings.privacy.key_bytes)

    def source(self) -> DumpSource:
        """Open the bucket or folder that Heap Connect writes to."""
        source = self.settings.heap.source
        if source.kind == "folder":
            return FolderSource(source.path)
        if source.kind == "s3":
            return S3Source(s3_client(s3_access(source)), source.bucket)
        if source.kind == "files":
            return files_source(source, self.landing)
        raise SettingsError(
            "heap.source is Heap's export in a warehouse, without dumps; `heap-assets catalogue diff` shows its tables"
        )

    def warehouse(self, source: str = WAREHOUSE_SOURCE) -> Warehouse:
        """Return a source of tables, the warehouse unless named; it is connected to only while it is asked."""
        chosen = self.settings.all_sources.get(source)
        if chosen is None:
            raise SettingsError(f"there is no `{self.settings.section_of(source)}:` section in the settings")
        if isinstance(chosen, ApiSettings):
            chosen = chosen.counted_in(self.lake.store)
        warehouse: Warehouse = chosen.open(self.settings.section_of(source))
        return warehouse

    def warehouse_of(self, table: str) -> Warehouse:
        """Return the source of a table, by the name that settings refer to it by."""
        return self.warehouse(source_of(warehouse_asset(table)))

    @cached_property
    def event_tables(self) -> list[str]:
        """Heap tables whose rows belong to the day they happened, as Heap names them."""
        chosen = Selection(tuple(self.settings.heap.tables.include), tuple(self.settings.heap.tables.exclude))
        return [
            name for name in sorted(self.catalogue.tables) if name not in SNAPSHOT_TABLES and chosen.takes_table(name)
        ]

    @cached_property
    def heap_tables(self) -> dict[str, str]:
        """Lake asset of every Heap table to the name that Heap has for it."""
        return {heap_asset(table): table for table in (*self.catalogue.tables, *SNAPSHOT_TABLES)}

    @cached_property
    def rules(self) -> Rules:
        """The rules of identity resolution, with the decisions that hold today."""
        rules = self.rules_of_days.on(clock.today())
        check_decisions(rules.decisions)
        return rules

    @cached_property
    def rules_of_days(self) -> Rules:
        """The rules with all decisions, those that have ended too: they hold for the days before their end."""
        return replace(self.rules_of_settings, decisions=self._decisions[0])

    @property
    def unusable_decisions(self) -> tuple[Unusable, ...]:
        """Decisions that cannot be followed: of the table, and those whose hashes stand for no value of this lake."""
        return self._decisions[1]

    @cached_property
    def rules_of_settings(self) -> Rules:
        """The rules without decisions of people: what may be asked before there is a lake."""
        return Rules(
            identifiers=tuple(identifier_rule(section) for section in self.settings.identity.identifiers),
            order=self.settings.identity.order,
            suppressed=_suppressed(self.settings.identity.suppressed),
        )

    @cached_property
    def _decisions(self) -> tuple[tuple[Decision, ...], tuple[Unusable, ...]]:
        rules, file = self.rules_of_settings, self.settings.identity.decisions
        settled, unusable = with_values(self.lake.store, read_decisions(Path(file), rules) if file else ())
        table = self.settings.identity.decisions_table
        newest = self.lake.partitions(warehouse_asset(table))[-1:] if table else []
        if not table or not newest:
            return tuple(settled), tuple(unusable)
        rows = self.lake.scan(warehouse_asset(table), newest[0]).collect()
        written, refused = decisions_of_table(rows, table, rules)
        added, lacking = with_values(self.lake.store, written)
        decisions, contradicting = without_contradictions(settled, added, clock.today())
        return decisions, (*unusable, *lacking, *refused, *contradicting)

    @cached_property
    def audiences(self) -> list[Audience]:
        """The audiences that the settings define."""
        return parsed_audiences(self.settings)

    @cached_property
    def signals(self) -> dict[str, Signal]:
        """The signals that the settings define, by name."""
        return {signal.name: signal for signal in parsed_signals(self.settings)}

    @cached_property
    def table_sources(self) -> dict[str, SourceTable]:
        """Lake asset of every table whose rows syncs may send to how it names people."""
        derived = {
            name: SourceTable(name, "event", mappings_of(table.identifiers, self.rules), table.created_at)
            for name, table in self.settings.derived_tables.items()
        }
        return {**self.sources, **derived}

    @cached_property
    def leave_out(self) -> dict[str, list[dict[str, tuple[Condition, ...]]]]:
        """Event table pattern to sets of conditions by column: a row that meets all of a set is left out."""
        return leave_out_rules(self.settings)

    @cached_property
    def timeline(self) -> Timeline:
        """The identity graph over the days."""
        return Timeline(self.lake.store, self.rules_of_days, identity_engine(self.settings))

    @cached_property
    def event_sources(self) -> dict[str, SourceTable]:
        """Lake asset of every event table to how it names people."""
        tables = {
            heap_asset(table): SourceTable(heap_asset(table), "event", self.heap_mappings(table, "events"), "time")
            for table in self.event_tables
        }
        return tables | (
            {} if self.settings.inbox is None else message_sources(self.settings.inbox, self.rules_of_settings)
        )

    @cached_property
    def snapshot_sources(self) -> dict[str, SourceTable]:
        """Lake asset of every snapshot table to how it names people."""
        users = SourceTable(
            USERS,
            "snapshot",
            self.heap_mappings("users", "users"),
            "joindate",
            authoritative=((HEAP_USER_ID, HEAP_IDENTITY),),
        )
        tables = {USERS: users}
        if HEAP_USER_ID in self.rules_of_settings.types:
            tables[MIGRATIONS] = user_migrations_table(MIGRATIONS)
        for name, table in self.settings.snapshot_tables.items():
            mappings = mappings_of(table.identifiers, self.rules_of_settings)
            tables[warehouse_asset(name)] = SourceTable(name, "snapshot", mappings, table.created_at)
        return tables

    @property
    def sources(self) -> dict[str, SourceTable]:
        """All tables that identify people."""
        return self.event_sources | self.snapshot_sources

    @cached_property
    def message_tables(self) -> dict[str, MessageTable]:
        """Lake asset of every table of messages to what it holds."""
        return {} if self.settings.inbox is None else message_tables(self.settings.inbox, self.settings.functions)

    def required(self, asset: str) -> bool:
        """Return whether identity waits for this snapshot table; of others an older day is carried forward."""
        table = self.settings.source_tables.get(warehouse_table(asset))
        return table is None or table.required

    def check_columns(self) -> None:
        """Check that mapped columns exist in the catalogue and in the warehouse itself.

        Raises
        ------
        SettingsError
            Naming the key of the first column that its table does not have.
        """
        self.check_heap_columns()
        for name in self.settings.read_tables:
            self.check_warehouse_table(name)
        self._check_traits()

    def check_heap_columns(self) -> None:
        """Check that mapped columns of Heap's tables are in the catalogue; needs no network, so it is done at load.

        So are those of the inbox that traits come from. Raises SettingsError, naming the key of the first that is not.
        """
        for name, trait in self.settings.profiles.traits.items():
            for index, source in enumerate(trait.sources):
                table, _, column = source.partition(".")
                if is_inbox_table(table):
                    where = f"profiles.traits.{name}.from[{index}]"
                    check_folded_column(self.settings.inbox, self.settings.functions, table, column, where)
        for table in self.settings.heap.identifiers:
            catalogued = self.catalogue.columns(table)
            for mapping in self.heap_mappings(table, table) if catalogued is not None else ():
                for column in mapping.columns:
                    if column.partition(".")[0] not in (catalogued or ()):
                        raise SettingsError(
                            f"heap.identifiers.{table} maps the column {column!r}, which {table} does not have. "
                            f"Columns: {', '.join(catalogued or ())}"
                        )

    def mapped_columns(self, name: str) -> list[str]:
        """Return the columns of a warehouse table that the settings give a meaning."""
        table = self.settings.source_tables[name]
        mapped = [table.key, table.created_at, table.updated_at]
        mapped += [column for one in self.snapshot_sources[warehouse_asset(name)].mappings for column in one.columns]
        for trait in self.settings.profiles.traits.values():
            mapped += [column for asset, _, column in (s.partition(".") for s in trait.sources) if asset == name]
        return sorted({column for column in mapped if column})

    def _existing(self, name: str, columns: Sequence[Column]) -> list[str]:
        """Return the mapped columns that exist; traits' are asked for one by one, by their own key."""
        relation = self.settings.source_tables[name].relation
        existing = []
        for column in self.mapped_columns(name):
            with suppress(WarehouseError):
                choose_columns([column], columns, relation)
                existing.append(column)
        return existing

    def check_warehouse_table(self, name: str) -> None:
        """Check one mapped table in the warehouse: its columns, their spelling and the types of its time columns.

        Raises
        ------
        SettingsError
            Naming the table, the column and what there is.
        """
        table = self.settings.source_tables[name]
        mapped = {column for one in self.snapshot_sources[warehouse_asset(name)].mappings for column in one.columns}
        required = [column for column in (table.key, table.created_at, table.updated_at, *sorted(mapped)) if column]
        try:
            existing = self.warehouse_of(name).columns(table.relation)
            choose_columns(required, existing, table.relation)
            shape = Shape.of(existing, self._existing(name, existing), table.relation)
            shape.check_times(table.relation, created_at=table.created_at, updated_at=table.updated_at)
            shape.check_identifiers(table.relation, sorted(mapped))
        except AccessError:
            raise  # no mistake of the table's
        except WarehouseError as error:
            raise SettingsError(f"{self.settings.section_of_table(name)}: {error}") from error

    def _check_traits(self) -> None:
        for name, trait in self.settings.profiles.traits.items():
            for index, source in enumerate(trait.sources):
                table, _, column = source.partition(".")
                where = f"profiles.traits.{name}.from[{index}]"
                if table == "users":
                    catalogued = self.catalogue.columns("users")
                    if catalogued is not None and column not in catalogued:
                        raise SettingsError(f"{where} is {source!r}, but Heap's users have no column {column!r}")
                    continue
                if table not in self.settings.read_tables:
                    continue  # see check_heap_columns; a model shows its columns when it is computed
                relation = self.settings.source_tables[table].relation
                columns = self.warehouse_of(table).columns(relation)
                try:
                    choose_columns([column], columns, relation)
                except WarehouseError as error:
                    raise SettingsError(f"{where} is {source!r}: {error}") from error
                needed, kind = _CHOICES.get(trait.choose), family_of(columns, column)
                if needed and kind and kind != needed:
                    raise SettingsError(
                        f"profiles.traits.{name}.choose is {trait.choose!r}, which needs a {needed}; "
                        f"{source} holds a {kind}"
                    )

    def heap_mappings(self, table: str, fallback: str) -> tuple[ColumnMapping, ...]:
        chosen = self.settings.heap.identifiers
        mapping = chosen.get(table) or chosen.get(fallback) or HEAP_DEFAULT_IDENTIFIERS[fallback]
        declared_types = set(self.rules.types)
        if table not in chosen and (columns := self.catalogue.columns(table)) is not None:
            # a mapping for all event tables names columns that only some of them have
            mapping = {column: types for column, types in mapping.items() if column in (*keys_of(table), *columns)}
        declared = {
            column: accepted
            for column, types in mapping.items()
            if (accepted := [t for t in ([types] if isinstance(types, str) else types) if t in declared_types])
        }
        return mappings_of(declared, self.rules_of_settings)


_CHOICES = {"sum": "number", "any": "truth value"}
"""What kind of value a rule of survivorship needs."""


def _suppressed(file: str | None) -> frozenset[tuple[str, str]]:
    if file is None:
        return frozenset()
    path = Path(file)
    if not path.is_file():
        raise SettingsError(f"identity.suppressed is {file!r}, which does not exist")
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if not {"identifier_type", "identifier"} <= {*(rows.fieldnames or ())}:
            raise SettingsError(
                f"identity.suppressed is {file!r}; its first line must name the columns identifier_type and identifier"
            )
        return frozenset((row["identifier_type"] or "", row["identifier"] or "") for row in rows)
