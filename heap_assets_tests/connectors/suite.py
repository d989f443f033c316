"""The cases that every connector passes against its vendor's stand-in; a connector's test declares the adapter."""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import unquote

import pytest

from heap_assets.activation import Mode, Status
from heap_assets.activation.engine import auth
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer

Row = Mapping[str, Any]

CASES = {
    "create": "a missing record is made, a member added, an event sent",
    "update": "only what changed is sent",
    "clear": "a value that is gone is emptied, a member that left is removed",
    "no_match": "a key without a record is left alone, and is no error",
    "duplicate_key": "a key that is not one record harms no other row",
    "bad_row": "one refused row in the middle of a batch",
    "whole_batch_refused": "a batch that is refused as a whole is split",
    "throttle": "too many calls: it waits",
    "server_error": "a fault of the vendor's is tried again",
    "token_expiry": "a token that ends in mid-run",
    "timeout_after_acceptance": "an answer that is lost after the batch was taken",
    "kills": "SIGKILL at random moments",
    "second_run": "a second run sends nothing",
    "ledger_equals_server": "the ledger says what the vendor has, value by value",
    "golden": "the calls, byte for meaning, as in golden/",
    "limits": "values at every limit are taken, beyond it never sent",
    "logs": "no secret and no personal data in logs, reports, open tables",
}
_ONLY: Mapping[Mode, Mapping[str, str]] = {
    Mode.UPSERT: {},
    Mode.INSERT: {
        "update": "events never change",
        "clear": "events never change",
        "no_match": "events have no record",
        "duplicate_key": "events have no record",
    },
    Mode.SET: {"update": "members have no values"},
}


class ConnectorSuite(ABC):
    """Derive a class from it in `test_<connector>.py`, with the adapter: what is declared here.

    Attributes
    ----------
    settings
        Text of the sync's section, without `source` (the table `people` with the key column `id`) and `limit_share`;
        `{url}` is the server's address. `more_settings`: further lines, of a class that varies another.
    secrets
        Environment variables that the settings refer to.
    schema
        Columns of the source's rows, `id` among them.
    key
        Column of the rows that is the ledger's key.
    many
        Rows that make several batches.
    dedupe
        Whether a row without an answer may be sent again (`Dedupe`).
    renews
        Whether a refused token is renewed; else the run ends, and the next goes on.
    whole
        Whether a set goes as a whole whenever anything changed.
    faults
        Options of the server's faults, by their name.
    absent
        Cases that do not exist there, with the reason.
    keys_in_addresses
        Whether the vendor's only search has the key in its address.
    """

    settings: ClassVar[str]
    secrets: ClassVar[Mapping[str, str]] = {}
    schema: ClassVar[Mapping[str, Any]]
    key: ClassVar[str] = "id"
    mode: ClassVar[Mode] = Mode.UPSERT
    many: ClassVar[int] = 250
    dedupe: ClassVar[Literal["natural", "window", "none"]] = "natural"
    renews: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    faults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    absent: ClassVar[Mapping[str, str]] = {}
    keys_in_addresses: ClassVar[bool] = False

    @classmethod
    def missing(cls) -> Mapping[str, str]:
        """Return the cases that do not exist there."""
        return {**_ONLY[cls.mode], **cls.absent}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        assert set(cls.missing()) <= set(CASES), f"no such case: {set(cls.missing()) - set(CASES)}"
        for case in cls.missing():
            setattr(cls, f"test_{case}", None)

    # the adapter

    @abstractmethod
    def make_server(self) -> VendorServer:
        """Return the vendor's server, with what an administrator has made there."""

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        """Make the records that must be there before the rows are sent; nothing where they are made by them."""
        del server, rows

    @abstractmethod
    def row(self, number: int, version: int = 0) -> Row:
        """Return a row of the source; another version has other values."""

    def cleared(self, row: Row) -> Row:
        """Return the row after one value is gone."""
        pytest.fail("give `cleared`, or say in `absent` why there is no such case")

    @abstractmethod
    def expected(self, row: Row) -> Mapping[str, Any]:
        """Return the values that the vendor should hold for a row; empty ones count as none."""

    @abstractmethod
    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        """Return key and values of what the vendor holds of us: a key twice means that it was made twice."""

    def bad_value(self, row: Row, server: VendorServer) -> object:
        """Return the value by which the server knows a row that it is to refuse."""
        return row[self.key]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        """Make a key that is not one record, there or in the rows; returns the rows to send and the keys at fault."""
        pytest.fail("give `duplicates`, or say in `absent` why there is no such case")

    @abstractmethod
    def at_limits(self) -> Sequence[Row]:
        """Return rows with values that are just allowed, in batches as large as allowed."""

    def beyond_limits(self) -> Sequence[Row]:
        """Return rows that must not be sent."""
        return []

    # the machinery

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
        # a server may have the port, and so the address, of an earlier one whose token the process keeps
        monkeypatch.setattr(auth, "_tokens", {})
        with self.make_server() as server:
            yield server
            assert server.violations == []

    @pytest.fixture
    def deployment(self, server: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kit.Deployment:
        for name, value in self.secrets.items():
            monkeypatch.setenv(name, value)
        deployment = kit.Deployment.make(tmp_path, self.settings.replace("{url}", server.url))
        assert deployment.connector.dedupe.kind == self.dedupe
        return deployment

    def rows(self, count: int = 5, version: int = 0) -> list[Row]:
        return [self.row(number, version) for number in range(count)]

    def fail(self, server: VendorServer, fault: Any, **choices: Any) -> None:
        server.fail(fault, **{**choices, **self.faults.get(fault, {})})

    def assert_held(self, server: VendorServer, rows: Sequence[Row]) -> None:
        held = self.held(server)
        assert len({key for key, _ in held}) == len(held), "something was made twice"
        expected = {str(row[self.key]): _present(self.expected(row)) for row in rows}
        assert {key: _present(values) for key, values in held} == expected

    # the cases

    def test_create(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        deployment.write(0, rows, self.schema)
        if self.mode is not Mode.UPSERT:
            self.seed(server, rows)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.rejections) == (Status.SUCCEEDED, len(rows), {})
        self.assert_held(server, rows)

    def test_update(self, deployment: kit.Deployment, server: VendorServer) -> None:
        self.first(deployment, server)
        rows = [self.row(number, version=number % 2) for number in range(5)]
        deployment.write(1, rows, self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.planned, report.sent) == (Status.SUCCEEDED, 2, 2)
        self.assert_held(server, rows)

    def test_clear(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.first(deployment, server)
        changed = rows[1:] if self.mode is Mode.SET else [self.cleared(rows[0]), *rows[1:]]
        deployment.write(1, changed, self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.planned) == (Status.SUCCEEDED, len(rows) if self.whole else 1)
        self.assert_held(server, changed)

    def test_no_match(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows[2:])
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.no_match, report.rejected) == (Status.SUCCEEDED, 3, 2, 0)
        self.assert_held(server, rows[2:])
        assert deployment.send(0, "r2").requests == 0

    def test_duplicate_key(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        rows, wrong = self.duplicates(server, rows)
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert report.sent == len(rows) - len(wrong)
        assert report.invalid + report.rejected == len(wrong)
        assert deployment.settled() == {str(row[self.key]) for row in rows} - wrong

    def test_bad_row(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "bad_row", key=self.bad_value(rows[2], server))
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.rejected + report.invalid) == (Status.PARTIAL, 4, 1)
        assert sum(report.rejections.values()) == 1
        assert deployment.settled() == {str(row[self.key]) for row in (*rows[:2], *rows[3:])}
        server.heal()
        self.finish(deployment, server, rows)

    def test_whole_batch_refused(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "refuse_batch")
        report = deployment.send(0, "r1")
        assert (report.status, report.sent) == (Status.SUCCEEDED, len(rows))
        self.assert_held(server, rows)

    def test_throttle(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "throttle", times=2, wait=0.1)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.throttled) == (Status.SUCCEEDED, len(rows), 2)
        self.assert_held(server, rows)

    def test_server_error(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "server_error", times=2)
        if self.dedupe != "none":
            return self.finish(deployment, server, rows)
        report = deployment.send(0, "r1")
        assert (report.status, report.unknown) == (Status.PARTIAL, len(rows))
        assert deployment.send(0, "r2").requests == 0, "it could count twice"
        return None

    def test_token_expiry(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows(self.many)
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "token_expired", skip=1)
        report = deployment.send(0, "r1")
        if not self.renews:
            assert report.status is Status.STOPPED
            assert 0 < report.sent < len(rows)
        self.finish(deployment, server, rows, may_have_ended=self.renews)

    def test_timeout_after_acceptance(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.rows(self.many)
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "accept_then_no_answer")
        report = deployment.send(0, "r1")
        if self.dedupe == "none":
            assert (report.status, report.sent + report.unknown) == (Status.PARTIAL, len(rows))
            assert report.unknown > 0
            assert deployment.send(0, "r2").requests == 0, "it could count twice"
        else:
            assert (report.status, report.sent) == (Status.SUCCEEDED, len(rows))
        self.assert_held(server, rows)

    def test_kills(self, deployment: kit.Deployment, server: VendorServer, senders: kit.Senders) -> None:
        chance = random.Random(kit.KILLS)
        self.seed(server, self.rows(self.many))
        server.latency = 0.03
        killed = 0
        for turn in range(kit.KILLS):
            rows = self.rows(self.many, version=turn if self.mode is Mode.UPSERT else 0)
            deployment.write(0, rows, self.schema)
            before, wanted = len(server.calls), chance.randrange(4)
            process = senders.start(deployment, 0)
            until = time.monotonic() + 20
            while len(server.calls) - before < wanted and senders.is_running(process) and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            killed += senders.kill(process)
        assert killed
        server.latency = 0.0
        if self.dedupe == "none":
            assert deployment.send(0, "last").status in (Status.SUCCEEDED, Status.PARTIAL)
            sent, held = deployment.settled(), [key for key, _ in self.held(server)]
            assert sent <= set(held)
            assert len(set(held)) == len(held), "an event counts twice"
            assert set(deployment.ledger()["status"]) <= {"sent", "acknowledged", "unknown"}
            assert len(deployment.ledger()) == self.many
        else:
            self.finish(deployment, server, self.rows(self.many), may_have_ended=True)

    def test_second_run(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.first(deployment, server)
        calls = len(server.calls)
        assert deployment.send(0, "r2").requests == 0
        deployment.write(1, rows, self.schema)
        assert deployment.send(1, "r3").requests == 0
        assert len(server.calls) == calls

    def test_ledger_equals_server(self, deployment: kit.Deployment, server: VendorServer) -> None:
        self.seed(server, self.rows(self.many))
        for number in range(3):
            rows = self.rows(self.many - number, version=number if self.mode is Mode.UPSERT else 0)
            frame = deployment.write(number, rows, self.schema)
            assert deployment.send(number, f"r{number}").status is Status.SUCCEEDED
            if self.mode is not Mode.SET:
                deployment.assert_hashes(frame, self.key)
            if self.mode is Mode.INSERT:
                rows = self.rows(self.many)
            held = {key for key, _ in self.held(server)}
            assert {str(row[self.key]) for row in rows} <= deployment.settled() <= held | self.left(number)
        if self.mode is Mode.SET:
            self.assert_held(server, rows)

    def left(self, number: int) -> set[str]:
        """Return the keys whose rows have vanished: what the ledger still knows of a record that was emptied."""
        return {str(self.row(n)[self.key]) for n in range(self.many - number, self.many)}

    def test_golden(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows = self.first(deployment, server, count=2)
        if self.mode is not Mode.INSERT:
            changed = rows[1:] if self.mode is Mode.SET else [self.row(0, version=1), self.cleared(rows[1])]
            deployment.write(1, changed, self.schema)
            assert deployment.send(1, "r2").status is Status.SUCCEEDED
        kit.compare_golden(type(self).__name__.removeprefix("Test"), kit.golden_calls(server))

    def test_limits(self, deployment: kit.Deployment, server: VendorServer) -> None:
        rows, refused = self.at_limits(), self.beyond_limits()
        self.seed(server, [*rows, *refused])
        deployment.write(0, [*rows, *refused], self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.invalid, report.rejected) == (len(rows), len(refused), 0), report.rejections
        self.assert_held(server, rows)

    def test_logs(self, deployment: kit.Deployment, server: VendorServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        self.fail(server, "bad_row", key=self.bad_value(rows[2], server))
        reports = [deployment.send(0, "r1")]
        self.fail(server, "server_error", times=50)
        deployment.write(1, self.rows(6, version=1), self.schema)
        reports.append(deployment.send(1, "r2"))
        assert reports[1].status in (Status.STOPPED, Status.PARTIAL)
        ours = [one.getMessage() for one in caplog.records if not one.name.startswith("uvicorn")]  # that is the server
        text = "\n".join([*ours, *map(str, reports), deployment.open_tables()])
        told = {str(value) for row in (*rows, *self.rows(6, version=1)) for value in row.values()}
        personal = {value for value in told if len(value) >= 6 and not value.isdigit()}
        assert personal
        addresses = "\n".join(unquote(f"{call.path}?{call.query}") for call in server.calls)  # proxies log those
        secrets = set(self.secrets.values())
        assert not {value for value in personal | secrets if value in text}
        keys = {str(row[self.key]) for row in (*rows, *self.rows(6))} if self.keys_in_addresses else set()
        assert not {value for value in (personal - keys) | secrets if value in addresses}

    def first(self, deployment: kit.Deployment, server: VendorServer, count: int = 5) -> list[Row]:
        """Send some rows for the first time."""
        rows = self.rows(count)
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent) == (Status.SUCCEEDED, count), report
        self.assert_held(server, rows)
        return rows

    def finish(
        self, deployment: kit.Deployment, server: VendorServer, rows: Sequence[Row], *, may_have_ended: bool = False
    ) -> None:
        """Send what is left of some rows: then everything is there, and nothing is left to send."""
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "finish")
        assert report.status is Status.SUCCEEDED, report
        assert may_have_ended or report.sent
        self.assert_held(server, rows)
        assert {str(row[self.key]) for row in rows} == deployment.settled()
        assert deployment.send(0, "again").requests == 0


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}
