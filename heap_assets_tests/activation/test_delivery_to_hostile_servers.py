"""Whatever a server does, a run ends with an outcome for every row, and the next one makes good what is open."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import BaseDestination, Limits, Mode, Request, Retry, Status, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_account_properties import HeapAccountProperties
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_identify import HeapIdentify
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.activation.connectors.segment import SegmentSource
from heap_assets.activation.connectors.segment_group import SegmentGroup
from heap_assets.activation.connectors.segment_identify import SegmentIdentify
from heap_assets.activation.connectors.segment_reidentify import SegmentReidentify
from heap_assets.activation.connectors.segment_track.rows import SegmentTrack
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets_tests.hostile_server import REFUSES, TAKES, Hostile, hostile_server

HASTY = Retry(
    attempts=2, first_wait=0.001, longest_wait=0.005, longest_retry_after=0.01, throttled_for=0.1, timeout=0.6
)
ENDS = 60
"""Seconds after which a run counts as one that never ends; the calls of one take 2 x 0.6 s at most."""
PEOPLE = [f"person-{n}@x.example" for n in range(4)]
IN_DOUBT = {"rejected", "unknown"}


class Custom(BaseDestination):
    """One of a company's own, which reads answers carelessly."""

    kind = "careless"
    limits = Limits(batch_rows=2)

    def __init__(self, url: str) -> None:
        self._url = url

    def request(self, elements: Any, rows: Any) -> Request:
        return Request(self._url, b"[" + b",".join(elements) + b"]")

    def rejections(self, response: Any, rows: Any) -> Any:
        return {e["index"]: e["message"] for e in json.loads(response.body or b"{}").get("errors", [])}


def _users() -> pl.DataFrame:
    return pl.DataFrame(
        {"key": PEOPLE, "plan": ["pro", "free", "pro", "team"], "user_id": [f"98765{n}" for n in range(4)]}
    )


def _events() -> pl.DataFrame:
    events = _users().with_columns(event_key="key", event=pl.lit("Paid"), time=pl.lit("2026-11-20T10:00:00.000Z"))
    return events.with_columns(anonymous_id=pl.lit(None, pl.String))


def _pairs() -> pl.DataFrame:
    return _users().with_columns(event_key=pl.concat_str("user_id", pl.lit("\x1f"), "key"))


def _account(app: HeapApp) -> BaseDestination:
    return HeapAccountProperties(app, account_id_configured=True, users_synced=lambda: True, batch_rows=3)


KINDS: dict[str, tuple[Callable[[str], BaseDestination], Callable[[], pl.DataFrame]]] = {
    "heap_user_properties": (lambda url: HeapUserProperties(HeapApp("11", base_url=url), batch_rows=3), _users),
    "heap_account_properties": (lambda url: _account(HeapApp("11", base_url=url)), _users),
    "heap_events": (lambda url: HeapEvents(HeapApp("11", base_url=url), source="orders", batch_rows=3), _events),
    "heap_identify": (lambda url: HeapIdentify(HeapApp("11", base_url=url), enabled=True), _pairs),
    "segment_track": (lambda url: SegmentTrack(SegmentSource("wk", "us", url), table="paid"), _events),
    "segment_identify": (lambda url: SegmentIdentify(SegmentSource("wk", "us", url)), _users),
    "segment_group": (lambda url: SegmentGroup(SegmentSource("wk", "us", url)), _users),
    "segment_reidentify": (lambda url: SegmentReidentify(SegmentSource("wk", "us", url)), _events),
    "webhook": (lambda url: Webhook(WebhookSettings(url, secret="s3cret", batch_rows=3), name="users"), _users),
    "webhook of events": (lambda url: Webhook(WebhookSettings(url), name="users", mode=Mode.INSERT), _events),
    "custom": (lambda url: Custom(url), _users),
}


def _spec(kind: str) -> SyncSpec:
    mapped = {} if kind in ("heap_identify", "segment_reidentify") else {"Plan": "plan"}
    return SyncSpec("users", mapped, retry=HASTY, concurrency=2, broken_share=1.0)


def _send(kind: str, server: Hostile, lake: Any, run: str) -> Any:
    make, rows = KINDS[kind]
    return deliver(_spec(kind), make(server.url), rows().lazy(), lake, kit.DAY, run, confirmed=True)


def _people_in(bodies: list[bytes]) -> set[str]:
    return {person for person in PEOPLE for body in bodies if person.encode() in body}


def _settled(lake: Any) -> set[str]:
    ledger = kit.ledger(lake)
    done = ledger.filter(pl.col("status").is_in(["acknowledged", "sent"]))["key"].to_list()
    return {person for person in PEOPLE for key in done if person in key}


def _holds(kind: str, misbehaviour: str, folder: Path) -> None:
    lake = kit.store(folder)
    with hostile_server() as server:
        if misbehaviour in TAKES:
            server.take(TAKES[misbehaviour])
        else:
            server.refuse(REFUSES[misbehaviour])
        report = _send(kind, server, lake, "hostile")
        assert report.status in (Status.SUCCEEDED, Status.PARTIAL, Status.STOPPED), report
        assert report.sent + report.rejected + report.unknown + report.aborted == report.planned == len(PEOPLE)
        # nothing counts as delivered that the server did not take by its own word
        assert _settled(lake) <= _people_in(server.taken)
        if misbehaviour in TAKES and kind != "custom":
            assert report.status is Status.SUCCEEDED, report
        kit.assert_ledger_is_the_log(lake)
        settled = _settled(lake)
        server.be_polite()
        before = len(server.taken)
        again = _send(kind, server, lake, "polite")
        assert again.status is Status.SUCCEEDED, again
        assert _settled(lake) == set(PEOPLE)
        # nothing lost, and nothing that was acknowledged sent again
        assert _people_in(server.taken) == set(PEOPLE)
        assert not _people_in(server.taken[before:]) & settled


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_ends_with_outcomes_and_the_next_one_completes_it(kind: str, tmp_path: Path) -> None:
    whole = kind == "heap_user_properties" or "HEAP_ASSETS_LONG" in os.environ
    # the engine is one for all: each other kind takes every seventh of what a server may do
    first, step = (0, 1) if whole else (list(KINDS).index(kind) % 7, 7)
    misbehaviours = [*TAKES, *REFUSES][first::step]
    with ThreadPoolExecutor(16) as pool:
        running = {
            name: pool.submit(_holds, kind, name, tmp_path / str(number)) for number, name in enumerate(misbehaviours)
        }
        for name, run in running.items():
            try:
                run.result(timeout=ENDS)
            except AssertionError as error:
                raise AssertionError(f"{kind}, {name}: {error}") from error
