"""Salesforce, HubSpot and Zendesk as sources of tables: everything, what changed since, what was deleted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from heap_assets.activation.connectors.hubspot.read import HubSpotSource
from heap_assets.activation.connectors.reading import ReadSettings
from heap_assets.activation.connectors.salesforce.read import SalesforceSource
from heap_assets.activation.connectors.zendesk import read as zendesk_read
from heap_assets.activation.connectors.zendesk.read import ZendeskSource
from heap_assets.activation.engine import auth
from heap_assets.errors import SourceError
from heap_assets.sources.warehouse.refresh import Observation, refreshed
from heap_assets_tests.connectors.servers.core import ManualClock, VendorServer
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer, Property
from heap_assets_tests.connectors.servers.salesforce import Field, SalesforceServer
from heap_assets_tests.connectors.servers.zendesk import ZendeskServer

BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""Of the servers' clocks, which is before now."""
MANY = 450
SECRET = "token-4711-abc"


class Reading(ABC):
    """What every system that is read back passes; `columns`, `changed_at` and `key` are those of its table."""

    table: ClassVar[str]
    columns: ClassVar[pl.Schema]
    key: ClassVar[str]
    changed_at: ClassVar[str]
    calls_for_all: ClassVar[int]
    """Calls that read `MANY` rows."""
    calls_for_changes: ClassVar[int] = 1
    tells_deletions: ClassVar[bool] = True
    refusal: ClassVar[str]
    """Part of the message where the login is refused."""

    @abstractmethod
    def make_server(self, clock: ManualClock) -> VendorServer:
        """Return the system, empty."""

    @abstractmethod
    def source(self, server: Any) -> ReadSettings:
        """Return the settings."""

    @abstractmethod
    def write(self, server: Any, number: int, **values: Any) -> None:
        """Make or change a record, as people there do."""

    @abstractmethod
    def delete(self, server: Any, number: int) -> None:
        """Delete a record there."""

    @abstractmethod
    def row(self, number: int) -> tuple[Any, ...]:
        """Return the values of a record in `columns` but for those of times and its id."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(BEGIN.timestamp())

    @pytest.fixture
    def server(self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
        monkeypatch.setattr(auth, "_tokens", {})
        with self.make_server(clock) as server:
            yield server
            assert server.violations == []

    @pytest.fixture
    def refresh(self, server: VendorServer, tmp_path: Path) -> Callable[[Observation | None], tuple[str, Observation]]:
        def refresh(before: Observation | None) -> tuple[str, Observation]:
            warehouse, path = self.source(server).open("sources.it"), tmp_path / f"{len(server.calls)}.parquet"
            relation = f"{warehouse.kind}.{self.table}"
            with refreshed(
                warehouse, relation, None, key=self.key, updated_at=self.changed_at, previous=before
            ) as result:
                result.frame.collect().write_parquet(path)
            return result.mode, Observation(pl.scan_parquet(path), datetime.now(UTC))

        return refresh

    def labels(self, observation: Observation) -> dict[str, str]:
        rows = observation.rows.select(self.label, self.title).collect()
        return dict(rows.iter_rows())

    label: ClassVar[str]
    title: ClassVar[str]
    """Columns of a record's name and of the value that changes."""

    def test_everything_then_what_changed_and_what_was_deleted(
        self, server: VendorServer, clock: ManualClock, refresh: Callable[..., tuple[str, Observation]]
    ) -> None:
        for number in range(MANY):
            self.write(server, number)
            clock.advance(60)
        clock.advance(7200)
        server.calls.clear()
        mode, observed = refresh(None)
        assert (mode, len(self.labels(observed))) == ("full", MANY)
        pages = [call for call in server.calls if self.is_page(call)]
        assert len(pages) == self.calls_for_all
        schema = observed.rows.collect_schema()
        assert {name: schema[name] for name in self.columns} == dict(self.columns)
        first = observed.rows.filter(pl.col(self.label) == f"record-{7:03}").select(*self.columns).collect()
        assert first.row(0) == self.row(7)

        self.write(server, 3, title="changed")
        self.write(server, MANY, title="new")
        self.delete(server, 4)
        clock.advance(120)
        server.calls.clear()
        mode, after = refresh(observed)
        labels = self.labels(after)
        assert mode == "changes"
        assert (labels["record-003"], labels[f"record-{MANY}"]) == ("changed", "new")
        assert len(labels) == (MANY if self.tells_deletions else MANY + 1)
        assert ("record-004" in labels) is not self.tells_deletions
        assert len([call for call in server.calls if self.is_page(call)]) == self.calls_for_changes

        mode, again = refresh(after)
        assert (mode, self.labels(again)) == ("unchanged", labels)
        _, everything = refresh(None)
        assert set(self.labels(everything)) == set(labels) - {"record-004"}

    def is_page(self, call: Any) -> bool:
        return "query" in call.path or "search" in call.path or "incremental" in call.path

    def test_faults_on_the_way_are_tried_again_and_a_refusal_says_what_to_do(
        self, server: VendorServer, clock: ManualClock, refresh: Callable[..., tuple[str, Observation]]
    ) -> None:
        for number in range(3):
            self.write(server, number)
        clock.advance(120)
        server.fail("server_error", times=1, **self.server_error)
        _, observed = refresh(None)
        assert len(self.labels(observed)) == 3
        settings = self.source(server)
        assert [one.passed for one in settings.open("sources.it").preflight()] == [True] * len(settings.schemas())
        assert [*settings.hosts()] == [server.url]
        self.refuse(server)
        refused = settings.open("sources.it").preflight()
        assert not refused[-1].passed
        assert self.refusal in refused[-1].detail
        assert SECRET not in str(refused)
        assert server.violations, "the login was meant to be wrong"
        server.violations.clear()

    server_error: ClassVar[Mapping[str, Any]] = {}

    def refuse(self, server: Any) -> None:
        server.token = "another"


class TestSalesforce(Reading):
    table, key, changed_at = "Contact", "Id", "SystemModstamp"
    label, title = "Heap_Id__c", "Title"
    columns = pl.Schema(
        {
            "Heap_Id__c": pl.String,
            "Title": pl.String,
            "Score__c": pl.Float64,
            "Seats__c": pl.Int64,
            "HasOptedOutOfEmail": pl.Boolean,
            "Ends__c": pl.Date,
            "Last__c": pl.Datetime("us", "UTC"),
        }
    )
    calls_for_all = 3
    refusal = "cannot be read"

    def make_server(self, clock: ManualClock) -> SalesforceServer:
        server = SalesforceServer(clock=clock)
        server.page_rows = 200
        server.fields["Contact"] |= {
            "Score__c": Field("double"),
            "Seats__c": Field("int"),
            "Ends__c": Field("date"),
            "Last__c": Field("datetime"),
        }
        return server

    def source(self, server: Any) -> SalesforceSource:
        return SalesforceSource.model_validate(
            {
                "kind": "salesforce",
                "my_domain": server.url,
                "client_id": "client-1",
                "client_secret": "secret-1",
                "objects": {"Contact": [*self.columns]},
            }
        )

    def write(self, server: Any, number: int, **values: Any) -> None:
        key = f"record-{number:03}"
        [id] = server.find("Contact", "Heap_Id__c", key) or [None]
        times = {"Ends__c": "2026-12-01", "Last__c": "2026-11-01T10:00:00.000+0000"}
        more = {"Score__c": number / 2, "Seats__c": number, "HasOptedOutOfEmail": number % 2 == 0}
        server.edit("Contact", id, Heap_Id__c=key, Title=values.get("title", "old"), LastName="N", **times, **more)

    def delete(self, server: Any, number: int) -> None:
        server.remove("Contact", server.find("Contact", "Heap_Id__c", f"record-{number:03}")[0])

    def row(self, number: int) -> tuple[Any, ...]:
        last = datetime(2026, 11, 1, 10, tzinfo=UTC)
        return f"record-{number:03}", "old", number / 2, number, number % 2 == 0, date(2026, 12, 1), last

    def refuse(self, server: Any) -> None:
        server.client_secret = "another"
        server.tokens = type(server.tokens)()

    def test_a_token_that_ends_on_the_way_is_renewed_and_a_used_up_org_ends_the_read(
        self, server: SalesforceServer, refresh: Callable[..., tuple[str, Observation]]
    ) -> None:
        for number in range(250):
            self.write(server, number)
        server.fail("token_expired", path="/query/", times=1)
        _, observed = refresh(None)
        assert len(self.labels(observed)) == 250
        settings = self.source(server).model_copy(update={"most_api_usage": 1e-6})
        with pytest.raises(SourceError, match="of the org's calls in 24 hours are used up"):
            list(settings.read("Contact", None))

    def test_a_field_that_is_not_there_is_named(self, server: SalesforceServer) -> None:
        settings = self.source(server).model_copy(update={"objects": {"Contact": ["Titel"]}})
        with pytest.raises(SourceError, match=r"objects.Contact: .* no field Titel there. Did you mean Title\?"):
            settings.schemas()


class TestHubSpot(Reading):
    table, key, changed_at = "contacts", "hs_object_id", "lastmodifieddate"
    label, title = "heap_id", "firstname"
    columns = pl.Schema(
        {
            "heap_id": pl.String,
            "firstname": pl.String,
            "score": pl.Float64,
            "is_pql": pl.Boolean,
            "ends": pl.Date,
            "last": pl.Datetime("us", "UTC"),
        }
    )
    calls_for_all = 3
    tells_deletions = False
    refusal = "HubSpot does not accept the token"

    def make_server(self, clock: ManualClock) -> HubSpotServer:
        server = HubSpotServer(clock=clock, searches=1000)
        server.search_depth = 200
        server.token = SECRET
        server.properties["contacts"] |= {
            "score": Property("number"),
            "is_pql": Property("bool"),
            "ends": Property("date"),
            "last": Property("datetime"),
        }
        return server

    def source(self, server: Any) -> HubSpotSource:
        return HubSpotSource.model_validate(
            {
                "kind": "hubspot",
                "hub_id": 123,
                "base_url": server.url,
                "token": SECRET,
                "searches_per_second": 1000,
                "properties": [*self.columns],
            }
        )

    def write(self, server: Any, number: int, **values: Any) -> None:
        key = f"record-{number:03}"
        more = {"score": str(number / 2), "is_pql": str(number % 2 == 0).lower()}
        times = {"ends": "2026-12-01", "last": "2026-11-01T10:00:00Z"}
        name = values.get("title", "old")
        server.write(
            "contacts",
            server.find("contacts", "heap_id", key),
            {"heap_id": key, "firstname": name, **more, **times},
        )

    def delete(self, server: Any, number: int) -> None:
        id = server.find("contacts", "heap_id", f"record-{number:03}")
        server.table("contacts")[id]["archived"] = True

    def row(self, number: int) -> tuple[Any, ...]:
        last = datetime(2026, 11, 1, 10, tzinfo=UTC)
        return f"record-{number:03}", "old", number / 2, number % 2 == 0, date(2026, 12, 1), last


class TestZendeskTickets(Reading):
    table, key, changed_at = "tickets", "id", "updated_at"
    label, title = "subject", "severity"
    columns = pl.Schema({"subject": pl.String, "severity": pl.String, "tags": pl.String, "requester_id": pl.Int64})
    calls_for_all = 1
    refusal = "Zendesk does not accept the token"
    server_error: ClassVar[Mapping[str, Any]] = {"wait": 0}

    def make_server(self, clock: ManualClock) -> ZendeskServer:
        server = ZendeskServer(clock=clock, exports_a_minute=1000)
        server.api_token = SECRET
        server.user_fields |= {"plan": "text", "seats": "integer"}
        return server

    def source(self, server: Any) -> ZendeskSource:
        return ZendeskSource.model_validate(
            {
                "kind": "zendesk",
                "base_url": server.url,
                "email": "admin@example.com",
                "api_token": SECRET,
                "exports_per_minute": 1000,
                "ticket_fields": {"severity": 1},
                "user_fields": ["plan", "seats"],
            }
        )

    def write(self, server: Any, number: int, **values: Any) -> None:
        custom = [{"id": 1, "value": values.get("title", "old")}]
        server.put_ticket(
            number + 1, subject=f"record-{number:03}", custom_fields=custom, tags=["a", "b"], requester_id=number
        )

    def delete(self, server: Any, number: int) -> None:
        server.put_ticket(number + 1, status="deleted")

    def row(self, number: int) -> tuple[Any, ...]:
        return f"record-{number:03}", "old", "a,b", number

    def refuse(self, server: Any) -> None:
        server.api_token = "another"

    def test_a_ticket_that_changes_while_it_is_read_is_there_once(
        self, server: ZendeskServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(30):
            self.write(server, number)
        clock.advance(120)
        monkeypatch.setattr(zendesk_read, "_ROWS", 10)
        settings = self.source(server)
        frames = settings.read("tickets", None)

        def interrupted(table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
            yield next(frames)
            self.write(server, 2, title="changed")
            self.delete(server, 3)
            clock.advance(120)
            yield from frames

        monkeypatch.setattr(ZendeskSource, "read", lambda self, table, since: interrupted(table, since))
        with settings.open("sources.it").snapshot("zendesk.tickets") as snapshot:
            rows = snapshot.frame.collect()
        assert snapshot.reading.rows == len(rows) == 29
        assert dict(rows.select("subject", "severity").iter_rows())["record-002"] == "changed"


class TestZendeskUsers(TestZendeskTickets):
    table, label, title = "users", "external_id", "plan"
    columns = pl.Schema({"external_id": pl.String, "plan": pl.String, "seats": pl.Int64, "name": pl.String})
    test_a_ticket_that_changes_while_it_is_read_is_there_once = None  # type: ignore[assignment]

    def write(self, server: Any, number: int, **values: Any) -> None:
        key = f"record-{number:03}"
        own = {"plan": values.get("title", "old"), "seats": number}
        server.write(server.find("external_id", key), {"external_id": key, "name": "N", "user_fields": own})

    def delete(self, server: Any, number: int) -> None:
        server.remove_user(server.find("external_id", f"record-{number:03}"))

    def row(self, number: int) -> tuple[Any, ...]:
        return f"record-{number:03}", "old", number, "N"
