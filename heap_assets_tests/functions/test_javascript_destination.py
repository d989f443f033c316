"""Requests of a function are sent by the engine: to its hosts alone, split, retried and remembered like any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Status, SyncReport
from heap_assets.errors import SettingsError
from heap_assets_tests.activation.scripted_server import Call, Say, Scripted, scripted
from heap_assets_tests.connectors import kit

SEND = """
export default function send(rows, context) {
  const sorted = {};
  rows.forEach((row, at) => (sorted[row.properties.plan] ??= []).push(at));
  return Object.entries(sorted).map(([plan, places]) => ({
    url: `%s/${plan}`, rows: places, headers: { 'X-Sync': context.sync, 'X-Token': 'forged' },
    body: { contacts: places.map((at) => ({ id: rows[at].key, mail: email.normalise(rows[at].key) })) },
  }));
}
"""


class Receiver:
    """Keeps contacts; refuses some calls."""

    def __init__(self) -> None:
        self.contacts: dict[str, str] = {}
        self.refuse: Callable[[Call], Say | None] = lambda call: None

    def __call__(self, call: Call) -> Say:
        if call.headers.get("x-token") != "tok-4711-secret":
            return Say(401)
        if refused := self.refuse(call):
            return refused
        self.contacts |= {one["id"]: call.path for one in call.json["contacts"]}
        return Say(200, {})


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def server(receiver: Receiver) -> Iterator[Scripted]:
    with scripted(receiver) as serving:
        yield serving


def deployment(
    folder: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch, source: str = SEND, **more: Any
) -> kit.Deployment:
    monkeypatch.setenv("RECEIVER_TOKEN", "tok-4711-secret")
    (folder / "functions").mkdir(exist_ok=True)
    (folder / "functions" / "send.js").write_text(source % server.url if "%s" in source else source)
    host = server.url.removeprefix("http://")
    chosen = {"file": "send.js", "hosts": [host], "headers": {"X-Token": "${RECEIVER_TOKEN}"}, "batch_rows": 10, **more}
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in chosen.items())
    return kit.Deployment.make(folder, f"kind: javascript\n{lines}\nproperties: {{plan: plan}}")


def send(made: kit.Deployment, number: int, rows: pl.DataFrame) -> SyncReport:
    made.write(number, rows.to_dicts(), rows.schema)
    return made.send(number, f"run {number}")


def people(count: int, plan: str = "") -> pl.DataFrame:
    plans = [plan or ("pro" if n % 2 else "free") for n in range(count)]
    return pl.DataFrame({"id": [f"P{n}@x.example" for n in range(count)], "plan": plans})


def test_rows_go_as_the_function_says_and_once(
    tmp_path: Path, server: Scripted, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deployment(tmp_path, server, monkeypatch)
    report = send(made, 0, people(25))
    assert (report.status, report.sent, report.rejected) == (Status.SUCCEEDED, 25, 0)
    assert receiver.contacts == {f"P{n}@x.example": "/pro" if n % 2 else "/free" for n in range(25)}
    assert {call.headers["x-sync"] for call in server.calls} == {"it"}
    calls = len(server.calls)
    assert send(made, 1, people(25)).sent == 0
    assert len(server.calls) == calls
    assert send(made, 2, people(26)).sent == 1


def test_a_row_that_the_function_or_the_receiver_refuses_is_rejected_alone(
    tmp_path: Path, server: Scripted, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SEND.replace("const sorted", "if (rows.some((row) => row.key[1] === '3')) null.x;\n  const sorted")
    made = deployment(tmp_path, server, monkeypatch, source)
    receiver.refuse = lambda call: Say(400, {}) if "P7@" in call.body.decode() else None
    report = send(made, 3, people(10))
    assert (report.sent, report.rejected) == (8, 2)
    assert sorted(receiver.contacts) == sorted(f"P{n}@x.example" for n in range(10) if n not in (3, 7))
    assert any("send.js:3:" in reason and "cannot read property" in reason for reason in report.rejections)


def test_a_server_in_trouble_is_tried_again(
    tmp_path: Path, server: Scripted, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Say(503), Say(429, headers={"Retry-After": "0"})])
    receiver.refuse = lambda call: next(answers, None)
    assert send(deployment(tmp_path, server, monkeypatch), 0, people(4)).sent == 4


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("{ url: 'https://elsewhere.example/' }", "not in `hosts`"),
        ("{ url: 'file:///etc/passwd' }", "not in `hosts`"),
        ("{ url: 'http://127.0.0.1@elsewhere.example/' }", "not in `hosts`"),
        ("7", "must return requests"),
        ("[]", "no request for this row"),
        ("new Promise(() => {})", "never resolves"),
        ("(() => { for (;;) {} })()", "processor time"),
        ("fetch('http://127.0.0.1')", "not defined"),
    ],
)
def test_nothing_else_leaves(
    tmp_path: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch, returned: str, reason: str
) -> None:
    made = deployment(tmp_path, server, monkeypatch, f"export default () => ({returned})", seconds=0.1)
    report = send(made, 4, people(1))
    assert (report.sent, len(server.calls)) == (0, 0)
    assert reason in " ".join(report.rejections)


def test_a_file_that_cannot_be_used_is_a_mistake_of_the_settings(
    tmp_path: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deployment(tmp_path, server, monkeypatch, "let a = 1")
    with pytest.raises(SettingsError, match=r"sync\.it\.file: send\.js has no `export default function`"):
        made.connector.check()
    with pytest.raises(SettingsError, match=r"sync\.it\.hosts"):
        _ = deployment(tmp_path, server, monkeypatch, hosts=[]).connector
