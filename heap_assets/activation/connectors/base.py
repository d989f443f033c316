"""The interface of a connector: a kind of sync in one file, with settings, inputs, rows, requests, limits and docs.

A connector is created for one sync of a deployment. What is common to all kinds (difference, ledger, batches, retries,
schedule, gate, checks) is in the engine and the pipelines, which use this interface and never ask for the kind.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import polars as pl

from heap_assets import clock
from heap_assets.activation.connectors.consent import column_of_events, columns_asked, newest_profiles_day, with_consent
from heap_assets.activation.connectors.deletion import Deletion, MembersRemoved
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.connectors.reading import ReadSettings
from heap_assets.activation.engine.accounts import at_account, ledger_of
from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.destination import Dedupe, Destination
from heap_assets.activation.engine.events import KEY_COLUMNS
from heap_assets.activation.engine.spec import Guard, Mode, OnWithdrawn, Property, SyncSpec
from heap_assets.activation.engine.tables import first_sent
from heap_assets.activation.engine.two_way import ReadBack
from heap_assets.config import Settings, SyncSettings, WarehouseTable
from heap_assets.errors import DamagedFileError, MissingInputError
from heap_assets.http_client import AllowedHosts
from heap_assets.identity import Rules, SourceTable
from heap_assets.sources.heap_connect import Catalogue, Landing
from heap_assets.sources.warehouse import Permission
from heap_assets.storage import Lake, state_keys
from heap_assets.tables import GRAPH, PROFILES, USERS, warehouse_asset
from heap_assets.values import apart

Rows = pl.LazyFrame | Addressed
"""Rows with a `key`, or such rows with the held and invalid ones beside them."""


class Deployment(Protocol):
    """What a connector may use of its deployment; a :class:`heap_assets.project.Project` is one."""

    @property
    def settings(self) -> Settings: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def lake(self) -> Lake: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def landing(self) -> Landing: ...
    @property
    def event_tables(self) -> list[str]: ...
    @property
    def event_sources(self) -> dict[str, SourceTable]: ...
    @property
    def snapshot_sources(self) -> dict[str, SourceTable]: ...
    @property
    def sources(self) -> dict[str, SourceTable]: ...
    @property
    def table_sources(self) -> dict[str, SourceTable]: ...
    @property
    def allowed_hosts(self) -> AllowedHosts: ...


@dataclass(frozen=True)
class Requirement:
    """A partition whose blocking checks must have passed before anything is sent.

    `columns`: of profiles: the columns that are sent. One that could not be made is null, and would be cleared.
    """

    asset: str
    day: str
    columns: frozenset[str] = frozenset()


S = TypeVar("S", bound=SyncSettings)


class Connector(ABC, Generic[S]):
    """One sync of a deployment, of one kind.

    A kind is a subclass with `settings_model`, :meth:`inputs`, :meth:`rows` and :meth:`destination`. The rest has
    defaults for a sync with one ledger that reads profiles or a warehouse table. The docstring of its settings model is
    the documentation of the kind.
    """

    settings_model: ClassVar[type[SyncSettings]]
    deletes: ClassVar[type[Any] | None] = None
    """What has people deleted at the destination, of the settings; of a kind that can be asked."""
    untried: ClassVar[str] = ""
    """What `heap-assets sync check` cannot try there, and why; part of the kind's page."""
    source_model: ClassVar[type[ReadSettings] | None] = None
    """Of a kind that can also be read, as a source of tables."""

    def __init__(self, name: str, settings: S, deployment: Deployment) -> None:
        self.name = name
        self.settings = settings
        self.deployment = deployment

    @classmethod
    def kind(cls) -> str:
        """Return the kind as settings name it."""
        return cls.settings_model.kind_name()

    @classmethod
    def docs(cls) -> str:
        """Return the documentation of the kind."""
        return inspect.cleandoc(cls.settings_model.__doc__ or "")

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the documentation, in one line."""
        return " ".join(cls.docs().partition("\n\n")[0].split())

    @abstractmethod
    def destination(self, table: str = "") -> Destination:
        """Return what makes requests of rows and reads answers.

        `table`: the event table whose rows are sent, of a kind that keeps a ledger for each.
        """

    @abstractmethod
    def inputs(self) -> list[str]:
        """Return the assets that are read, the one whose columns are sent first."""

    @abstractmethod
    def rows(self, day: date, table: str = "") -> Rows:
        """Return the rows of a day, each with the key of the destination."""

    def rows_to_send(self, day: date, table: str = "") -> Rows:
        """Return the rows of a day, with what was read back of their records, and the consent to send events."""
        rows, read_back = with_consent(self, self.rows(day, table)), self._read_back(day, table)
        if read_back is None:
            return rows
        plain = rows if isinstance(rows, Addressed) else Addressed(rows, no_addresses(), no_addresses())
        return replace(plain, read_back=read_back)

    def _read_back(self, day: date, table: str) -> ReadBack | None:
        back, lake = self.settings.reads_back, self.deployment.lake
        if back is None:
            return None
        asset, described = warehouse_asset(back.table), self.warehouse_tables[back.table]
        newest = lake.newest_partition(asset, clock.today())
        if newest is None:
            raise MissingInputError(f"{asset} was never read: nothing is sent before it is known what is there")
        stored = lake.find(asset, str(newest))
        observed_at = stored.notes.get("observed_at") if stored is not None else None
        own, sync, sent = self.warehouse_tables.get(self.settings.source), self.settings, self.columns_sent(table, day)
        changed_at = back.changed_at or (own.updated_at if own is not None else None)
        return ReadBack(
            rows=lake.scan(asset, str(newest)),
            key=back.key or described.key,
            columns={prop: back.columns.get(prop, prop) for prop in sent},
            policies={prop: sync.whose(prop) for prop in sent},
            remote_time=described.updated_at,
            own_time=apart(changed_at, self.own_columns) if changed_at and own is not None else changed_at,
            observed_at=datetime.fromisoformat(str(observed_at)) if observed_at else None,
        )

    @property
    def all_inputs(self) -> list[str]:
        """The assets that are read, what is read back last."""
        back = self.settings.reads_back
        people = [PROFILES, GRAPH] if column_of_events(self) else []
        records = [warehouse_asset(back.table)] if back is not None else []
        return [*dict.fromkeys([*self.inputs(), *people, *records])]

    @property
    def mode(self) -> Mode:
        """Whether keys are kept up to date or each row is sent once."""
        return Mode.UPSERT if self.settings.is_upsert else Mode.INSERT

    @property
    def source_asset(self) -> str:
        """The asset that `source` names."""
        own = {PROFILES: PROFILES, "heap": USERS}
        return own.get(self.settings.source) or warehouse_asset(self.settings.source)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns that addressing puts beside those of a table (:mod:`heap_assets.values`)."""
        return KEY_COLUMNS

    def read_by_day(self) -> list[str]:
        """Return the assets that are read at the day that is sent; of others the newest day is read."""
        return [self.source_asset]

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        """Yield the partitions whose checks must have passed before a day is sent, and reasons against sending it."""
        columns = frozenset((*self.settings.properties.values(), *filter(None, [self.settings.consent_column])))
        yield Requirement(self.source_asset, str(day), columns)
        if (back := self.settings.reads_back) is not None:
            asset = warehouse_asset(back.table)
            newest = self.deployment.lake.newest_partition(asset, clock.today())
            yield Requirement(asset, str(newest)) if newest else f"{asset} was never read"
        yield from self.consent_requirements()

    def consent_requirements(self) -> Iterator[Requirement | str]:
        """Yield the profiles by which a sync of events asks for consent, if it does."""
        if column_of_events(self):
            day = newest_profiles_day(self.deployment)
            columns = frozenset(columns_asked(self))
            yield Requirement(PROFILES, str(day), columns) if day else f"{PROFILES} has not been built"

    def unavailable(self, *, make: bool) -> str | None:
        """Return why there is no destination, or None.

        `make`: also make the destination, which may run code of another package.
        """
        del make
        return None

    def before_sending(self, run_id: str) -> int:
        """Prepare a run; returns how many rows sent earlier are confirmed by now."""
        del run_id
        return 0

    def preflight(self) -> Iterable[Permission]:
        """Try what a run will need, one result each: login, scopes, the object, each mapped field and its type.

        Only reads at the destination (:meth:`api`). It is asked by `heap-assets sync check`, and before the first rows
        are sent to an account. A kind that has nothing to try says why in :attr:`untried`.
        """
        return [untried("destination", self.untried)] if self.untried else []

    def source_types(self) -> Mapping[str, pl.DataType]:
        """Return the types of the source's columns, in its newest rows; none before there are any."""
        lake = self.deployment.lake
        day = lake.newest_partition(self.source_asset, clock.today())
        return lake.scan(self.source_asset, str(day)).collect_schema() if day else {}

    def column_types(self) -> Mapping[str, pl.DataType]:
        """Return property to type of its column, in the source's newest rows; none before there are any."""
        types = self.source_types()
        return {prop: types[column] for prop, column in self.settings.properties.items() if column in types}

    def read_back(self, key: str) -> Mapping[str, Any] | None:
        """Return what the destination has of a key: property to value, nothing without a record.

        None of a kind that cannot look.
        """
        del key
        return None

    def api(self) -> Api:
        """Return what makes single calls to the destination: `with self.api() as api: api.call(request)`."""
        share, allowed = self.settings.limit_share, self.deployment.allowed_hosts
        return Api(self.destination(self.first_table), allowed=allowed, share=share)

    def own_links(self) -> pl.DataFrame | None:
        """Return `user_id`, `identity` of the pairs that Heap has only from this sync, None if it makes none."""
        return None

    def check(self) -> None:
        """Check the settings against the deployment.

        Raises SettingsError, naming the key of the first mistake.
        """

    def lineage(self) -> Iterator[tuple[str, str, str]]:
        """Yield property, and the asset and the column that it comes from."""
        for prop, column in self.settings.properties.items():
            yield prop, self.inputs()[0], column

    @property
    def tables(self) -> list[str]:
        """Event tables with a ledger of their own each, of a kind that forwards Heap's events."""
        return []

    def version(self, table: str, partition: str) -> str:
        """Return the version of a table's partition under the sync's settings; empty without tables."""
        del table, partition
        return ""

    def columns_sent(self, table: str, day: date | None) -> Mapping[str, str]:
        """Return property to column, as the rows of a day name it."""
        del table, day
        mapped = self.settings.properties
        if self.settings.source not in self.warehouse_tables:
            return mapped
        return {prop: apart(column, self.own_columns) for prop, column in mapped.items()}

    def deletion(self) -> Deletion | str:
        """Return what has people deleted at the destination, or why nobody can be asked."""
        if not self.settings.erase:
            return f"sync.{self.name}.erase is false: ask its administrator"
        make = type(self).deletes
        if make is None:
            destination = self.destination(self.first_table)
            if destination.mode is Mode.SET:
                return MembersRemoved(destination)
            return "it has no deletion API that is known here: ask its administrator"
        deletion: Deletion = make(self.settings)
        return f"sync.{self.name}.{deletion.missing} is not set" if deletion.missing else deletion

    def keys_of(self, identifiers: Iterable[tuple[str, str]]) -> set[str]:
        """Return what the destination may know a person by, of their identifiers (type and value)."""
        return {value for _, value in identifiers}

    def event_keys(self, people: Collection[str], table: str = "") -> Sequence[str]:
        """Return the keys of the events that are people's now, of a sync that sends rows once.

        `people`: as the destination knows them.
        """
        del table
        lake, asset = self.deployment.lake, self.source_asset
        day = lake.newest_partition(asset, clock.today())
        if self.settings.source not in self.warehouse_tables or day is None:
            return []
        addressed = self.rows(day)
        rows = addressed.rows if isinstance(addressed, Addressed) else addressed
        if "event_key" not in rows.collect_schema():
            return []
        keys = rows.filter(pl.col("key").is_in(list(people))).select("event_key").collect()["event_key"].drop_nulls()
        keyed = addressed.keyed if isinstance(addressed, Addressed) else None
        if keyed is None or keyed.former is None:
            return keys.to_list()
        former = keyed.former.filter(pl.col("key").is_in(keys.implode())).select("former").collect()["former"]
        return [*keys, *former.drop_nulls()]

    @property
    def ledger_tables(self) -> list[str]:
        """Tables with a ledger each; one without a name for a sync that has one ledger."""
        return self.tables if self.settings.by_table else [""]

    @property
    def first_table(self) -> str:
        """One of the ledgers' tables, of a kind whose destination is of the same making for all."""
        return next(iter(self.ledger_tables), "")

    @property
    def dedupe(self) -> Dedupe:
        """What becomes of a row that arrives twice; where it counts twice, a check names rows without an answer."""
        return self.destination(self.first_table).dedupe

    @property
    def warehouse_tables(self) -> Mapping[str, WarehouseTable]:
        """Tables of all sources, by the names that settings refer to them by."""
        return self.deployment.settings.sync_tables

    def account(self, table: str = "") -> str:
        """Name the address and account that are written to; only a hash of it is kept."""
        return self.destination(table).account

    def ledger_name(self, table: str = "") -> str:
        """Return the name of the ledger, of one table of it."""
        return f"{self.name}.{table}" if table else self.name

    def ledger_folder(self, table: str = "", *, claim: bool = False) -> str:
        """Return the folder below `_sync/` of the ledger of the account that is written to now.

        `claim`: write down whose it is: only who sends does that.
        """
        return ledger_of(self.deployment.lake.store, self.ledger_name(table), self.account(table), claim=claim)

    def spec(self, table: str = "", day: date | None = None) -> SyncSpec:
        """Return the specification of the sync for the engine.

        `day`: whose rows are sent, where their columns depend on it.
        """
        sync, rules = self.settings, self.settings.upsert_rules
        spec = SyncSpec(
            name=self.ledger_name(table),
            account=self.account(table),
            properties={
                prop: Property(column, on_null=rules.nulls.get(prop, "skip"))
                for prop, column in self.columns_sent(table, day).items()
            },
            changed_fields_only=rules.changed_fields_only,
            on_withdrawn=OnWithdrawn(rules.on_withdrawn),
            rate_share=sync.limit_share,
            concurrency=sync.requests_in_flight,
            unmatched_for=sync.unmatched_for,
            hashed=sync.hashed_properties,
            consent=self._consent_column,
            clears_without_consent=self.settings.purpose is not None,
            guard=Guard(
                removed=sync.guard.max_removed, changed=sync.guard.max_changed, takeover=sync.guard.max_same_value
            ),
        )
        return at_account(self.deployment.lake.store, spec, claim=False)

    @property
    def _consent_column(self) -> str | None:
        column = self.settings.consent_column
        if of_events := column_of_events(self):
            return of_events
        return apart(column, self.own_columns) if column and self.settings.source in self.warehouse_tables else column

    def specs(self) -> list[SyncSpec]:
        """Return the specification of the sync for the engine, once for each of its ledgers."""
        return [self.spec(table) for table in self.ledger_tables]

    def since(self) -> datetime | None:
        """Return the moment before which events are left alone, None if there is none."""
        first_day = self.settings.first_day
        if first_day == "beginning":
            return None
        if not isinstance(first_day, date):
            first_day = self.enabled_on or clock.today()
        return datetime.combine(first_day, time.min, UTC)

    @property
    def enabled_on(self) -> date | None:
        """The day on which the sync first ran for the account that it writes to now, None if it never did."""
        store, key = self.deployment.lake.store, _enabled(self.ledger_folder())
        try:
            return date.fromisoformat(json.loads(store.read(key))["enabled_on"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(
                f"{store.uri(key)} is damaged: write the day on which the sync first ran as "
                f"sync.{self.name}.since, or delete the file, and events from today on are sent"
            ) from error

    @property
    def populating_until(self) -> datetime | None:
        """Until when the destination may be taking in the rows that it was sent first; None once that is over."""
        duration = self.settings.first_population
        began = first_sent(self.deployment.lake.store, self.ledger_folder()) if duration else None
        return began + duration if began is not None and clock.now() < began + duration else None

    def remember_enabled(self) -> None:
        """Store that the sync runs from today on for the account that is written to now, unless a day is stored."""
        document = json.dumps({"enabled_on": clock.today().isoformat()})
        self.deployment.lake.store.create(_enabled(self.ledger_folder(claim=True)), document.encode())


def _enabled(folder: str) -> str:
    return f"{state_keys.SYNC}/{folder}/enabled.json"
