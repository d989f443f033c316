"""Salesforce is written and read back in rounds, and both sides change: whose value counts, and nothing circles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.activation import Status, SyncReport, forget
from heap_assets.activation.engine import auth
from heap_assets.activation.engine.two_way import load_settled
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.sync_why import why
from heap_assets.sources.warehouse.refresh import Observation, refreshed
from heap_assets.storage import Inputs
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer

_ACCOUNT = """kind: salesforce
my_domain: {url}
client_id: ${SALESFORCE_CLIENT_ID}
client_secret: ${SALESFORCE_CLIENT_SECRET}
"""
_SYNC = (
    _ACCOUNT
    + """object: Lead
external_id: Heap_Id__c
properties: {Company: company, Title: title, Phone: phone}
read_back: {table: crm/leads, key: Heap_Id__c, changed_at: changed_at}
conflicts: {Title: theirs, Phone: newest}
"""
)
_SOURCE = (
    _ACCOUNT
    + """objects: {Lead: [Heap_Id__c, Company, Title, Phone]}
tables: {leads: {relation: salesforce.Lead, key: Id, updated_at: SystemModstamp}}
"""
)
SCHEMA = {
    "id": pl.String,
    "company": pl.String,
    "title": pl.String,
    "phone": pl.String,
    "changed_at": pl.Datetime("us", "UTC"),
}
NOW = datetime.now(UTC)
BEFORE, AFTER = NOW - timedelta(hours=5), NOW + timedelta(hours=5)


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip().splitlines())


class Rounds:
    """A deployment that writes records and reads them back, without a difference of days; of leads in Salesforce.

    Our company always counts, their title, and of the phone the newest.
    """

    sync: ClassVar[str] = _SYNC
    source: ClassVar[str] = _SOURCE
    relation, id, changed_at = "salesforce.Lead", "Id", "SystemModstamp"
    company_is_required = True

    def __init__(self, folder: Path, server: Any) -> None:
        self.server, self.folder, self.turn = server, folder, 0
        sources = "sources:\n  crm:\n" + indented(self.source.replace("{url}", server.url))
        self.deployment = kit.Deployment.make(folder, self.sync.replace("{url}", server.url), sources)
        self.observation: Observation | None = None

    def read_back(self) -> None:
        self.turn += 1
        project, path = self.deployment.project, self.folder / f"{self.turn}.parquet"
        began = datetime.now(UTC)
        with refreshed(
            project.warehouse("crm"), self.relation, None,
            key=self.id, updated_at=self.changed_at, previous=self.observation,
        ) as result:  # fmt: skip
            frame = result.frame.collect()
        frame.write_parquet(path)
        self.observation = Observation(pl.scan_parquet(path), began)
        notes = {"observed_at": began.isoformat()}
        project.lake.write("crm/leads", str(kit.DAY), frame, Inputs({"turn": str(self.turn)}), notes=notes)

    def send(self, rows: dict[str, dict[str, Any]]) -> SyncReport:
        self.turn += 1
        self.deployment.write(0, [{"id": key, **values} for key, values in rows.items()], SCHEMA)
        report = self.deployment.send(0, f"r{self.turn}")
        assert report.status is Status.SUCCEEDED, report
        return report

    def lead(self, key: str, **values: Any) -> None:
        """Edit a record there, as people do."""
        [id] = self.server.find("Lead", "Heap_Id__c", key) or [None]
        self.server.edit("Lead", id, Heap_Id__c=key, LastName="N", **values)

    def there(self, key: str) -> tuple[Any, ...]:
        [id] = self.server.find("Lead", "Heap_Id__c", key)
        lead = self.server.table("Lead")[id]
        return lead.get("Company"), lead.get("Title"), lead.get("Phone")


def row(company: str | None, title: str | None, phone: str | None, changed_at: datetime | None) -> dict[str, Any]:
    return {"company": company, "title": title, "phone": phone, "changed_at": changed_at}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SalesforceServer]:
    monkeypatch.setattr(auth, "_tokens", {})
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "client-1")
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "secret-1")
    monkeypatch.setenv(clock.VARIABLE, f"{kit.DAY}T20:00:00+00:00")
    with SalesforceServer() as server:
        yield server
        assert server.violations == []


@pytest.fixture
def rounds(server: SalesforceServer, tmp_path: Path) -> Rounds:
    return Rounds(tmp_path, server)


def test_in_20_rounds_nothing_is_sent_after_the_second_and_both_sides_are_equal_by_the_rule(rounds: Rounds) -> None:
    twenty_rounds(rounds)


def twenty_rounds(rounds: Rounds) -> None:
    for key in "abcdefgh":
        rounds.lead(key, Company="X", Title="T" if key in "abcd" else None, Phone="1" if key in "aceg" else None)
    rounds.read_back()
    rows = {key: row("C", "t", "2", AFTER if key in "ab" else BEFORE) for key in "abcdefgh"}
    assert rounds.send(rows).left == 4 + 3, "their titles, and the phones that are newer than ours"

    # both sides change at the start
    rounds.lead("a", Company="theirs", Title="T2", Phone="3")
    rounds.lead("c", Phone="4")
    rounds.lead("e", Title="T3")
    rounds.lead("f", Phone=None)
    rows |= {
        "a": row("C2", "t2", "5", AFTER),
        "b": row("C", "t", "6", BEFORE),
        "c": row("C", "t2", "7", BEFORE),
        "d": row(None, "t", "2", BEFORE),
        "g": row("C", "t9", "9", AFTER),
    }
    sent = []
    for _ in range(20):
        rounds.read_back()
        sent.append(rounds.send(rows).sent)
    assert sent[0] > 0
    assert sent[2:] == [0] * 18
    assert {key: rounds.there(key) for key in "abcdefgh"} == {
        "a": ("C2", "T2", "5"),
        "b": ("C", "T", "6"),  # they never changed it: ours is what counts, however old
        "c": ("C", "T", "4"),
        "d": ("C" if rounds.company_is_required else None, "T", "2"),
        "e": ("C", "T3", "1"),
        "f": ("C", "t", None),
        "g": ("C", "t", "9"),  # what is there is ours, and not empty
        "h": ("C", "t", "2"),
    }
    writes = [call for call in rounds.server.calls if call.kind == "write"]
    assert len(writes) <= 3


def test_a_value_that_lost_is_sent_once_it_changes_and_one_of_theirs_is_never_emptied(rounds: Rounds) -> None:
    rounds.lead("a", Company="C", Phone="1")
    rounds.read_back()
    rounds.send({"a": row("C", None, "2", BEFORE)})
    assert rounds.there("a") == ("C", None, "1"), "theirs is newer"
    rounds.lead("a", Company="C", Title="unrelated")
    rounds.read_back()
    assert rounds.send({"a": row("C", None, "3", BEFORE)}).sent == 1, "only ours has changed since"
    assert rounds.there("a") == ("C", "unrelated", "3")
    assert rounds.send({"a": row("C", None, "3", BEFORE)}).sent == 0, "not read back yet: what we wrote is there"
    rounds.lead("a", Phone="4")
    rounds.read_back()
    rounds.send({})
    assert rounds.there("a") == ("C", "unrelated", "4"), "the phone that would be emptied is theirs now"


def test_ours_is_written_again_over_theirs_but_not_over_what_the_destination_makes_of_it(rounds: Rounds) -> None:
    rounds.lead("a", Company="X")
    rounds.read_back()
    rows = {"a": row("C", None, None, None)}
    assert rounds.send(rows).sent == 1
    rounds.lead("a", Company="Y")
    rounds.read_back()
    assert rounds.send(rows).sent == 1
    assert rounds.there("a")[0] == "C"
    write = rounds.server.write

    def upper(object: str, id: str | None, values: dict[str, Any], *user: str) -> tuple[str, bool]:
        return write(object, id, {n: v.upper() if n == "Company" else v for n, v in values.items()}, *user)

    rounds.server.write = upper  # type: ignore[method-assign]
    rows = {"a": row("small", None, None, None)}
    sent = []
    for _ in range(4):
        sent.append(rounds.send(rows).sent)
        rounds.read_back()
    assert sent[2:] == [0, 0]


def test_why_says_what_is_left_and_forgetting_a_person_forgets_it(rounds: Rounds) -> None:
    with pytest.raises(MissingInputError, match="crm/leads was never read"):
        rounds.send({"a": row("C", "t", "2", BEFORE)})
    rounds.lead("a", Company="X", Title="T", Phone="1")
    rounds.read_back()
    rounds.send({"a": row("C", "t", "2", BEFORE)})
    facts = {fact.subject: fact.statement for fact in why(rounds.deployment.project, kit.SYNC, "a", kit.DAY)}
    assert facts["left as it is there"] == "Title, Phone"
    store, connector = rounds.deployment.store, rounds.deployment.connector
    assert load_settled(store, connector.ledger_folder())["key"].to_list() == ["a"]
    forget(store, connector.spec(), "a", "r")
    assert not len(load_settled(store, connector.ledger_folder()))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("crm/leads", "crm/lead", r"read_back.table is 'crm/lead', which is no table of a source"),
        (", changed_at: changed_at", "", r"conflicts.Phone is newest: name what says when ours changed"),
        ("Phone: newest", "Fax: newest", r"conflicts: 'Fax' is no property of this sync"),
        ("Phone: newest}", "Phone: newest}\nnulls: {Phone: send}", "a null that is sent would empty Phone there"),
        ("object: Lead", "objects: {Lead: {}, Contact: {}}", "read_back: it is of one object; make a sync of each"),
        ("Title: theirs", "Title: mine", "'ours', 'theirs' or 'newest'"),
    ],
)
def test_mistakes_in_the_settings_are_named(rounds: Rounds, before: str, after: str, message: str) -> None:
    file = rounds.folder / "heap_assets.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after.replace("\n", "\n    ")))
    with pytest.raises(SettingsError, match=message):
        kit.Deployment(file)
