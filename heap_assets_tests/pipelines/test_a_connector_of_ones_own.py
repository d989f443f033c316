"""A kind of sync that heap_assets knows nothing of: one file, installed, and everything that built-in kinds have."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation import Log, Status, connector_of, connectors, runs
from heap_assets.cli.sync import sync as command
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_gate import newest_day, waits_for_confirmation
from heap_assets.project import load_settings, refused_hosts
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, NOW, World, contacts, why

NAME = "mailing_list"
_SEND = """
import sys
from datetime import date
from heap_assets.pipelines import delivery
from heap_assets.project import open_project
delivery.send(open_project(), "mailing_list", date.fromisoformat(sys.argv[1]), "killed")
"""
_PATIENCE = 60


class Service(http.server.ThreadingHTTPServer):
    """The mailing list: knows its members, refuses who has unsubscribed, and can be made to hang after some calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.members: dict[str, dict[str, str]] = {}
        self.unsubscribed: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.hangs_after: int | None = None
        self.changed: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_PUT(self) -> None:
        lines = [json.loads(line) for line in self.rfile.read(int(self.headers["Content-Length"])).splitlines()]
        self.server.calls.append((self.path, self.headers["Authorization"]))
        if self.server.hangs_after is not None and len(self.server.calls) > self.server.hangs_after:
            time.sleep(_PATIENCE)
            return
        refused = [at for at, line in enumerate(lines) if line["address"] in self.server.unsubscribed]
        self.server.members |= {x.pop("address"): x for at, x in enumerate(lines) if at not in refused}
        body = b"\n".join(json.dumps({"line": at, "error": "unsubscribed"}).encode() for at in refused)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.calls.append((self.path, self.headers["Authorization"]))
        since = self.path.partition("?changed_since=")[2]
        rows = [
            {"address": address, "plan": self.server.members[address]["plan"], "changed_at": changed}
            for address, changed in sorted(self.server.changed.items())
            if changed >= since
        ]
        body = json.dumps(rows).encode()
        self.send_response(200 if self.headers["Authorization"] == "Token t0ken-4711" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the connector as pip does: a module, and metadata with an entry point."""
    folder = tmp_path / "site"
    facts = folder / "acme_mailing_list-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mailing-list\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[heap_assets.connectors]\nmailing_list = acme_mailing_list:MailingListConnector\n"
        "broken = acme_mailing_list:Nothing\nstrange = acme_mailing_list:MailingList\n"
    )
    shutil.copy(Path(__file__).with_name("mailing_list.py"), folder / "acme_mailing_list.py")
    monkeypatch.syspath_prepend(str(folder))
    connectors.cache_clear()
    yield folder
    connectors.cache_clear()
    sys.modules.pop("acme_mailing_list", None)


def syncs(service: Service, more: str = "") -> str:
    return (
        f"mailing_list: {{url: '{service.url}', list_id: 7, token: t0ken-4711, plans: [pro], "
        f"properties: {{plan: plan, account: account}}, limit_share: 1{more}}}"
    )


@pytest.fixture
def world(worlds: Worlds, site: Path, service: Service) -> World:
    return worlds(syncs(service))


def test_it_is_planned_sent_and_logged_like_any_other(world: World, service: Service) -> None:
    project = world.project
    assert newest_day(project, NAME) == DAY
    planned, rows = delivery.plan(project, NAME, DAY)
    assert (planned.report.planned, len(rows), service.calls) == (4, 4, [])
    sent = delivery.send(project, NAME, DAY, "r1").report
    assert (sent.status, sent.sent, sent.requests) == (Status.SUCCEEDED, 4, 2)
    assert service.members["dan@x.example"] == {"plan": "pro", "account": "globex"}
    assert set(service.calls) == {("/lists/7/members", "Token t0ken-4711")}
    assert delivery.send(project, NAME, DAY, "r2").report.requests == 0
    assert runs(world.lake.store, NAME)["sent"].to_list() == [4, 0]
    ledger = Log(world.lake.store, connector_of(project, NAME).ledger_folder()).ledger().frame
    assert set(ledger["key"]) == set(service.members)


def test_what_an_answer_of_200_refuses_is_rejected(world: World, service: Service) -> None:
    service.unsubscribed = {"bob@x.example"}
    sent = delivery.send(world.project, NAME, DAY, "r1").report
    assert (sent.status, sent.sent, sent.rejections) == (Status.PARTIAL, 3, {"unsubscribed": 1})


def test_before_the_first_rows_it_is_tried_and_nothing_is_sent_where_something_is_missing(
    worlds: Worlds, site: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(syncs(service).replace("t0ken-4711", "another-token"))
    refused = delivery.send(world.project, NAME, DAY, "r1").report
    assert (refused.status, refused.reason) == (Status.REFUSED, "token: the list answers HTTP 401")
    assert not service.members
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))
    tried = CliRunner().invoke(command, ["check", NAME])
    assert tried.exit_code == 1
    assert "FAILED token" in tried.output
    assert "make a token under Settings" in tried.output


def test_why_says_what_became_of_one_person(world: World, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(world.folder / "heap_assets.yaml"))

    def asked(key: str) -> dict[str, str]:
        answer = CliRunner().invoke(command, ["why", NAME, key, "--json"])
        assert answer.exit_code == 0, answer.output
        assert not any(value in answer.output for value in ("globex", "t0ken-4711", key))
        return {fact["subject"]: fact["statement"] for fact in json.loads(answer.output)}

    before = asked("dan@x.example")
    assert before["row"] == "1 in profiles"
    assert before["mapping"] == "plan from plan, account from account"
    assert before["next run"] == "add of plan, account"
    assert before["last request"] == "none: nothing of it was ever sent"
    service.unsubscribed = {"bob@x.example"}
    delivery.send(world.project, NAME, DAY, "r1")
    sent, refused, nobody = asked("dan@x.example"), asked("bob@x.example"), asked("nobody@x.example")
    assert sent["last answer"] == "acknowledged, HTTP 200"
    assert sent["next run"].startswith("nothing: what is acknowledged")
    method, address, body = before["next request"].split(" ", 2)
    assert (method, address.startswith("http://127.0.0.1:")) == ("PUT", True)
    assert {"address", "plan", "account"} <= set(body.replace('"', " ").replace(":", " ").split())
    assert f"plan {sent['acknowledged plan']}, account" in sent["last request"]
    assert len(sent["acknowledged plan"]) == 16
    assert refused["last answer"] == "rejected, HTTP 200, unsubscribed"
    assert refused["ledger"].startswith("status rejected")
    assert (nobody["row"], nobody["last request"][:4]) == ("none in profiles", "none")
    world.judge("warehouse/contacts", DAY, passed=False)
    assert "warehouse/contacts" in asked("dan@x.example")["gate"]


def test_a_run_of_dagster_asks_its_gate_and_tells_its_lineage(world: World, service: Service) -> None:
    world.judge("warehouse/contacts", DAY, passed=False)
    blocked = delivery.send(world.project, NAME, DAY, "r0").report
    assert blocked.status is Status.BLOCKED
    assert "warehouse/contacts" in str(blocked.reason)
    world.judge("warehouse/contacts", DAY)
    result = world.run([f"sync/{NAME}"], DAY)
    assert result.success, why(result)
    [made] = result.asset_materializations_for_node(f"sync__{NAME}")
    assert made.metadata["sent"].value == 4
    checked = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert checked["few_rejected"]
    assert checked["one_row_per_key"]
    assert list(connector_of(world.project, NAME).lineage()) == [
        ("plan", "profiles", "plan"),
        ("account", "profiles", "account"),
    ]


def test_a_changed_mapping_key_by_key_and_a_member_who_leaves(world: World, service: Service) -> None:
    delivery.send(world.project, NAME, DAY, "r1")
    day = DAY.replace(day=21)
    world.write_day(day, contacts=contacts(ann="free", bob="pro"))
    world.resolve(day)
    options = delivery.RunOptions(confirmed=True)
    sent = delivery.send(world.project, NAME, day, "r2", options).report
    assert (sent.sent, sent.withdrawn) == (1, 1)
    assert service.members["ann@x.example"] == {"plan": None, "account": None}


def test_killed_while_it_sends_the_next_run_makes_it_good(world: World, service: Service, site: Path) -> None:
    service.hangs_after = 2  # its first call only looks
    environment = os.environ | {
        PATH_VARIABLE: str(world.folder / "heap_assets.yaml"),
        clock.VARIABLE: NOW,
        "PYTHONPATH": os.pathsep.join([str(site), *sys.path]),
    }
    process = subprocess.Popen([sys.executable, "-c", _SEND, str(DAY)], env=environment)
    until = time.monotonic() + _PATIENCE
    while len(service.calls) < 3 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    assert len(service.members) == 2
    service.hangs_after = None

    again = delivery.send(world.project, NAME, DAY, "again").report

    assert again.status is Status.SUCCEEDED
    assert len(service.members) == 4
    assert len(service.calls) <= 5  # at most the batches in flight are sent twice
    assert delivery.send(world.project, NAME, DAY, "r3").report.requests == 0


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (", list_id: 0", ["sync.mailing_list.list_id is 0", "greater than or equal to 1"]),
        (", plan: [pro]", ["sync.mailing_list.plan is not a known key", "Did you mean 'plans'?"]),
        (", on_withdrawn: drop", ["sync.mailing_list.on_withdrawn is 'drop'", "'clear' or 'keep'"]),
    ],
)
def test_mistakes_in_its_settings_are_named(
    worlds: Worlds, site: Path, service: Service, more: str, parts: list[str]
) -> None:
    text = syncs(service, more).replace("list_id: 7, ", "" if "list_id" in more else "list_id: 7, ")
    with pytest.raises(SettingsError) as caught:
        worlds(text)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_its_host_counts_and_its_secret_is_one(world: World, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIST_TOKEN", "t0ken-4711")
    written = syncs(service).replace(service.url, "https://lists.acme.example")
    with pytest.raises(SettingsError, match="token holds a secret"):
        world.choose(written)
    world.choose(written.replace("t0ken-4711", "'${LIST_TOKEN}'"))
    assert waits_for_confirmation(world.project, NAME)
    path = world.folder / "heap_assets.yaml"
    path.write_text(path.read_text() + "allowed_hosts: []\n")
    assert "sync.mailing_list: lists.acme.example:443" in refused_hosts(load_settings(path))


def test_it_is_listed_and_what_cannot_be_loaded_stops_nobody(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(connectors())[-1] == NAME
    assert "the connector broken (acme_mailing_list:Nothing) cannot be loaded" in caplog.text
    assert "the connector strange (acme_mailing_list:MailingList) is no subclass of Connector" in caplog.text
    assert "Profiles of some plans as members" in CliRunner().invoke(command, ["kinds"]).output
    keys = CliRunner().invoke(command, ["kinds", NAME]).output
    assert "plans" in keys
    assert "Values of the trait `plan`" in keys


def reading(world: World, service: Service, token: str = "t0ken-4711") -> World:
    world.more = (
        f"sources: {{mailing_list: {{kind: mailing_list, url: '{service.url}', list_id: 7, token: {token}, tables: "
        "{members: {relation: mailing_list.members, key: address, updated_at: changed_at, "
        "identifiers: {address: email}}}}}"
    )
    return world.choose(syncs(service))


def change(service: Service, at: str, **plans: str) -> None:
    for name, plan in plans.items():
        service.members[f"{name}@x.example"] = {"plan": plan}
        service.changed[f"{name}@x.example"] = at


def test_the_same_file_serves_as_a_source_that_is_asked_for_what_changed(world: World, service: Service) -> None:
    change(service, "2026-11-10T09:00:00Z", ann="pro", bob="free")
    change(service, "2026-11-20T12:30:00Z", zoe="free")
    project = reading(world, service).project
    assert world.run(["mailing_list/members"], DAY).success
    assert [path for path, _ in service.calls] == ["/lists/7/members"]
    stored = world.lake.scan("mailing_list/members", str(DAY)).sort("address").collect()
    assert stored.select("address", "plan").rows() == [
        ("ann@x.example", "pro"),
        ("bob@x.example", "free"),
        ("zoe@x.example", "free"),
    ]
    world.resolve(DAY)
    known = world.lake.scan("identity/graph", str(DAY)).filter(pl.col("identifier") == "zoe@x.example").collect()
    assert known["identifier_type"].to_list() == ["email"]

    change(service, "2026-11-20T18:00:00Z", ann="free", eve="pro")
    service.calls.clear()
    assert world.run(["mailing_list/members"], DAY).success
    assert [path for path, _ in service.calls] == ["/lists/7/members?changed_since=2026-11-20T11:30:00Z"]
    again = world.lake.scan("mailing_list/members", str(DAY)).sort("address").collect()
    assert dict(again.select("address", "plan").rows()) == {
        "ann@x.example": "free",
        "bob@x.example": "free",
        "eve@x.example": "pro",
        "zoe@x.example": "free",
    }
    notes = world.lake.find("mailing_list/members", str(DAY))
    assert notes is not None
    assert (notes.notes["read"], notes.notes["rows_read"]) == ("changes", 3)

    before = world.lake.versions("mailing_list/members")
    assert world.run(["mailing_list/members"], DAY).success
    assert world.lake.versions("mailing_list/members") == before, "what has not changed is not written again"
    assert project.warehouse("mailing_list").preflight()[0].passed


def test_a_source_that_refuses_says_so_and_a_table_that_it_lacks_is_named(world: World, service: Service) -> None:
    reading(world, service, token="wrong-token")
    result = world.run(["mailing_list/members"], DAY)
    verdicts = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert not verdicts["readable"].passed
    assert "cannot be read: status 401" in str(verdicts["readable"].metadata["reason"].value)
    world.more = world.more.replace("relation: mailing_list.members", "relation: mailing_list.people")
    with pytest.raises(SettingsError, match=r"sources\.mailing_list\.tables\.members: .*'mailing_list.people'"):
        world.choose(syncs(service)).project.check_warehouse_table("mailing_list/members")
