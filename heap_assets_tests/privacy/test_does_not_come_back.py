"""Every way into the lake is tried with the rows of an erased person: they are left out and counted, on each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.activation.engine import auth
from heap_assets.pipelines import erasure, erasure_requests, exports
from heap_assets.pipelines.inbox import folded_day, message_day
from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.pipelines.table import Task
from heap_assets.project import open_project, parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.inbox import Sizes, call_messages, message_frames
from heap_assets.sources.inbox.parts import land_parts
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.tables import inbox_asset
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer
from heap_assets_tests.pipelines.delivery_world import CATALOGUE, DAY, SETTINGS, World, at
from heap_assets_tests.privacy.canary import BOB, CANARIES, CRM, USERS, ZOE, copied, places_of
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, migration, user

INBOX = """
inbox:
  sources:
    web: {kind: tracking, write_keys: ["${HEAP_ASSETS_TEST_WRITE_KEY}"]}
    shop: {kind: webhook, secrets: ["${HEAP_ASSETS_TEST_WRITE_KEY}"], id: order}
  identifiers: {user_id: crm_id, anonymous_id: heap_user_id, previous_id: heap_user_id}
  tables:
    identify: {columns: {email: text}, identifiers: {email: email}}
"""
FILES = """kind: files
    path: ./files
    tables:
      signup: {files: "signup/*", columns: {event_id: id, user_id: uid, time: ts}}
      users: {files: "users/*", columns: {user_id: uid, identity: who}}"""
SALESFORCE = """
sources:
  sf:
    kind: salesforce
    my_domain: "URL"
    client_id: ${SALESFORCE_CLIENT_ID}
    client_secret: ${SALESFORCE_CLIENT_SECRET}
    objects: {Lead: [Email, Company]}
    tables: {leads: {relation: salesforce.Lead, key: Id, identifiers: {Email: email}}}
"""
EXPORT = """
CREATE TABLE {d}.signup (event_id {int}, user_id {int}, session_id {int}, time {time}, plan {text},
    contact_mail {text});
INSERT INTO {d}.signup VALUES (1, {zoe}, 100, TIMESTAMP '2026-11-20 10:00:00', 'canary-plan', NULL),
    (2, 2, 100, TIMESTAMP '2026-11-20 11:00:00', 'pro', 'from {mail}');
CREATE TABLE {d}.users (user_id {int}, identity {text}, joindate {time}, last_modified {time});
INSERT INTO {d}.users VALUES ({zoe}, '{mail}', TIMESTAMP '2026-10-01 00:00:00', TIMESTAMP '2026-10-01 00:00:00'),
    (2, 'bob@x.example', TIMESTAMP '2026-10-01 00:00:00', TIMESTAMP '2026-10-01 00:00:00'),
    (4, NULL, TIMESTAMP '2026-10-01 00:00:00', TIMESTAMP '2026-10-01 00:00:00');
CREATE TABLE {d}.user_migrations (from_user_id {int}, to_user_id {int});
INSERT INTO {d}.user_migrations VALUES (4, {zoe});
CREATE TABLE {d}._sync_info (event_table_name {text}, synced_to_time {time});
INSERT INTO {d}._sync_info VALUES ('signup', TIMESTAMP '2026-11-21 02:00:00')"""
BIGQUERY_TOO = bool(os.environ.get("HEAP_ASSETS_ERASURE_BIGQUERY"))
"""In the long form; the code between a warehouse and the lake is the same as for PostgreSQL."""
POSTGRES = {"int": "bigint", "time": "timestamp", "text": "varchar"}
BIGQUERY = {"int": "INT64", "time": "TIMESTAMP", "text": "STRING"}


@dataclass
class Way:
    """A way in: the lake of the world after the person was erased, with other settings."""

    world: World
    request: pytest.FixtureRequest
    built: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.world.folder

    def project(self, source: str = "kind: folder\n    path: ./bucket", more: str = "") -> Project:
        text = SETTINGS.format(heap="http://127.0.0.1:9") + "  {}\n"
        assert "source: {kind: folder, path: ./bucket}" in text
        text = text.replace("source: {kind: folder, path: ./bucket}", f"source:\n    {source}") + more
        (self.folder / "heap_assets.yaml").write_text(text)
        (self.folder / "heap_catalogue.yaml").write_text(CATALOGUE)
        return open_project(parse_settings(text, self.folder / "heap_assets.yaml"))

    def store(self, project: Project, asset: str, table: Any) -> int:
        """Store a day of a table as its asset does; returns how many rows are noted as erased."""
        written = project.lake.write(asset, str(DAY), table.frame, table.inputs, notes=table.notes)
        assert written
        self.built[asset] = project.lake.scan(asset, str(DAY)).collect()
        return int(table.notes.get("erased", 0))

    def task(self, project: Project) -> Task:
        scratch = self.folder.parent / f"scratch-{uuid4().hex[:6]}"
        scratch.mkdir()
        return Task(project, DAY, scratch, force=True)


def by_a_new_dump(way: Way) -> int:
    rows = [event(900, f"{DAY} 10:00:00", USERS[0], plan="canary-plan"), event(901, f"{DAY} 10:00:00", 2, plan=ZOE)]
    people = [user(USERS[1], identity=ZOE), user(2, identity=BOB)]
    Bucket(way.folder / "bucket").dump(
        9, "2026-11-21T02:30:00", signup=rows, users=people, user_migrations=[migration(5, USERS[0])]
    )
    return landed(way.project())


def by_a_full_resync(way: Way) -> int:
    project = way.project()
    for table in ("signup", "users", "user_migrations"):
        project.landing.reset(table)
    return landed(project)


def by_files(way: Way) -> int:
    for name, rows in {
        "signup/a.jsonl": [{"id": 1, "uid": USERS[0], "ts": f"{DAY} 10:00"}, {"id": 2, "uid": 2, "ts": f"{DAY} 11:00"}],
        "users/a.jsonl": [{"uid": USERS[0], "who": ZOE}, {"uid": 2, "who": BOB}],
    }.items():
        path = way.folder / "files" / name
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(map(json.dumps, rows)))
    return landed(way.project(FILES))


def landed(project: Project) -> int:
    source = project.source()
    reports = [project.landing.land(source, dump) for dump in project.landing.pending(source)]
    assert reports
    return sum(table.counts.erased for report in reports for table in report.landed)


def by_heap_in_postgres(way: Way) -> int:
    uri, dataset = way.request.getfixturevalue("postgres"), f"h{uuid4().hex[:6]}"
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {dataset}")
        for statement in EXPORT.format(d=dataset, zoe=USERS[0], mail=ZOE, **POSTGRES).split(";\n"):
            cursor.execute(statement)
    source = f"kind: warehouse\n    source: pg\n    dataset: {dataset}"
    return exported(way, way.project(source, f"\nsources:\n  pg: {{kind: postgres, dsn: '{uri}', tables: {{}}}}\n"))


def by_heap_in_bigquery(way: Way) -> int:
    emulator, dataset = way.request.getfixturevalue("bigquery_emulator"), f"h{uuid4().hex[:6]}"
    with BigQueryAccount("demo", endpoint=emulator.rest).client() as client:
        client.create_dataset(dataset)
        for statement in EXPORT.format(d=dataset, zoe=USERS[0], mail=ZOE, **BIGQUERY).split(";\n"):
            client.query(statement).result()
        source = f"kind: bigquery\n    project: demo\n    dataset: {dataset}\n    endpoint: '{emulator.rest}'"
        erased = exported(way, way.project(f"{source}\n    storage_endpoint: '{emulator.grpc}'"))
        client.delete_dataset(dataset, delete_contents=True)
    return erased


def exported(way: Way, project: Project) -> int:
    exports.changed_days(project, DAY)
    tables = {
        "heap/events/signup": exports.event_day(way.task(project), "signup"),
        "heap/users": exports.users_of_day(way.task(project)),
        "heap/user_migrations": exports.migrations_of_day(way.task(project)),
    }
    counts = {asset: way.store(project, asset, table) for asset, table in tables.items()}
    assert counts == {"heap/events/signup": 1, "heap/users": 1, "heap/user_migrations": 1}
    assert way.built["heap/users"].select("user_id", "migrated_to").rows() == [(2, None), (4, None)]
    return sum(counts.values())


def by_a_row_of_the_warehouse(way: Way) -> int:
    rows = way.world.lake.scan("warehouse/contacts", str(DAY)).collect()
    zoe = rows.head(1).with_columns(contact_id=pl.lit(CRM), email=pl.lit(ZOE), visitor=pl.lit(str(USERS[1])))
    with duckdb.connect(str(way.folder / "warehouse.duckdb")) as connection:
        connection.execute("create schema crm")
        connection.register("rows", pl.concat([rows, zoe]).to_arrow())
        connection.execute("create table crm.contacts as select * from rows")
    assert way.world.choose("{}").run(["warehouse/contacts"], DAY).success
    return noted(way, "warehouse/contacts")


def by_what_is_read_back_of_a_destination(way: Way) -> int:
    patch = way.request.getfixturevalue("monkeypatch")
    patch.setattr(auth, "_tokens", {})
    with SalesforceServer() as server:
        for mail in (ZOE.title(), BOB):
            server.edit("Lead", None, Email=mail, LastName="N", Company="C")
        way.world.more = SALESFORCE.replace("URL", server.url)
        assert way.world.choose("{}").run(["sf/leads"], DAY).success
    return noted(way, "sf/leads")


def noted(way: Way, asset: str) -> int:
    partition = way.world.lake.find(asset, str(DAY))
    assert partition is not None
    return int(partition.notes["erased"])


def messages() -> Iterator[dict[str, Any]]:
    common = {"timestamp": at(DAY, 9).isoformat()}
    yield {"type": "identify", "messageId": "m1", "userId": CRM, "traits": {"email": ZOE, "p": "canary-plan"}, **common}
    yield {"type": "track", "messageId": "m2", "userId": CRM, "event": "Paid", "properties": {}, **common}
    yield {"type": "track", "messageId": "m3", "anonymousId": str(USERS[0]), "event": "Paid", **common}
    yield {"type": "group", "messageId": "m4", "userId": CRM, "groupId": "acme", **common}
    yield {"type": "alias", "messageId": "m5", "userId": CRM, "previousId": str(USERS[1]), **common}
    yield {"type": "page", "messageId": "m6", "userId": "c-bob", "properties": {"url": f"/?m={ZOE.upper()}"}, **common}
    yield {"type": "identify", "messageId": "m7", "userId": "c-bob", "traits": {"email": BOB}, **common}
    yield {"type": "track", "messageId": "m8", "userId": "c-bob", "event": "Paid", "properties": {}, **common}


def by_messages_that_are_built(way: Way) -> int:
    project = way.project(more=INBOX)
    land_parts(project.lake.store, "s-built", [record()])
    assert ZOE in places_of(way.folder / "lake" / "_inbox", ZOE), "what was posted is there as it came"
    counts = {
        name: way.store(project, inbox_asset(name), message_day(way.task(project), inbox_asset(name)))
        for name in ("identify", "track", "group", "alias", "page")
    }
    assert counts == {"identify": 1, "track": 2, "group": 1, "alias": 1, "page": 0}
    way.store(project, "inbox/users", folded_day(way.task(project), "inbox/users"))
    assert places_of(way.folder / "lake" / "inbox", *CANARIES) == {}
    assert way.built["inbox/users"]["user_id"].to_list() == ["c-bob"]
    assert erasure_requests.sweep(project) > 0, "the next run of the job takes them out of what was posted"
    assert message_day(way.task(project), "inbox/track").frame.collect()["message_id"].to_list() == ["m8"]
    return sum(counts.values())


def by_messages_that_are_followed(way: Way) -> int:
    """As they come, and those that landed before the base was loaded."""
    project = way.project(more=INBOX)
    before = LiveProfiles(project).profiles
    came = message_frames([record()])
    counted = 0
    for backlog in (False, True):
        if backlog:
            land_parts(project.lake.store, "s-live", [record()])
        live = LiveProfiles(project)
        changed = live.apply(live.backlog if backlog else {inbox_asset(name): rows for name, rows in came.items()})
        assert changed is not None, "those of others are followed"
        texts = [frame.write_ndjson() for frame in (live.profiles, changed.now, changed.graph, *live.posted().values())]
        assert not [one for one in CANARIES for text in texts if one in text.lower()]
        counted += before.height - live.profiles.height + 1
    erasure_requests.sweep(project)
    return counted


def record() -> dict[str, Any]:
    batch = [*messages(), {"type": "track", "messageId": "m9", "userId": CRM, "properties": {"mail": ZOE}}]
    taken = call_messages({"batch": batch}, "batch", at(DAY, 10), Sizes(), 100)
    assert "fault" in taken[-1], "it is set aside, as it came"
    return {"source": "web", "received_at": at(DAY, 10).isoformat(), "messages": json.loads(json.dumps(taken))}


WAYS = {
    name.removeprefix("by_"): way
    for name, way in list(globals().items())
    if name.startswith("by_") and callable(way) and (BIGQUERY_TOO or way is not by_heap_in_bigquery)
}


@pytest.mark.parametrize("name", WAYS)
def test_an_erased_person_does_not_come_back(
    name: str,
    canary_base: World,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", "wk-comes-back-5591")
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "client-1")
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "secret-1")
    world = copied(canary_base, tmp_path / "world")
    asked = erasure.request_erasure(world.project, [("email", ZOE)])
    erasure.confirm(world.project, asked.id, "dpo")
    assert erasure.run(world.project, "run").requests == {asked.id: "complete"}
    way = Way(world, request)
    assert WAYS[name](way) >= 1
    assert places_of(world.folder / "lake", *CANARIES) == {}
