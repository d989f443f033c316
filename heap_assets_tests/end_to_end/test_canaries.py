"""Secrets and personal values planted everywhere, servers that answer with all they got: none of it is kept or shown.

Secrets must be nowhere at all; values only in data tables: those of the lake, and what docs/production.md names.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import duckdb
import fastavro
import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_deletion import HeapDeletion
from heap_assets.alerts import configured_channels
from heap_assets.alerts.outbox import Outbox
from heap_assets.cli.main import _group
from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.orchestration.run_alarms import finished_messages
from heap_assets.pipelines import delivery
from heap_assets.pipelines.publishing import open_publisher, publish_day, published_tables
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.quality import result_store
from heap_assets.redaction import redact_error
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets_tests.hostile_server import Answering, Hostile, hostile_server
from heap_assets_tests.pipelines.delivery_world import (
    CATALOGUE,
    DAY,
    NOW,
    SETTINGS,
    World,
    at,
    contacts,
    orders,
    users,
    why,
)
from heap_assets_tests.sources.warehouse import servers

SECRETS = {
    "HEAP_APP_ID": "8675309001",
    "SEGMENT_KEY": "wkCANARY/segment+0001",
    "HOOK_URL": "{server}/in/pathCANARY0002?token=queryCANARY0003",
    "HOOK_SECRET": 'hookCANARY"0004',
    "HOOK_HEADER": "headerCANARY0005",
    "DELETION_KEY": "deletionCANARY0006",
    "SLACK_URL": "{server}/services/T0CANARY/B0CANARY/slackCANARY0007",
    "ALERT_SECRET": "alertCANARY0008",
    "BI_DSN": "postgresql://canary:pg%2FCANARY0009@{postgres}/postgres",
    "DEAD_DSN": "host=127.0.0.1 port=1 user=x password='dead CANARY0010'",
    "BIGQUERY_KEY": json.dumps(
        {"type": "service_account", "private_key": "pkCANARY0011\n2", "private_key_id": "idCANARY0012"}
    ),
}
SECRET = [
    "8675309001",
    "wkCANARY/segment+0001",
    "pathCANARY0002",
    "queryCANARY0003",
    'hookCANARY"0004',
    "headerCANARY0005",
]
SECRET += [
    "deletionCANARY0006",
    "slackCANARY0007",
    "alertCANARY0008",
    "pg/CANARY0009",
    "dead CANARY0010",
    "pkCANARY0011\n2",
]
SECRET += ["idCANARY0012"]
PEOPLE = {"ann": "ann.canary@x.example", "bob": "bob.canary@x.example", "cat": "cat.canary@x.example"}
PLAN, PHONE, ADDRESS = "planCANARYvalue", "+49 151 55501234", "203.0.113.77"
VALUES = [*PEOPLE.values(), PLAN, PHONE, ADDRESS, "ticketCANARY"]
SYNCS = """
  heap_user_properties: {properties: {Plan: plan, Phone: phone}, limit_share: 1.0}
  heap_account_properties:
    {source: accounts, account_id_configured: true, properties: {Size: size}}
  heap_events: {source: orders, event_name: Ordered, since: beginning, properties: {Ticket: ticket}}
  segment_identify: {write_key: "${SEGMENT_KEY}", url: "{server}", properties: {plan: plan, phone: phone}}
  segment_track: {write_key: "${SEGMENT_KEY}", url: "{server}", columns: ["*"], since: beginning}
  segment_reidentify: {write_key: "${SEGMENT_KEY}", url: "{server}"}
  segment_group:
    {write_key: "${SEGMENT_KEY}", url: "{server}", source: accounts, member_trait: account, properties: {size: size}}
  webhook:
    {url: "${HOOK_URL}", secret: "${HOOK_SECRET}", headers: {X-Api-Key: "${HOOK_HEADER}"},
     properties: {plan: plan, phone: phone}}
publish:
  bi: {kind: postgres, dsn: "${BI_DSN}", schema: canary, assets: [heap/users, warehouse/contacts], resolved_views: null}
  dead: {kind: postgres, dsn: "${DEAD_DSN}", assets: [heap/users], resolved_views: null}
  bq:
    {kind: bigquery, project: p, dataset: d, endpoint: "{server}", credentials: "${BIGQUERY_KEY}", assets: [heap/users]}
alerts:
  - {kind: webhook, url: "{server}/alerts", secret_env: ALERT_SECRET}
  - {kind: slack, url_env: SLACK_URL}
"""
WHOLE = "HEAP_ASSETS_LONG" in os.environ
STATUSES = ["400 Bad", "422 Bad", *(["403 No", "500 Down"] if WHOLE else [])]


def _echo(status: str) -> Answering:
    """Answer with every byte of the request, as text and encoded, and name every row with all of it as the reason."""

    def answer(connection: object, request: bytes, over: object) -> None:
        head = request.partition(b"\r\n\r\n")[0]
        text = request.decode("latin-1")
        credentials = re.findall(rb"(?i)authorization: \S+ (\S+)", head)
        decoded = [base64.b64decode(c + b"==").decode("latin-1") for c in credentials if b"." not in c]
        told = " ".join([text, *decoded, quote(text), base64.b64encode(request).decode()])
        said = {"error": {"message": told, "errors": [{"reason": "x", "message": told}]}, "message": told}
        if status == "422 Bad":
            said |= {"errors": [{"index": n, "message": told} for n in range(2)]}
        data = json.dumps(said).encode()
        headers = ["Content-Type: application/json", f"X-Echo: {text[:40]!r}", f"Content-Length: {len(data)}"]
        answered = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + data
        connection.sendall(answered)  # type: ignore[attr-defined]

    return answer


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    try:
        with servers.postgres_cluster() as address:
            yield address
    except servers.UnavailableError:
        pytest.skip("PostgreSQL is not installed (initdb not found): canaries were NOT looked for")


def _base(folder: Path) -> World:
    """Three people, an order each, all of it made of canaries."""
    world = World(folder, "{}")
    people = users().with_columns(pl.col("identity", "email").replace({f"{k}@x.example": v for k, v in PEOPLE.items()}))
    crm = contacts(PLAN).with_columns(
        email=pl.col("email").replace({f"{k}@x.example": v for k, v in PEOPLE.items()}),
        phone=pl.lit(PHONE),
        ip=pl.lit(ADDRESS),
    )
    bought = orders(*((f"o-{name}", mail, at(DAY)) for name, mail in PEOPLE.items()))
    bought = bought.with_columns(ticket=pl.lit("ticketCANARY"))
    world.write_day(DAY, people, contacts=crm, orders=bought)
    text = SETTINGS.replace("account: {{from", "phone: {{from: [contacts.phone]}}\n    account: {{from")
    _choose(world, text.format(heap="http://127.0.0.1:9") + "  {}\n")
    world.resolve(DAY)
    return world


def _choose(world: World, text: str) -> None:
    path = world.folder / "heap_assets.yaml"
    path.write_text(text)
    (world.folder / "heap_catalogue.yaml").write_text(CATALOGUE)
    settings = parse_settings(text, path)
    world.project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url))
    world._job = None


def _forms(canary: str) -> set[bytes]:
    raw = canary.encode()
    found = {canary, quote(canary), quote(canary, safe=""), json.dumps(canary)[1:-1], raw.hex()}
    for offset in range(3):  # what a base64 text keeps of it, whatever stands around
        coded = base64.b64encode(bytes(offset) + raw).decode()
        found.add(coded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6])
    return {form.encode() for form in found}


def _texts(folder: Path) -> Iterator[tuple[str, bytes, bool]]:
    """Yield name, content and whether it is a data table, of all files; Parquet is opened, or nothing would be seen."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        data = path.read_bytes()
        is_data = name.startswith("lake/") and not name.startswith("lake/_")
        # records of landing name the files that they are of, whatever those are called
        is_data |= name.startswith("lake/_landing/")
        is_data |= name.startswith(("lake/_identity/", "lake/_exports/")) and not name.endswith(".json")
        if data[:4] == b"PAR1":
            frame = pl.read_parquet(io.BytesIO(data))
            keyed = name.startswith("lake/_sync/") and ("/log/" in name or name.endswith("ledger.parquet"))
            if keyed and "key" in frame.columns:  # keys stand there by design; nothing else does
                yield f"{name} (keys)", frame["key"].cast(pl.String).to_frame().write_ndjson().encode(), True
                frame = frame.drop("key")
            # bytes as hexadecimal digits, which are among the forms that are sought
            data = frame.with_columns(pl.selectors.binary().bin.encode("hex")).write_json().encode()
        yield name, data, is_data


def _hits(texts: Iterator[tuple[str, bytes, bool]]) -> list[str]:
    secrets, values = ({c: _forms(c) for c in group} for group in (SECRET, VALUES))
    found = []
    for name, data, is_data in texts:
        sought = secrets if is_data else {**secrets, **values}
        found += [
            f"{name}: {canary}: …{_around(data, form)!r}…"
            for canary, forms in sought.items()
            for form in forms
            if form in data
        ]
    return found


def _around(data: bytes, form: bytes) -> bytes:
    at = data.index(form)
    return data[max(0, at - 80) : at + len(form) + 20]


def test_canaries_are_nowhere_but_in_data_tables(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(clock.VARIABLE, NOW)
    with hostile_server() as server:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value.replace("{server}", server.url).replace("{postgres}", postgres))
        _plant_in_postgres(postgres)
        world = _base(tmp_path / "world")
        home = tmp_path / "world" / "dagster_home"
        home.mkdir()
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            world.instance = instance
            text = SETTINGS.replace('app_id: "11"', 'app_id: "${{HEAP_APP_ID}}"\n  deletion_key: "${{DELETION_KEY}}"')
            text = text.replace("account: {{from", "phone: {{from: [contacts.phone]}}\n    account: {{from")
            _choose(world, text.format(heap=server.url) + SYNCS.replace("{server}", server.url))
            said = _fail_everything(world, server)
            said += _land_and_read(world)
            said += _commands(world)
        said += "".join(capfd.readouterr())
        sent = b"".join(server.requests)
    # the servers did get what they must not pass on
    assert all(
        any(form in sent for form in _forms(c)) for c in ("8675309001", "headerCANARY0005", "pathCANARY0002", PLAN)
    )
    for given in ("heap_assets.yaml", "warehouse.duckdb", "bucket"):  # what was read, not written
        (tmp_path / "world" / given).rename(tmp_path / given)
    assert _hits(iter([("what was shown", said.encode(), False)])) == []
    assert _hits(_texts(tmp_path / "world")) == []
    names = {name for name, _, _ in _texts(tmp_path / "world")}
    assert any("/changelog/" in name for name in names)
    assert any("_alerts/outbox" in name for name in names)


def _fail_everything(world: World, server: Hostile) -> str:
    """Run every sync, publication, alert and command against a server that echoes; returns what commands said."""
    project, told = world.project, []
    syncs = list(project.settings.sync) if WHOLE else ["heap_user_properties", "segment_track", "webhook"]
    for status in STATUSES:
        server.refuse(_echo(status))
        monkey = [
            name
            for name in syncs
            if status == "400 Bad" or name in ("webhook", "segment_identify", "heap_user_properties")
        ]
        for name in monkey:
            world.run([f"sync/{name}"], DAY)
            delivery.plan(project, name, DAY)
    server.refuse(_echo("403 No"))
    [table] = published_tables(project, "dead")
    with pytest.raises(HeapAssetsError) as away:  # at once: a run would try again for minutes
        publish_day(project, open_publisher(project, "dead"), table, DAY)
    told.append(str(away.value))
    for target in ("bi", "bq"):
        tables = [f"publish/{target}/heap_users"] + (["publish/bi/warehouse_contacts"] if target == "bi" else [])
        for table in tables:
            result = world.run([table], DAY)
            assert not result.success, table
    _alert(world, server)
    with pytest.raises(HeapAssetsError) as refused:
        HeapDeletion(HeapApp("8675309001", base_url=server.url), "deletionCANARY0006").delete([PEOPLE["ann"]])
    told.append(str(refused.value))
    for command in (["sync", "rejected"], ["sync", "runs"], ["sync", "plan"]):
        for name in ("webhook", "heap_user_properties"):
            answer = CliRunner().invoke(
                _group, [*command, name], env={"HEAP_ASSETS_SETTINGS": str(world.folder / "heap_assets.yaml")}
            )
            told.append(answer.output + str(answer.exception or ""))
    return "\n".join(told)


def _land_and_read(world: World) -> str:
    """Land dumps whose files, names and manifests are wrong in ways that libraries quote; read tables that fail."""
    _plant_in_dumps(world.folder / "bucket")
    _plant_in_warehouse(world.folder / "warehouse.duckdb")
    told = []
    project = replace(world.project)
    for manifest in project.landing.pending(project.source()):
        world.instance.add_dynamic_partitions(str(DUMPS.name), [str(manifest.dump_id)])
        landing = _of(world, "heap_connect/dumps")
        done = landing.execute_in_process(
            instance=world.instance, raise_on_error=False, partition_key=str(manifest.dump_id)
        )
        told.append(why(done))
    # opened anew: records that others wrote are read again after two seconds
    reports = replace(world.project).landing.reports()
    assert reports["error"].count() >= 3, "the cut file and both manifests"
    for table in ("contacts", "orders", "accounts"):
        told.append(why(world.run([f"warehouse/{table}"], DAY)))
        judged = result_store.read(world.lake.store, f"warehouse/{table}", "readable", str(DAY))
        assert judged is not None
        assert judged.failed, f"{table} was to be unreadable"
    world.run(["heap/events/signup", "heap/pageviews", "heap/users"], DAY)
    report = _of(world, "status/report").execute_in_process(instance=world.instance, raise_on_error=False)
    told.append(why(report))
    return "\n".join(told)


def _of(world: World, asset: str) -> dg.JobDefinition:
    job = build_definitions(replace(world.project)).resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection={asset_key(asset)})


def _plant_in_dumps(bucket: Path) -> None:
    names = ["event_id", "user_id", "session_id", "time"]
    values = {"event_id": 1, "user_id": 1, "session_id": 1, "time": f"{DAY} 10:00:00"}
    told = {"plan": PLAN, "phone": PHONE, "mail": PEOPLE["ann"], "ip": ADDRESS}
    for number, (kinds, wrong) in enumerate(_BAD_COLUMNS.values(), start=1):
        fields = [{"name": name, "type": kinds.get(name, "string")} for name in {**values, **told, **wrong}]
        fields = [{**f, "type": "long"} if f["name"] in names[:3] and f["name"] not in kinds else f for f in fields]
        table = "signup" if number % 2 else "pageviews"
        file = bucket / f"sync_{number}" / table / f"{PEOPLE['bob']}.avro"
        file.parent.mkdir(parents=True)
        with file.open("wb") as target:
            fastavro.writer(
                target,
                {"type": "record", "name": "r", "fields": fields},
                [{**values, **told, **wrong}] * 3,
                codec="null",
            )
        if not wrong:
            file.write_bytes(file.read_bytes()[:-40])
        document = {"name": table, "files": [f"s3://b/sync_{number}/{table}/{file.name}"], "columns": [*values, *told]}
        _manifest(bucket, number, json.dumps({"dump_id": number, "tables": [{**document, "incremental": True}]}))
    _manifest(bucket, 91, f'{{"dump_id": 91, "tables": [{{"name": "{PEOPLE["cat"]}", "files": ["{PLAN} {PHONE}"')
    _manifest(bucket, 92, json.dumps({"dump_id": PEOPLE["cat"], "tables": PLAN}))


def _manifest(bucket: Path, number: int, text: str) -> None:
    (bucket / "manifests").mkdir(exist_ok=True)
    (bucket / f"manifests/sync_{number}.json").write_text(text)


def _plant_in_warehouse(path: Path) -> None:
    """Make relations that cannot be read, with errors that quote a row."""
    told = f"{PEOPLE['ann']} {PLAN} {PHONE} {ADDRESS} ticketCANARY"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA crm; CREATE SCHEMA shop")
        connection.execute(f"CREATE TABLE crm.t AS SELECT 'c' AS contact_id, '{told}' AS email, '{PLAN}' AS plan")
        raised = "CASE WHEN email = '' THEN plan ELSE error(email) END"
        columns = "contact_id, email, CAST(NULL AS TEXT) AS visitor, plan, now() AS created_at"
        connection.execute(f"CREATE VIEW crm.contacts AS SELECT {columns}, {raised} AS account_id FROM crm.t")
        connection.execute(
            "CREATE VIEW crm.accounts AS SELECT email AS account_id, CAST(email AS INTEGER) AS size FROM crm.t"
        )
        connection.execute(
            "CREATE VIEW shop.orders AS "
            "SELECT email AS order_id, email, CAST(plan AS DATE) AS placed_at, 1.5 AS total FROM crm.t"
        )


_BAD_COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a file that is cut off": ({}, {}),
    "times that are none": ({}, {"time": PEOPLE["ann"]}),
    "numbers that are text": ({"event_id": "string"}, {"event_id": f"{PLAN} {PHONE}"}),
    "a symbol": ({"kind": {"type": "enum", "name": "e", "symbols": ["planCANARYvalue"]}}, {"kind": "planCANARYvalue"}),
}


def _commands(world: World) -> str:
    """Say what commands say of all this."""
    told = []
    for command in (
        *(
            ["check"],
            ["preflight"],
            ["discover"],
            ["browse"],
            ["rejected"],
            ["usage"],
            ["report", "--out", str(world.folder / "report.html")],
            ["publish"],
        ),
        *(["publish", "--dry-run"], ["catalogue", "diff"], ["catalogue", "accept"], ["prune", "--dry-run"]),
    ):
        answer = CliRunner().invoke(
            _group, command, env={"HEAP_ASSETS_SETTINGS": str(world.folder / "heap_assets.yaml")}
        )
        error = answer.exception if not isinstance(answer.exception, SystemExit) else None
        assert error is None or isinstance(error, HeapAssetsError), (command, error)
        told.append(f"{command}: {answer.output} {error or ''}")
    return "\n".join(told)


def _alert(world: World, server: Hostile) -> None:
    runs = [r for r in world.instance.get_runs() if r.status is dg.DagsterRunStatus.FAILURE]
    assert runs
    messages = finished_messages(world.instance, runs, "http://localhost:3000", lambda key: "", [])
    outbox = Outbox(world.lake.store, configured_channels(world.project.settings.alerts), os.environ)
    for message in messages:
        outbox.send_if_new(replace(message, at=datetime.now(UTC)))
    assert outbox.waiting()


def _plant_in_postgres(address: str) -> None:
    """Make tables whose triggers raise what is being written, in words and as data."""
    from adbc_driver_postgresql import dbapi

    with (
        dbapi.connect(f"postgresql://{address}/postgres", autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for statement in (
            "CREATE ROLE canary LOGIN SUPERUSER PASSWORD 'pg/CANARY0009'",
            "CREATE OR REPLACE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF tg_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'ALTER TABLE') THEN RAISE EXCEPTION "
            f"'no % for {PEOPLE['ann']} {PLAN} {PHONE} {ADDRESS}', tg_tag "
            f"USING DETAIL = '{PEOPLE['bob']} pg/CANARY0009'; END IF; END $$",
            "CREATE EVENT TRIGGER telling ON ddl_command_end EXECUTE FUNCTION tell()",
        ):
            cursor.execute(statement)


@pytest.mark.parametrize("cast", [pl.Int64, pl.Date, pl.Float64, pl.Boolean])
def test_what_a_library_quotes_is_blanked(cast: pl.DataType) -> None:
    with pytest.raises(pl.exceptions.PolarsError) as refused:
        pl.DataFrame({"n": [PLAN, PEOPLE["ann"]]}).select(pl.col("n").cast(cast))
    assert _hits(iter([("error", redact_error(refused.value).encode(), False)])) == []
