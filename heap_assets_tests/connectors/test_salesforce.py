"""Salesforce's connector passes the shared suite; and what is Salesforce's alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from heap_assets import clock
from heap_assets.activation import Status
from heap_assets.activation.connectors.salesforce import records
from heap_assets.activation.engine import auth
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.salesforce import Field, SalesforceServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

_ORG = """
my_domain: {url}
client_id: ${SALESFORCE_CLIENT_ID}
client_secret: ${SALESFORCE_CLIENT_SECRET}
external_id: Heap_Id__c
"""
_LONGEST = 32_000
_FIELDS = "properties: {LastName: last_name, Company: company, Title: title, Lead_Score__c: score, Is_PQL__c: pql}"


class Salesforce(ConnectorSuite):
    """What suites of records share."""

    secrets = {"SALESFORCE_CLIENT_ID": "client-4711-abc", "SALESFORCE_CLIENT_SECRET": "secret-4711-abc"}
    schema = {
        "id": pl.String,
        "last_name": pl.String,
        "company": pl.String,
        "title": pl.String,
        "score": pl.Float64,
        "pql": pl.Boolean,
    }
    many = 700

    def make_server(self) -> SalesforceServer:
        server = SalesforceServer()
        server.client_id, server.client_secret = self.secrets.values()
        for object in ("Lead", "Contact"):
            server.fields[object] |= {"Lead_Score__c": Field("double"), "Is_PQL__c": Field("boolean")}
            server.fields[object]["Notes__c"] = Field("textarea", 100_000)
        return server

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, SalesforceServer)
        for row in rows:
            if not server.find("Lead", "Heap_Id__c", row["id"]) and len(row["title"]) <= _LONGEST:
                server.edit("Lead", Heap_Id__c=row["id"])

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"user-{number:05}",
            "last_name": f"Lastname{number}",
            "company": f"Company {number % 7}",
            "title": f"title-{number % 3}-{version}",
            "score": number / 2,
            "pql": number % 2 == 0,
        }

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["last_name"]

    def cleared(self, row: Row) -> Row:
        return {**row, "title": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {
            "LastName": row["last_name"],
            "Company": row["company"],
            "Title": row["title"],
            "Lead_Score__c": row["score"],
            "Is_PQL__c": row["pql"],
        }

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        names = ("LastName", "Company", "Title", "Lead_Score__c", "Is_PQL__c")
        leads = server.records.get("Lead", {}).values()
        return [(lead["Heap_Id__c"], {name: lead.get(name) for name in names}) for lead in leads]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, SalesforceServer)
        server.edit("Lead", Heap_Id__c=rows[1]["id"])
        more = {**rows[0], "id": rows[0]["id"].title()}
        return [*rows, more], {rows[0]["id"], rows[1]["id"], more["id"]}

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(0), "title": "x" * 128, "last_name": "x" * 80}, *(self.row(n) for n in range(1, 400))]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(400), "title": "x" * (_LONGEST + 1)}]


class TestSalesforce(Salesforce):
    """update_only by external id, in collections."""

    settings = f"kind: salesforce\nobject: Lead\n{_FIELDS}{_ORG}"
    absent = {"create": "no record is made: update_only"}


class TestSalesforceUpsert(Salesforce):
    """upsert by external id, in collections."""

    settings = f"kind: salesforce\nobject: Lead\nmatch: upsert\n{_FIELDS}{_ORG}"
    absent = {"no_match": "records are made: upsert"}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        super().seed(server, rows)
        return super().duplicates(server, rows)


class TestSalesforceBulk(TestSalesforce):
    """update_only by external id, all in jobs."""

    settings = f"{TestSalesforce.settings}bulk_from_rows: 1\npoll_seconds: 0.02\n"
    many = 250


# what is Salesforce's alone


SECRET_LINE = "client_secret: ${SALESFORCE_CLIENT_SECRET}"
Made = Callable[[str], tuple[kit.Deployment, SalesforceServer]]
LEADS = TestSalesforce()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Return what makes a deployment of some settings, and the org that it writes to."""
    for name, value in Salesforce.secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(auth, "_tokens", {})
    with LEADS.make_server() as server:
        yield lambda settings: (kit.Deployment.make(tmp_path, settings.replace("{url}", server.url)), server)
        assert [one for one in server.violations if not one.row] == []


def sent(deployment: kit.Deployment, day: int, *rows: Row, **schema: Any) -> Any:
    deployment.write(day, rows, LEADS.schema | schema)
    return deployment.send(day, f"r{day}")


def test_values_that_never_were_leave_fields_alone_and_required_ones_are_never_emptied(made: Made) -> None:
    deployment, server = made(LEADS.settings)
    id = server.edit("Lead", Heap_Id__c="user-00000", Title="theirs", Company="theirs", LastName="theirs")
    assert sent(deployment, 0, {**LEADS.row(0), "title": None, "company": None}).sent == 1
    lead = server.records["Lead"][id]
    assert (lead["Title"], lead["Company"], lead["LastName"]) == ("theirs", "theirs", "Lastname0")
    assert sent(deployment, 1).withdrawn == 1
    assert (lead["LastName"], lead["Lead_Score__c"], lead["Title"]) == ("Lastname0", None, "theirs")


@pytest.mark.parametrize("match", ["update_only", "upsert"])
@pytest.mark.parametrize("fields", ["", "converted_fields: [Lead_Score__c]"])
def test_a_converted_lead_fails_no_other_row(made: Made, match: str, fields: str) -> None:
    deployment, server = made(f"{LEADS.settings}match: {match}\n{fields}")
    rows = LEADS.rows(3)
    LEADS.seed(server, rows)
    contact = server.edit("Contact", LastName="Lastname1", Title="theirs")
    [lead] = server.find("Lead", "Heap_Id__c", rows[1]["id"])
    server.convert(lead, contact)
    report = sent(deployment, 0, *rows)
    assert (report.status, report.sent, report.no_match) == (Status.SUCCEEDED, 3 if fields else 2, 0 if fields else 1)
    held = server.records["Contact"][contact]
    assert (held["Title"], held.get("Lead_Score__c")) == ("theirs", 0.5 if fields else None)
    assert deployment.send(0, "again").requests == 0


def test_the_object_is_chosen_by_row_and_a_change_of_it_sends_everything_there(made: Made) -> None:
    objects = "objects:\n  Contact: {title: [customer]}\n  Lead: {pql: [true]}\n"
    fields = "properties: {LastName: last_name, Lead.Company: company, Contact.Title: title, Lead.Title: company}"
    deployment, server = made(f"kind: salesforce\nmatch: upsert\n{objects}{fields}{_ORG}")
    lead, none, person = ({**LEADS.row(n), "pql": n != 1} for n in range(3))
    report = sent(deployment, 0, lead, none, {**person, "title": "customer"})
    assert (report.sent, report.held, report.held_reasons) == (2, 1, {"it fits none of the objects": 1})
    assert [one["Title"] for one in server.records["Lead"].values()] == ["Company 0"]
    assert [one["Title"] for one in server.records["Contact"].values()] == ["customer"]
    assert sent(deployment, 1, {**lead, "title": "customer"}, none, {**person, "title": "customer"}).sent == 1
    [left] = server.records["Lead"].values()
    assert (left["LastName"], left["Title"]) == ("Lastname0", "Company 0")
    assert [one["LastName"] for one in server.records["Contact"].values()] == ["Lastname2", "Lastname0"]
    assert sent(deployment, 2, {**lead, "title": "customer"}, none).withdrawn == 1
    assert [one["Title"] for one in server.records["Contact"].values()] == [None, "customer"]
    assert left["Title"] == "Company 0"


def test_create_only_leaves_records_as_they_are(made: Made) -> None:
    deployment, server = made(f"{LEADS.settings}match: create_only")
    id = server.edit("Lead", Heap_Id__c="user-00000", Title="theirs")
    report = sent(deployment, 0, *LEADS.rows(2))
    assert (report.status, report.sent, report.no_match) == (Status.SUCCEEDED, 1, 1)
    assert server.records["Lead"][id]["Title"] == "theirs"
    assert sent(deployment, 1, LEADS.row(0), LEADS.row(1, version=1)).no_match == 2


def test_ids_and_fields_that_are_no_external_ids_are_looked_up(made: Made) -> None:
    by_email = LEADS.settings.replace("external_id: Heap_Id__c", "lookup_field: Email\nlook_up_by: query")
    deployment, server = made(by_email)
    addresses = ["o'hara@x.example", "two@x.example", "none@x.example", "Old@x.example"]
    for address in (addresses[0], addresses[1], addresses[1], addresses[3].lower()):
        server.edit("Lead", Email=address)
    contact = server.edit("Contact", LastName="x")
    server.convert(server.edit("Lead", Email=addresses[3]), contact)
    report = sent(deployment, 0, *({**LEADS.row(n), "id": address} for n, address in enumerate(addresses)))
    assert (report.sent, report.no_match, report.invalid) == (2, 1, 1)
    assert [call.method for call in server.calls if call.kind == "read"] == ["GET"]


def test_a_locked_record_is_written_later(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_PAUSES", (0.05, None))
    deployment, server = made(LEADS.settings)
    rows = LEADS.rows(3)
    LEADS.seed(server, rows)
    server.fail("bad_row", key=rows[1]["last_name"], times=1, code="UNABLE_TO_LOCK_ROW")
    assert sent(deployment, 0, *rows).sent == 3
    server.fail("bad_row", key=rows[1]["last_name"], code="UNABLE_TO_LOCK_ROW")
    report = sent(deployment, 1, *LEADS.rows(3, version=1))
    assert (report.sent, report.deferred) == (2, 1)


def test_a_run_ends_when_the_orgs_calls_are_used_up(made: Made) -> None:
    deployment, server = made(f"{LEADS.settings}most_api_usage: 0.5\nrequests_in_flight: 1")
    server.limits[0].amount = 4
    rows = LEADS.rows(600)
    LEADS.seed(server, rows)
    report = sent(deployment, 0, *rows)
    assert (report.status, report.sent, report.aborted) == (Status.STOPPED, 400, 200)
    assert report.reason == "100% of the org's calls in 24 hours are used up; most_api_usage is 50%"


def test_a_key_signs_the_login_and_the_version_is_that_of_the_settings(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    monkeypatch.setenv("SALESFORCE_KEY", pem.decode())
    login = "login: jwt_bearer\nusername: sync@example.com\nprivate_key: ${SALESFORCE_KEY}\napi_version: '50.0'"
    deployment, server = made(LEADS.settings.replace("client_secret: ${SALESFORCE_CLIENT_SECRET}", login))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    server.public_key = key.public_key().public_bytes(*public).decode()
    LEADS.seed(server, LEADS.rows())
    assert sent(deployment, 0, *LEADS.rows()).sent == 5
    assert {call.path.split("/")[3] for call in server.calls if call.kind != "token"} == {"v50.0"}
    assert str(deployment.connector.settings.api_end) == "2023-10-01"


@pytest.mark.parametrize("secret", [SECRET_LINE, ""])
def test_a_user_who_let_the_app_in_is_logged_in_again_when_the_session_ends(
    secret: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALESFORCE_REFRESH_TOKEN", "refresh-4711")
    login = f"login: refresh_token\nrefresh_token: ${{SALESFORCE_REFRESH_TOKEN}}\n{secret}"
    deployment, server = made(LEADS.settings.replace(SECRET_LINE, login))
    server.refresh_token = "refresh-4711"
    LEADS.seed(server, LEADS.rows(450))
    server.fail("token_expired", skip=1)
    assert sent(deployment, 0, *LEADS.rows(450)).sent == 450
    assert sum(call.kind == "token" for call in server.calls) == 2
    assert server.violations == []
    server.tokens.expire()
    server.refreshing = 1
    assert sent(deployment, 1, *LEADS.rows(450, version=1)).sent == 450, "another process asked at the same moment"
    server.tokens.expire()
    server.refresh_token = None
    report = sent(deployment, 2, *LEADS.rows(450))
    assert (report.status, report.sent) == (Status.STOPPED, 0)
    assert "invalid_grant" in str(report.reason)
    assert "4711" not in str(report)


def test_what_is_missing_in_the_org_is_named_before_anything_is_sent(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, server = made(LEADS.settings + "match: upsert\nconverted_fields: [Is_PQL__c]")
    monkeypatch.setattr(clock, "today", lambda: kit.DAY)
    deployment.write(0, LEADS.rows(), LEADS.schema)
    assert [result.name for result in deployment.connector.preflight() if not result.passed] == []
    server.fields["Lead"]["Heap_Id__c"] = Field(external_id=True)
    server.fields["Lead"]["Title"] = Field(writable=False)
    server.fields["Lead"]["Is_PQL__c"] = Field("double")
    del server.fields["Contact"]["Is_PQL__c"]
    failed = {result.name: result.detail for result in deployment.connector.preflight() if not result.passed}
    assert failed == {
        "Lead.Heap_Id__c": "is no unique external id",
        "Lead.Title": "may not be written by the user",
        "Lead.Is_PQL__c": "is of type double, and its column of Boolean",
        "Contact.Is_PQL__c": "is no field that the user may see",
    }


def test_the_example_of_the_docs_gives_each_field_its_type(made: Made) -> None:
    page = Path(__file__).parents[2].joinpath("docs/how_to/salesforce.md").read_text()
    example = yaml.safe_load(page.partition("```yaml")[2].partition("```")[0])["sync"]["salesforce"]
    example |= {"kind": "salesforce", "key": "id", "my_domain": "{url}"}
    deployment, server = made(yaml.safe_dump(example))
    types = {"Lead_Status__c": "string", "PQL_Score__c": "boolean", "Last_Activity__c": "date"}
    types |= dict.fromkeys(["Total_Sessions__c", "Feature_Score__c", "Lead_Score__c"], "double")
    for object in ("Lead", "Contact"):
        server.fields[object] |= {name: Field(kind) for name, kind in types.items()}
    lead = server.edit("Lead", Email="ann@x.example")
    row = {
        "id": "ann@x.example",
        "plan": "free",
        "lifecycle_stage": "Power User",
        "hesitating_leads": True,
        "last_active": "2026-11-01",
        "session_count": 12,
        "active_days": 5,
        "engagement_score": 71,
    }
    schema = {name: pl.Series([value]).dtype for name, value in row.items()}
    deployment.write(0, [row], schema)
    assert [result.name for result in deployment.connector.preflight() if not result.passed] == []
    assert deployment.send(0, "r1").sent == 1
    assert {name: server.records["Lead"][lead][name] for name in example["properties"]} == {
        "Lead_Status__c": "Power User",
        "PQL_Score__c": True,
        "Last_Activity__c": "2026-11-01",
        "Total_Sessions__c": 12,
        "Feature_Score__c": 5,
        "Lead_Score__c": 71,
    }
    assert deployment.connector.settings.cadence == "*/15 * * * *"
    deployment.write(1, [{**row, "engagement_score": 72}], schema)
    assert deployment.send(1, "r2").sent == 1
    assert server.records["Lead"][lead]["Lead_Score__c"] == 72


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("match: upsert\nproperties: {LastName: last_name}", "no Lead is made without Company"),
        ("lookup_field: Email", "external_id: give either"),
        ("objects: {Lead: {}}", "object: give either"),
        ("properties: {Contact.Title: title}", "'Contact.Title' is of an object that this sync does not write"),
        ("converted_fields: [Nope__c]", "'Nope__c' is no property"),
        ("api_version: '45.0'", "46.0 and later"),
        ("login: jwt_bearer", "username: login: jwt_bearer needs it"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(made: Made, more: str, message: str) -> None:
    own = {line.partition(":")[0] for line in more.splitlines()}
    kept = [line for line in LEADS.settings.splitlines() if line.partition(":")[0] not in own]
    with pytest.raises(SettingsError, match=message):
        made("\n".join([*kept, more]))
