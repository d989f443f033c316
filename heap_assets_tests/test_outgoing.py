"""Every exchange ends in time with an answer or the reason for none, takes little memory, and goes where it may."""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import heap_assets
from heap_assets.alerts import channels
from heap_assets.alerts.channels import EmailChannel, SlackChannel, WebhookChannel, send
from heap_assets.alerts.message import Message
from heap_assets.errors import DeliveryError
from heap_assets.http_client import ANYWHERE, LONGEST_ANSWER, AllowedHosts, Answer, HttpClient, NoAnswer
from heap_assets.orchestration.code_location import reload_code_locations
from heap_assets_tests.hostile_server import BOMB, DRIP, REFUSES, TAKES, hostile_server

SECONDS = 0.5
ENDS = 30
"""Seconds after which an exchange counts as one that never ends."""
MESSAGE = Message("Run abc finished", ())


def exchange(
    url: str, body: bytes = b"{}", seconds: float = SECONDS, allowed: AllowedHosts = ANYWHERE
) -> Answer | NoAnswer:
    client = HttpClient(allowed=allowed)
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(client.exchange, "POST", url, body, {}, seconds).result(ENDS)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("url", "hopeless"),
    [
        ("http://a..b/", None),
        (f"http://{'a' * 300}.example/", None),
        ("http://.invalid./", None),
        ("http://xn--/", None),
        ("http://[::1/", True),
        ("http://host:99999/", True),
        ("http://ex ample/", None),
        ("http://\N{SNOWMAN}.invalid/", None),
        ("http:///path", True),
        ("ftp://127.0.0.1/", True),
        ("no address", True),
        ("", True),
        ("http://host\n.invalid/", True),
        ("http://nobody.invalid/", False),
        ("https://nobody.invalid/", False),
    ],
)
def test_an_impossible_address_is_an_outcome(url: str, hopeless: bool | None) -> None:
    answer = exchange(url)
    assert isinstance(answer, NoAnswer)
    assert not answer.arrived
    assert hopeless is None or answer.hopeless is hopeless


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}\ud800"])
def test_a_header_that_cannot_be_sent_is_an_outcome(value: str) -> None:
    with hostile_server() as server:
        answer = HttpClient().exchange("POST", server.url, b"", {"X-Key": value}, SECONDS)
    assert isinstance(answer, NoAnswer)
    assert answer.hopeless
    assert not server.requests


ANSWER = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n5\r\nab\x00\xff\r\r\n0\r\n\r\n"
)
CHANGES = st.lists(st.tuples(st.integers(0, len(ANSWER)), st.integers(0, 12), st.binary(max_size=12)), max_size=6)


@settings(max_examples=120, deadline=None)
@given(changes=CHANGES)
def test_whatever_bytes_come_back_are_an_answer_or_none(changes: list[tuple[int, int, bytes]]) -> None:
    data = ANSWER
    for place, cut, put in changes:
        data = data[:place] + put + data[place + cut :]
    with hostile_server() as server:
        server.take(data)
        answer = HttpClient().exchange("POST", server.url, b"", {}, 2)
    assert isinstance(answer, Answer | NoAnswer)
    assert not isinstance(answer, NoAnswer) or answer.arrived


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_unpacks_to_hundreds_of_megabytes_is_not_unpacked(status: int) -> None:
    head = f"HTTP/1.1 {status} Hm\r\nContent-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n"
    with hostile_server() as server:
        server.take(head.encode() + BOMB)
        tracemalloc.start()
        answer = HttpClient().exchange("POST", server.url, b"", {}, 30)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(answer, Answer)
    assert answer.unreadable
    assert len(answer.body) <= LONGEST_ANSWER
    assert peak < 16 << 20


def test_a_server_that_does_not_read_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answer = exchange(f"http://127.0.0.1:{listening.getsockname()[1]}/", bytes(1 << 25))
    assert answer == NoAnswer("no answer (WriteTimeout)", arrived=True)


def served(answer: Callable[[socket.socket], None], body: bytes) -> Answer | NoAnswer:
    """Send a body to whoever gets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            return exchange(f"http://127.0.0.1:{listening.getsockname()[1]}/", body)
        finally:
            thread.join(5)


def test_a_small_call_is_sent_at_once() -> None:
    received = []

    def answer(connection: socket.socket) -> None:
        received.append(connection.recv(1 << 16))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert served(answer, b"[1]") == Answer(204)
    assert received[0].endswith(b"\r\n\r\n[1]")


@pytest.mark.parametrize("size", [65_000, 66_000, 1 << 22])
def test_a_large_call_arrives_whole(size: int) -> None:
    received, sent = bytearray(), bytes(range(256)) * (size // 256)

    def answer(connection: socket.socket) -> None:
        while not received.endswith(sent[-1000:]):
            received.extend(connection.recv(1 << 16))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert served(answer, sent) == Answer(204)
    assert received.partition(b"\r\n\r\n")[2] == sent


def test_an_answer_to_half_a_call_is_one() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 10)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass

    answered = served(answer, bytes(1 << 22))
    assert isinstance(answered, Answer)
    assert answered.status == 413


@contextmanager
def dripping(data: bytes) -> Iterator[int]:
    """Give the port of a server that says nothing but these bytes, slowly and for ever."""
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    while not over.wait(DRIP):
                        for byte in data:
                            connection.sendall(bytes([byte]))
                            if over.wait(DRIP):
                                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_slow_tls_ends_in_time() -> None:
    with dripping(b"\x16\x03\x03\x40\x00" + b"\x02" * 1000) as port:
        answer = exchange(f"https://127.0.0.1:{port}/")
    assert isinstance(answer, NoAnswer)
    assert not answer.arrived


def test_a_server_without_tls_is_an_outcome() -> None:
    with hostile_server() as server:
        answer = exchange(server.url.replace("http://", "https://"))
    assert isinstance(answer, NoAnswer)


def test_nothing_that_a_server_sets_comes_back_to_it() -> None:
    with hostile_server() as server:
        server.take(b"HTTP/1.1 200 OK\r\nSet-Cookie: id=7; Path=/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        client = HttpClient()
        client.exchange("POST", server.url, b"", {}, 5)
        client.exchange("POST", server.url, b"", {}, 5)
        client.close()
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (None, True),
        ([], False),
        (["127.0.0.1"], True),
        (["127.0.0.1:{port}"], True),
        (["127.0.0.1:1"], False),
        (["*.0.0.1"], True),
        (["localhost"], False),
    ],
)
def test_other_hosts_than_the_allowed_are_never_connected_to(patterns: list[str] | None, allowed: bool) -> None:
    with hostile_server() as server:
        policy = ANYWHERE if patterns is None else AllowedHosts.of(p.format(port=server.port) for p in patterns)
        answer = exchange(server.url, seconds=5, allowed=policy)
    assert isinstance(answer, Answer) is allowed
    assert bool(server.requests) is allowed
    if isinstance(answer, NoAnswer):
        assert answer.hopeless
        assert "allowed_hosts" in answer.reason


def test_a_proxy_is_used_and_must_be_allowed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert isinstance(exchange("http://far.invalid/", seconds=5), Answer)
        assert proxy.requests[0].startswith(b"POST http://far.invalid/ ")
        far, both = AllowedHosts.of(["far.invalid"]), AllowedHosts.of(["far.invalid", "127.0.0.1"])
        assert isinstance(exchange("http://far.invalid/", seconds=5, allowed=far), NoAnswer)
        assert isinstance(exchange("http://far.invalid/", seconds=5, allowed=both), Answer)


def test_a_webserver_that_is_asked_to_reload_may_answer_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid")
    monkeypatch.setenv("no_proxy", "")
    answers = {
        b'{"data": {"reloadWorkspace": {"__typename": "Workspace"}}}': True,
        b'{"data": {"reloadWorkspace": {"__typename": "PythonError", "message": "no"}}}': False,
        b"[" * 20_000: False,
        b"null": False,
        b"7" * 5_000: False,
    }
    for body, reloaded in answers.items():
        with hostile_server() as server:
            server.take(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            assert reload_code_locations(server.url, ANYWHERE, seconds=5) is reloaded
    with hostile_server() as server:
        server.refuse(REFUSES["slow headers"])
        began = time.monotonic()
        assert not reload_code_locations(server.url, ANYWHERE, seconds=SECONDS)
        assert time.monotonic() - began < ENDS
        before = len(server.requests)
        assert not reload_code_locations(server.url, AllowedHosts.of([]), seconds=5)
        assert len(server.requests) == before
    assert not reload_code_locations("http://[::1", ANYWHERE)


def test_nobody_calls_out_beside_the_one_client() -> None:
    package = Path(heap_assets.__file__).parent
    calls = (
        r"\bhttpx\.(get|post|put|request|stream|Client|AsyncClient)\b",
        r"\burlopen\(",
        r"\brequests\.(get|post)\b",
    )
    call = re.compile("|".join(calls))
    others = [path for path in package.rglob("*.py") if path.name != "http_client.py" and "demo" not in str(path)]
    assert len(others) > 100
    assert not [path for path in others if call.search(path.read_text())]


def test_whoever_calls_out_says_which_hosts_it_may() -> None:
    callers = {"HttpClient", "Transport", "Outbox", "deliver", "HeapDeletion", "reload_code_locations", "alert_sensors"}
    package = Path(heap_assets.__file__).parent
    calls = [
        (path, node)
        for path in package.rglob("*.py")
        if "demo" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in callers
    ]
    assert {node.func.id for _, node in calls if isinstance(node.func, ast.Name)} == callers
    silent = [
        f"{path.name}:{node.lineno}"
        for path, node in calls
        if "allowed" not in " ".join(ast.unparse(given) for given in (*node.args, *node.keywords))
    ]
    assert not silent, "it would call any host, whatever the settings of its deployment say"


@pytest.mark.parametrize("kind", ["slack", "webhook"])
def test_an_alert_channel_takes_or_refuses_whatever_the_server_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_TIMEOUT_SECONDS", SECONDS)
    misbehaviours = [*TAKES, *REFUSES]

    def told(name: str) -> bool:
        with hostile_server() as server:
            if name in TAKES:
                server.take(TAKES[name])
            else:
                server.refuse(REFUSES[name])
            channel = SlackChannel(url=server.url) if kind == "slack" else WebhookChannel(url=server.url)
            try:
                send(channel, MESSAGE, {})
            except DeliveryError:
                return False
            return True

    with ThreadPoolExecutor(24) as pool:
        running = {name: pool.submit(told, name) for name in misbehaviours}
        taken = {name for name, run in running.items() if run.result(ENDS)}
    # 2xx is all that a channel looks at: a text that cannot be read does not mean that nothing came
    assert set(TAKES) <= taken
    assert not {name for name in taken if "refusal" in name or "slow" in name or "cut" in name.split()[0]}


@pytest.mark.parametrize(
    "line", [b"2", b"220 slow\r\n", b"220-more\r\n", b"\xff\xfe\r\n", b"554 no\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_a_mail_server_that_misbehaves_ends_in_time(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_TIMEOUT_SECONDS", SECONDS)
    with dripping(line) as port:
        channel = EmailChannel(host="127.0.0.1", port=port, sender="a@x.test", recipients=("b@x.test",), starttls=False)
        with ThreadPoolExecutor(1) as pool, pytest.raises(DeliveryError, match="did not take the mail"):
            pool.submit(send, channel, MESSAGE, {}).result(ENDS)


def test_a_mail_server_that_is_not_allowed_is_not_connected_to() -> None:
    channel = EmailChannel(host="127.0.0.1", port=9, sender="a@x.test", recipients=("b@x.test",), starttls=False)
    with pytest.raises(DeliveryError, match="allowed_hosts"):
        send(channel, MESSAGE, {}, AllowedHosts.of([]))
