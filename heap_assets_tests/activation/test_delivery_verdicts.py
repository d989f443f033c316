"""What an answer means is read before its status: per row, for the rest of the batch, and for the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import delivery_kit as kit
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_server import Call, Say, Scripted, scripted

from heap_assets.activation import (
    BaseDestination,
    Dedupe,
    Limits,
    Mode,
    Request,
    Response,
    Row,
    RowVerdict,
    Status,
    SyncReport,
    Trouble,
    Verdict,
    deliver,
    retry_rejected,
)
from heap_assets.storage import Store


class Crm(BaseDestination):
    """Answers 200 whatever happens; its body says what became of each row, by position."""

    kind = "crm"
    limits = Limits(batch_rows=10)

    def __init__(self, url: str, *, rest: Any = "applied", dedupe: Dedupe | None = None, mode: Mode = Mode.UPSERT):
        self.url, self.rest, self.dedupe, self.mode = url, rest, dedupe or Dedupe(), mode
        self.required = ("event_key",) if mode is Mode.INSERT else ()

    @property
    def target(self) -> str:
        return "crm"

    def element(self, row: Row) -> Any:
        return {"key": row.key, "id": row.remote_id, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/rows", b"[" + b",".join(elements) + b"]")

    def trouble(self, response: Response) -> Trouble | None:
        code = response.json.get("code") if isinstance(response.json, dict) else None
        if code == "BUSY":
            return Trouble.throttled(0.05, "BUSY")
        if code == "DAILY":
            return Trouble.stop("the daily quota of ann@x.example is used up")
        return super().trouble(response)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        told = {int(index): row for index, row in response.json["rows"].items()}
        return Verdict({index: RowVerdict(**_timed(row)) for index, row in told.items()}, self.rest, "bad rows")


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "until": datetime.fromisoformat(row["until"])} if "until" in row else row


def by_key(outcomes: dict[str, dict[str, Any]]) -> Callable[[Call], Say]:
    """Answer with the outcome of each key that is named."""

    def answer(call: Call) -> Say:
        rows = {i: outcomes[row["key"]] for i, row in enumerate(call.json) if row["key"] in outcomes}
        return Say(200, {"rows": rows})

    return answer


def send(server: Scripted, lake: Store, rows: pl.DataFrame, run: str = "r", **choices: Any) -> SyncReport:
    made = {name: choices.pop(name) for name in ("rest", "dedupe", "mode") if name in choices}
    return deliver(kit.spec(**choices), Crm(server.url, **made), rows.lazy(), lake, kit.DAY, run, confirmed=True)


def keys(count: int) -> list[str]:
    return kit.people(count)["key"].to_list()


def test_a_2xx_names_what_became_of_every_row(lake: Store) -> None:
    k = keys(6)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    outcomes = {
        k[0]: {"status": "rejected", "reason": f"{k[0]} has no such plan"},
        k[1]: {"status": "no_match", "reason": "nobody"},
        k[2]: {"status": "deferred", "until": later, "reason": "too many at once"},
        k[3]: {"status": "invalid", "reason": "three records have this key"},
        k[4]: {"status": "acknowledged", "remote_id": "003A"},
    }
    with scripted(by_key(outcomes)) as server:
        report = send(server, lake, kit.people(6))
    assert (report.status, report.sent, report.rejected) == (Status.PARTIAL, 2, 1)
    assert (report.no_match, report.deferred, report.invalid, report.unknown) == (1, 1, 1, 0)
    assert "x.example" not in str(report)
    ledger = {row["key"]: row for row in kit.ledger(lake).iter_rows(named=True)}
    assert [ledger[key]["status"] for key in k] == [
        *("rejected", "no_match", "deferred", "invalid", "acknowledged", "acknowledged"),
    ]
    assert ledger[k[4]]["remote_id"] == "003A"
    kit.assert_ledger_is_the_log(lake)


def test_rows_without_a_record_wait_until_they_change_or_days_have_passed(lake: Store) -> None:
    k = keys(3)
    outcomes = {k[0]: {"status": "no_match"}, k[1]: {"status": "invalid", "reason": "twice"}}
    with scripted(by_key(outcomes)) as server:
        send(server, lake, kit.people(3))
        again = send(server, lake, kit.people(3))
        assert (again.requests, again.no_match, again.invalid, again.waiting) == (0, 1, 1, 0)
        changed = send(server, lake, kit.people(3, plan="team"))
        assert (changed.planned, changed.no_match, changed.invalid) == (3, 1, 1)
        days_later = send(server, lake, kit.people(3, plan="team"), unmatched_for=timedelta(0))
        assert (days_later.planned, days_later.no_match) == (2, 1)
        retry_rejected(lake, kit.spec(), "by hand")
        outcomes.clear()
        assert send(server, lake, kit.people(3, plan="team")).sent == 2


def test_a_deferred_row_is_sent_when_its_time_has_come(lake: Store) -> None:
    k = keys(2)
    soon = datetime.now(UTC) + timedelta(hours=3)
    outcomes: dict[str, dict[str, Any]] = {k[0]: {"status": "deferred", "until": soon.isoformat()}}
    with scripted(by_key(outcomes)) as server:
        send(server, lake, kit.people(2))
        waits = send(server, lake, kit.people(2, plan="team"))
        assert (waits.planned, waits.deferred) == (1, 1)
        outcomes[k[0]]["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        retry_rejected(lake, kit.spec(), "by hand")
        assert send(server, lake, kit.people(2, plan="team")).deferred == 1
        outcomes.clear()
        assert send(server, lake, kit.people(2, plan="team")).sent == 1


def test_the_id_of_a_record_is_given_to_the_next_run(lake: Store) -> None:
    k = keys(2)
    with scripted(by_key({k[0]: {"status": "acknowledged", "remote_id": "003A"}})) as server:
        send(server, lake, kit.people(2))
        send(server, lake, kit.people(2, plan="team"))
        send(server, lake, kit.people(2, plan="free"))
    first, *later = [{row["key"]: row["id"] for row in call.json} for call in server.calls]
    assert first == {k[0]: None, k[1]: None}
    assert later == [{k[0]: "003A", k[1]: None}] * 2


def test_what_was_refused_with_others_is_sent_again_without_them(lake: Store) -> None:
    k = keys(5)
    with scripted(by_key({k[1]: {"status": "rejected"}})) as server:
        report = send(server, lake, kit.people(5), rest="not_applied")
    assert (report.sent, report.rejected) == (0, 5)  # it never says that it applied any
    sizes = [len(call.json) for call in server.calls]
    assert sizes[:2] == [5, 4]
    assert max(sizes[2:]) < 4


def test_a_throttle_may_come_as_403_and_a_quota_ends_the_run(lake: Store) -> None:
    says = [Say(403, {"code": "BUSY"}), Say(200, {"code": "BUSY"}), Say(200, {"rows": {}})]

    def answer(call: Call) -> Say:
        return says.pop(0) if says else Say(400, {"code": "DAILY"})

    with scripted(answer) as server:
        report = send(server, lake, kit.people(20), concurrency=1)
    assert (report.status, report.sent, report.throttled, report.aborted) == (Status.STOPPED, 10, 2, 10)
    assert "quota" in str(report.reason)
    assert "ann@" not in str(report.reason)


def events(count: int) -> pl.DataFrame:
    return kit.people(count).with_columns(event_key=pl.format("e{}", "seats"))


@pytest.mark.parametrize("dedupe", [Dedupe("none"), Dedupe("window", 3600), Dedupe("window", 0.0), Dedupe()])
def test_the_dedupe_contract_decides_what_a_lost_answer_leads_to(lake: Store, dedupe: Dedupe) -> None:
    lost: list[Call] = []

    def answer(call: Call) -> Say:
        if not lost:
            lost.append(call)
            return Say(hang_up=True)
        return Say(200, {"rows": {}})

    repeatable = dedupe.kind != "none"
    with scripted(answer) as server:
        report = send(server, lake, events(20), dedupe=dedupe, mode=Mode.INSERT, concurrency=1)
        assert (report.sent, report.unknown) == ((20, 0) if repeatable else (10, 10))
        again = send(server, lake, events(20), dedupe=dedupe, mode=Mode.INSERT)
        assert (again.requests, again.lost) == (0, 0 if repeatable else 10)
        assert len([call for call in server.calls if call.json == lost[0].json]) == (2 if repeatable else 1)
        if not repeatable:
            retry_rejected(lake, kit.spec(), "by hand")
            assert send(server, lake, events(20), dedupe=dedupe, mode=Mode.INSERT).sent == 10


def test_a_row_in_flight_is_sent_again_only_within_the_window(lake: Store) -> None:
    """A run that dies in a call leaves rows that nobody knows about."""

    def dies(call: Call) -> Say:
        return Say(200, {"rows": {i: {"status": "unknown"} for i in range(len(call.json))}})

    with scripted(dies) as server:
        send(server, lake, events(5), mode=Mode.INSERT)
        server.answer = by_key({})
        late = send(server, lake, events(5), mode=Mode.INSERT, dedupe=Dedupe("window", 0.0))
        assert (late.requests, late.lost) == (0, 5)
        early = send(server, lake, events(5), mode=Mode.INSERT, dedupe=Dedupe("window", 3600))
        assert (early.sent, early.lost) == (5, 0)


def test_a_destination_that_never_answers_ends_the_run_before_all_is_lost(lake: Store) -> None:
    with scripted(lambda _: Say(hang_up=True)) as server:
        report = send(server, lake, events(200), dedupe=Dedupe("none"), mode=Mode.INSERT, concurrency=1)
    assert report.status == Status.STOPPED
    assert report.unknown == len(server.calls) * 10 == kit.QUICK.attempts * 10
    assert report.aborted == 200 - report.unknown


STATUSES = st.sampled_from(["acknowledged", "sent", "rejected", "invalid", "no_match", "unknown"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outcomes=st.dictionaries(st.integers(0, 11), STATUSES, max_size=12),
    rest=st.sampled_from(["applied", "not_applied", "unknown"]),
)
def test_every_row_ends_with_the_outcome_that_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, outcomes: dict[int, str], rest: str
) -> None:
    lake, k = kit.store(tmp_path_factory.mktemp("lake")), keys(12)
    told = {k[i]: {"status": status} for i, status in outcomes.items()}
    with scripted(by_key(told)) as server:
        report = send(server, lake, kit.people(12), rest=rest, broken_share=1.0)
    ledger = dict(kit.ledger(lake).select("key", "status").iter_rows())
    others = "acknowledged" if rest == "applied" else "rejected"
    assert ledger == {key: told[key]["status"] if key in told else others for key in k}
    assert report.sent == sum(status in ("acknowledged", "sent") for status in ledger.values())
    assert report.sent + report.rejected + report.invalid + report.no_match + report.unknown == 12
    kit.assert_ledger_is_the_log(lake)
