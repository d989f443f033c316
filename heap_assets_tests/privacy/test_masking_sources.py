"""Rules of masking on every way into the lake: dumps, files, warehouses, Heap's export, messages; one pseudonym."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import duckdb
import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets import clock
from heap_assets.errors import SourceError
from heap_assets.pipelines import erasure, exports
from heap_assets.pipelines.heap_tables import event_day, migrations_of_day, users_of_day
from heap_assets.pipelines.people import resolved_tables
from heap_assets.pipelines.readiness import identity_inputs
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.table import MASKED, Table, Task
from heap_assets.privacy import Masker, MaskRule
from heap_assets.project import Project, open_project, parse_settings
from heap_assets.tables import GRAPH
from heap_assets_tests.live.service_process import WEB_KEY, landed, opened, serving, write_settings
from heap_assets_tests.privacy.canary import places_of
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, land_all, migration, user

DAY = date(2026, 11, 20)
NOW = "2026-11-21T03:00:00+00:00"
ANN = "Ann.Canary@x.example"
CANARIES = ("ann.canary", "hunter2", "+49 151 5550123", "4111 1111 1111 1111", "m-canary-1")
RULES = """
privacy:
  rules:
    - {action: hash, columns: [identity, email, user_id, member]}
    - {action: drop, columns: ["*password*"]}
    - {action: mask, kinds: [email, phone, card_number]}
"""
SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap:
  app_id: "11"
  source: SOURCE
  identifiers: {users: {user_id: heap_user_id, identity: [heap_identity, email]}}
warehouse:
  kind: duckdb
  path: ./w.duckdb
  tables:
    contacts:
      {relation: crm.contacts, key: contact_id, updated_at: updated_at, identifiers: {email: email}}
identity: {identifiers: [{type: heap_identity}, {type: email, normalise: email}, {type: heap_user_id}]}
"""
FOLDER = "{kind: folder, path: ./bucket}"
EXPORT = "{kind: warehouse, source: warehouse, dataset: heap}"


@pytest.fixture(autouse=True)
def at_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, NOW)


def project_of(folder: Path, source: str = FOLDER, rules: str = RULES) -> Project:
    (folder / "heap_catalogue.yaml").write_text(
        "signup: {display_name: Signed up, columns: {note: {description: x, pii: false}, "
        "member: {description: x, pii: false}, password: {description: x, pii: false}}}\n"
    )
    file, text = folder / "heap_assets.yaml", SETTINGS.replace("SOURCE", source) + rules
    file.write_text(text)
    return open_project(parse_settings(text, file))


def warehouse(folder: Path, *statements: str) -> None:
    with duckdb.connect(str(folder / "w.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


CONTACTS = (
    "CREATE SCHEMA crm",
    "CREATE TABLE crm.contacts (contact_id VARCHAR, email VARCHAR, phone VARCHAR, note VARCHAR, password VARCHAR, "
    "member BIGINT, updated_at TIMESTAMPTZ)",
    f"INSERT INTO crm.contacts VALUES ('c-1', ' {ANN.upper()}', '+49 151 5550123', 'paid 4111 1111 1111 1111', "
    "'hunter2', 77, '2026-11-19 10:00:00Z')",
    "INSERT INTO crm.contacts VALUES ('c-2', 'bob@x.example', NULL, 'hello', NULL, NULL, '2026-11-18 10:00:00Z')",
)


def stored(project: Project, asset: str, table: Table | None) -> pl.DataFrame:
    assert table is not None
    project.lake.write(asset, str(DAY), table.frame, table.inputs, notes=table.notes)
    return project.lake.scan(asset, str(DAY)).collect()


def contacts_of(project: Project, folder: Path, *, force: bool = False) -> tuple[pl.DataFrame, Table]:
    scratch = folder / f"scratch-{len(list(folder.glob('scratch-*')))}"
    scratch.mkdir()
    table = snapshot_of_day(Task(project, DAY, scratch, force), "contacts")
    assert table is not None
    return stored(project, "warehouse/contacts", table), table


def test_a_person_has_one_pseudonym_in_dumps_and_warehouse_and_nothing_else_of_them_is_kept(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    bucket = Bucket(tmp_path / "bucket")
    rows = [event(1, f"{DAY} 10:00:00", 5, note=f"mail {ANN}", member="m-canary-1", password="hunter2")]
    people = [user(5, "2026-11-20 00:00:00", identity=ANN.lower())]
    people += [user(id, "2026-11-20 00:00:00", identity="n/a") for id in (6, 7)]
    bucket.dump(1, "2026-11-21T02:00:00", signup=rows, users=people, user_migrations=[migration(8, 5)])
    land_all(project.landing, bucket)
    nobody = "INSERT INTO crm.contacts (contact_id, email) VALUES ('c-3', 'n/a'), ('c-4', 'N/A ')"
    warehouse(tmp_path, *CONTACTS, nobody)
    contacts, table = contacts_of(project, tmp_path)
    assert table.notes[MASKED] == 8
    users = stored(project, "heap/users", users_of_day(Task(project, DAY, tmp_path)))
    signup = stored(project, "heap/events/signup", event_day(Task(project, DAY, tmp_path), "signup"))
    ann = contacts.filter(contact_id="c-1").to_dicts()[0]
    assert ann["email"] == users.filter(user_id=5)["identity"].item(), "however it is spelled"
    assert ann["email"].startswith("user_")
    assert (ann["phone"], ann["note"], ann["password"]) == ("[phone]", "paid [card_number]", None)
    assert ann["member"].startswith("user_")
    assert signup.select("note", "password").row(0) == ("mail [email]", None)
    assert contacts.filter(contact_id="c-2")["note"].item() == "hello"
    stored(project, "heap/user_migrations", migrations_of_day(Task(project, DAY, tmp_path)))
    graph = resolved_tables(project, identity_inputs(project, DAY))[GRAPH].frame.collect()
    [profile] = graph.filter(identifier=ann["email"])["profile_id"].unique()
    assert set(graph.filter(profile_id=profile)["identifier_type"]) == {"heap_identity", "email", "heap_user_id"}
    assert set(graph.filter(profile_id=profile)["identifier"]) == {ann["email"], "5", "8"}
    assert users.filter(pl.col("user_id") > 5)["identity"].to_list() == [None, None], "n/a is nobody, hashed too"
    assert contacts.filter(pl.col("contact_id") > "c-2")["email"].to_list() == [None, None]
    assert places_of(tmp_path / "lake", *CANARIES) == {}
    project.lake.write(GRAPH, str(DAY), graph)
    request = erasure.request_erasure(project, [("email", f" {ANN.upper()}")])
    erasure.confirm(project, request.id, "dpo")
    assert erasure.run(project, "run").requests == {request.id: "complete"}
    assert places_of(tmp_path / "lake", ann["email"], ANN) == {}
    again, _ = contacts_of(project, tmp_path, force=True)
    assert "c-1" not in again["contact_id"].to_list()
    assert "c-2" in again["contact_id"].to_list()


def test_rows_that_are_merged_with_masked_ones_stay_as_they_are(tmp_path: Path) -> None:
    project = project_of(
        tmp_path, rules=RULES.replace(", member", "")
    )  # a number would be text there, and is read whole
    warehouse(tmp_path, *CONTACTS)
    before, _ = contacts_of(project, tmp_path)
    warehouse(
        tmp_path,
        "UPDATE crm.contacts SET note = 'call +49 151 5550123 or cat@x.example', updated_at = '2026-11-20 09:00:00Z' "
        "WHERE contact_id = 'c-2'",
    )
    after, table = contacts_of(project, tmp_path)
    assert table.notes["read"] == "changes", table.notes["why"]
    assert after.filter(contact_id="c-1").equals(before.filter(contact_id="c-1"))
    assert after.filter(contact_id="c-2")["note"].item() == "call +49 151 5550123 or [email]", (
        "no value is a phone whole"
    )
    assert after.filter(contact_id="c-2")["email"].item() == before.filter(contact_id="c-2")["email"].item()


def test_a_new_rule_is_about_a_table_that_has_not_changed_too(tmp_path: Path) -> None:
    warehouse(tmp_path, *CONTACTS)
    plain, _ = contacts_of(project_of(tmp_path, rules=""), tmp_path)
    assert plain["password"].to_list() == ["hunter2", None]
    project = project_of(tmp_path)
    masked, table = contacts_of(project, tmp_path)
    assert (table.notes["read"], masked["password"].to_list()) == ("unchanged", [None, None])
    again, table = contacts_of(project, tmp_path)
    assert again.equals(masked)
    assert MASKED not in table.notes
    assert places_of(tmp_path / "lake", *CANARIES) == {}


def test_columns_that_identify_people_are_touched_by_their_name_alone(tmp_path: Path) -> None:
    warehouse(tmp_path, *CONTACTS)
    rules = "privacy: {rules: [{action: mask, kinds: [email]}, {action: drop, columns: ['*']}]}\n"
    contacts, _ = contacts_of(project_of(tmp_path, rules=rules), tmp_path)
    assert contacts["email"].to_list() == [f" {ANN.upper()}", "bob@x.example"]
    assert contacts["updated_at"].null_count() == contacts["contact_id"].null_count() == 0
    assert contacts["note"].null_count() == 2
    refused = "privacy: {rules: [{action: fail, columns: [password], tables: [contacts]}]}\n"
    with pytest.raises(
        SourceError, match=r"privacy.rules\[0\] refuses warehouse/contacts: 1 values of its column pass"
    ):
        contacts_of(project_of(tmp_path, rules=refused), tmp_path, force=True)


def test_heaps_export_in_a_warehouse_is_masked_as_it_is_read(tmp_path: Path) -> None:
    warehouse(
        tmp_path,
        *CONTACTS,
        "CREATE SCHEMA heap",
        "CREATE TABLE heap.signup AS SELECT 1::BIGINT AS event_id, 5::BIGINT AS user_id, 1::BIGINT AS session_id, "
        f"TIMESTAMP '{DAY} 10:00:00' AS time, 'mail {ANN}' AS note, 'm-canary-1' AS member, 'hunter2' AS password",
        f"CREATE TABLE heap.users AS SELECT 5::BIGINT AS user_id, '{ANN}' AS identity, NULL::VARCHAR AS handle, "
        f"NULL::VARCHAR AS email, TIMESTAMP '{DAY} 00:00:00' AS joindate, TIMESTAMP '{DAY} 00:00:00' AS last_modified",
        "CREATE TABLE heap.user_migrations AS SELECT 1::BIGINT AS from_user_id, 5::BIGINT AS to_user_id, "
        f"TIMESTAMP '{DAY} 00:00:00' AS time",
    )
    project = project_of(tmp_path, EXPORT)
    exports.changed_days(project)
    rows = stored(project, "heap/events/signup", event_day(Task(project, DAY, tmp_path), "signup"))
    assert rows.select("note", "password").row(0) == ("mail [email]", None)
    users = stored(project, "heap/users", users_of_day(Task(project, DAY, tmp_path)))
    contacts, _ = contacts_of(project, tmp_path)
    assert users["identity"].item() == contacts.filter(contact_id="c-1")["email"].item()
    assert places_of(tmp_path / "lake", *CANARIES) == {}


def test_files_of_others_are_masked_as_dumps_are(tmp_path: Path) -> None:
    row = {"event_id": 1, "user_id": 5, "time": f"{DAY}T10:00:00Z", "note": f"mail {ANN}", "password": "hunter2"}
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "1.jsonl").write_text(json.dumps(row))
    project = project_of(tmp_path, '{kind: files, path: ./exports, tables: {signup: {files: "*"}}}')
    for dump in project.landing.pending(project.source()):
        project.landing.land(project.source(), dump)
    rows = stored(project, "heap/events/signup", event_day(Task(project, DAY, tmp_path), "signup"))
    assert rows.select("note", "password").row(0) == ("mail [email]", None)
    assert places_of(tmp_path / "lake", *CANARIES) == {}


def test_messages_are_masked_before_they_are_on_disk(tmp_path: Path) -> None:
    more = RULES + "    - {action: fail, columns: [forbidden], tables: [inbox/track]}\n"
    file = write_settings(tmp_path, inbox="  roll_seconds: 0.2", more=more)
    call = {
        "type": "track", "userId": ANN, "event": "Paid", "messageId": "m1", "timestamp": "2026-11-20T10:00:00Z",
        "properties": {"card": "4111 1111 1111 1111", "name": "Paid", "password": "hunter2", "n": 3, "list": [ANN]},
    }  # fmt: skip
    refused = {**call, "messageId": "m2", "properties": {"forbidden": "m-canary-1"}}
    with serving(file) as service, httpx.Client(base_url=service.address, auth=(WEB_KEY, "")) as web:
        answer = web.post("/v1/batch", json={"batch": [call, refused]})
        assert answer.json().get("rejected", answer.text) == ["privacy.rules[3] refuses it"]
    project = opened(file)
    [message] = landed(project, "track").to_dicts()
    assert message["user_id"].startswith("user_")
    assert message["event"] == "Paid"
    assert (
        '"properties":{"card":"[card_number]","name":"Paid","password":null,"n":3,"list":["[email]"]}'
        in message["body"]
    )
    assert f'"userId":"{message["user_id"]}"' in message["body"]
    assert [row["reason"] for row in landed(project, "refused").to_dicts()] == ["privacy.rules[3] refuses it"]
    assert places_of(tmp_path, *CANARIES) == {}


RULES_OF_COLUMN = st.sampled_from(
    [MaskRule(action, columns=("c",)) for action in ("drop", "mask", "hash")]
    + [MaskRule(action, kinds=("email", "phone", "card_number")) for action in ("drop", "mask", "hash")]
)
VALUES = st.one_of(
    st.text(), st.sampled_from([ANN, "call +49 151 5550123", "+49 151 5550123", "[masked]", "4111 1111 1111 1111"]),
    st.integers(-5, 5), st.booleans(),
)  # fmt: skip


@given(st.lists(RULES_OF_COLUMN, max_size=3), VALUES)
def test_a_value_of_a_message_becomes_what_a_cell_of_a_table_does(
    rules: list[MaskRule], value: str | int
) -> None:  # fmt: skip
    masker = Masker(rules, b"0" * 32, ["t"])
    cell = masker.applied(pl.DataFrame({"c": [value]})).rows["c"]
    assert masker.value("c", value)[0] == cell[0]
    again = Masker(rules, b"0" * 32, ["t"]).applied(cell.to_frame())
    assert again.rows["c"].equals(cell), "applied again, rules change nothing"
