"""Consent of events: those of people without it are not sent, nor those from before it, by any way events go out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from heap_assets.activation import Addressed, connector_of, covers
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.consent import with_consent_of_day
from heap_assets.pipelines.sync_checks import check_syncs, results_of
from heap_assets.pipelines.sync_gate import due_days
from heap_assets.pipelines.sync_why import why as why_of_key
from heap_assets.privacy import newest_statements, with_consent
from heap_assets.privacy.consent import STATEMENTS
from heap_assets.quality import CONSENTED, CheckResult
from heap_assets_tests.pipelines.delivery_world import (
    BEFORE,
    DAY,
    LONG_AGO,
    WRITE_KEY,
    World,
    at,
    contacts,
    next_day,
    orders,
)
from heap_assets_tests.privacy.canary import BOB, copied

ANN, CAT, DAN = "ann@x.example", "cat@x.example", "dan@x.example"
CONSENT = """
privacy:
  consent:
    purposes: [marketing]
    sources:
      - {table: contacts, columns: {marketing: opt_in}, at: stated_at}
    absent: no
    region: plan
    absent_by_region: {pro: yes}
"""
EVENTS = "heap_events: {source: orders, event_name: Ordered, purpose: marketing, since: beginning}"
HOOK = """\
hook: {kind: webhook, mode: insert, source: orders, key: email, event_name: Ordered, purpose: marketing,
       url: 'http://127.0.0.1:9/', since: beginning, before_consent: BEFORE}"""
TRACK = """\
segment_track: {{url: '{url}', write_key: {key}, since: beginning, columns: [plan], purpose: marketing,
                before_consent: {before}}}"""
MOMENTS = [at(LONG_AGO), at(BEFORE), at(DAY, 9), at(DAY)]
Answer = tuple[str | None, datetime | None]


def world_of(base: World, folder: Path, syncs: str, url: str = "http://127.0.0.1:9", consent: str = CONSENT) -> World:
    world = copied(base, folder / "world", syncs, url, consent)
    for info in world.lake.store.list("_landing"):
        world.lake.store.delete(info.key)  # identity waits for what landed
    return world


def answered(day: date = DAY, plan: str = "free", **answers: Answer) -> pl.DataFrame:
    given_answers = [answers.get(name, (None, None)) for name in ("ann", "bob", "cat", "dan")]
    return contacts(plan=plan).with_columns(
        opt_in=pl.Series([answer for answer, _ in given_answers], dtype=pl.String),
        stated_at=pl.Series([moment for _, moment in given_answers], dtype=pl.Datetime("us", "UTC")),
        created_at=pl.lit(at(day)),
    )


def sent(world: World, name: str, day: date, run: str) -> tuple[delivery.Delivery, CheckResult]:
    outcome = delivery.send(world.project, name, day, run, delivery.RunOptions(confirmed=True))
    assert outcome.arrived, outcome.report.reason
    return outcome, results_of(world.project, name, outcome)[CONSENTED]


_MOMENT = st.one_of(st.none(), st.integers(0, 6))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), _MOMENT)),
    st.booleans(),
    st.sampled_from(["EU", "us", None]),
    _MOMENT,
)
@example([(True, 1), (False, 1)], True, "us", 2)
@example([(True, None)], False, None, 2)
def test_consent_covers_what_happened_since_it_was_given(
    stated: list[tuple[bool, int | None]], absent: bool, region: str | None, happened: int | None
) -> None:
    def moment(number: int | None) -> datetime | None:
        return None if number is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)

    rows = [("a", "m", yes, moment(number), "s") for yes, number in stated]
    statements = newest_statements([pl.DataFrame(rows, schema=STATEMENTS, orient="row").lazy()])
    profiles = pl.LazyFrame({"profile_id": ["a"], "region": [region]}, schema_overrides={"region": pl.String})
    asked = with_consent(
        profiles, statements, ["m"], absent=absent, region="region", by_region={"eu": False, "us": True}
    )
    time = pl.lit(moment(happened), pl.Datetime("us", "UTC"))
    may = pl.col("consent_m") & covers(pl.col("consent_m__since"), time)

    if not stated:  # nothing was said: the region says what that means, for all times
        expected = {"EU": False, "us": True}.get(region or "", absent)
    elif happened is None:  # after which of the statements, nobody knows
        expected = False
    else:  # one reads the statements with a time one after the other, and of equally old ones the no last
        timed = sorted((number, not yes) for yes, number in stated if number is not None)
        consents_at = None
        for number, is_no in timed:
            consents_at = None if is_no else number if consents_at is None else consents_at
        expected = consents_at is not None and consents_at <= happened
    assert asked.select(may=may).collect()["may"].to_list() == [expected]


@pytest.fixture(scope="module")
def hook(canary_base: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return {
        before: world_of(canary_base, tmp_path_factory.mktemp(before), HOOK.replace("BEFORE", before))
        for before in ("leave", "send")
    }


_ANSWER = st.tuples(st.sampled_from(["yes", "no", None]), st.sampled_from([None, *MOMENTS]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.fixed_dictionaries(dict.fromkeys(("ann", "bob", "cat", "dan"), _ANSWER)),
    placed=st.lists(st.tuples(st.sampled_from(["ann", "bob", "cat", "dan", "eve"]), st.sampled_from(MOMENTS))),
    before=st.sampled_from(["leave", "send"]),
    plan=st.sampled_from(["free", "pro"]),
)
def test_a_run_sends_what_a_reader_of_the_tables_would_send(
    hook: dict[str, World],
    answers: dict[str, Answer],
    placed: list[tuple[str, datetime]],
    before: str,
    plan: str,
) -> None:
    world = hook[before]
    rows = [(f"o-{number}", f"{name}@x.example", moment) for number, (name, moment) in enumerate(placed)]
    world.write("warehouse/contacts", DAY, answered(plan=plan, **answers))
    world.write("warehouse/orders", DAY, orders(*rows).clear() if not rows else orders(*rows))
    profiles = world.lake.scan("profiles", str(DAY)).drop("^consent_.*$").with_columns(plan=pl.lit(plan))
    world.write("profiles", DAY, with_consent_of_day(world.project, profiles, DAY).collect())

    expected = set()
    for key, mail, moment in rows:
        answer, stated_at = answers.get(mail.partition("@")[0], (None, None))
        known = mail != "eve@x.example"
        if answer is None:
            may = known and plan == "pro"
        else:
            since_then = stated_at is not None and stated_at <= moment
            may = answer == "yes" and (before == "send" or since_then)
        expected |= {key} if may else set()
    connector = connector_of(world.project, "hook")
    made = connector.rows_to_send(DAY)
    assert isinstance(made, Addressed)
    found = made.rows.filter(pl.col(str(connector.spec().consent))).select("event_key").collect()["event_key"]
    assert set(found) == expected
    report = delivery.plan(world.project, "hook", DAY)[0].report
    assert (report.planned, report.no_consent) == (len(expected), len(rows) - len(expected))


def test_events_are_sent_from_the_consent_on_until_it_is_withdrawn(
    canary_base: World, tmp_path: Path, heap: ServerProcess
) -> None:
    world = world_of(canary_base, tmp_path, EVENTS, heap.base_url)
    heap.seed([ANN, BOB, CAT], app_id="11")

    def arrived() -> set[str]:
        return {f"{event['identity']} {event['timestamp'][:10]}" for event in heap.state()["events"].values()}

    placed = [("o-1", ANN, at(BEFORE)), ("o-2", ANN, at(DAY)), ("o-3", BOB, at(DAY)), ("o-4", CAT, at(DAY))]
    world.write("warehouse/orders", DAY, orders(*placed))
    world.write("warehouse/contacts", DAY, answered(ann=("yes", at(DAY, 8)), bob=("no", at(DAY, 8))))
    world.resolve(DAY)
    outcome, check = sent(world, "heap_events", DAY, "first")
    assert (outcome.report.sent, outcome.report.no_consent) == (1, 3)
    assert arrived() == {f"{ANN} {DAY}"}
    assert (check.passed, check.numbers["people_sent"]) == (True, 1)
    facts = {fact.subject: fact.statement for fact in why_of_key(world.project, "heap_events", BOB, DAY)}
    assert facts["consent"].startswith("consent_marketing is not true of its person")

    day = next_day()
    later = [*placed, ("o-5", ANN, at(day)), ("o-6", BOB, at(day))]
    stated = answered(ann=("no", at(day, 1)), bob=("yes", at(day, 1)))
    world.write_day(day, contacts=stated, orders=orders(*later))
    world.resolve(day)
    outcome, check = sent(world, "heap_events", day, "second")
    assert arrived() == {f"{ANN} {DAY}", f"{BOB} {day}"}, "no event from before the consent, none after a withdrawal"
    assert check.passed
    again, _ = sent(world, "heap_events", DAY, "an old day, by what people say today")
    assert again.report.sent == 0

    world.choose(EVENTS.replace("since", "before_consent: send, since"))
    outcome, check = sent(world, "heap_events", day, "third")
    assert arrived() == {f"{ANN} {DAY}", f"{BOB} {DAY}", f"{BOB} {day}"}
    assert check.passed


def test_the_check_finds_events_of_people_without_consent(
    canary_base: World, tmp_path: Path, heap: ServerProcess
) -> None:
    world = world_of(canary_base, tmp_path, EVENTS, heap.base_url)
    heap.seed([ANN, BOB, CAT], app_id="11")
    world.write("warehouse/orders", DAY, orders(("o-1", ANN, at(DAY, 7)), ("o-2", BOB, at(DAY)), ("o-3", CAT, at(DAY))))
    world.write("warehouse/contacts", DAY, answered(ann=("yes", at(DAY, 8)), bob=("no", at(DAY, 8))))
    world.resolve(DAY)
    profiles = world.lake.scan("profiles", str(DAY)).collect()
    always = profiles.with_columns(consent_marketing=pl.lit(value=True), consent_marketing__since=pl.lit(at(LONG_AGO)))
    world.write("profiles", DAY, always)  # a fault before the sync
    outcome, check = sent(world, "heap_events", DAY, "breach")
    assert outcome.report.sent == 3
    assert (check.passed, check.numbers["without_consent"]) == (False, 3), "one of them was too early"
    assert check.offenders is not None
    assert not any(name in str(check.offenders.to_dicts()) for name in (ANN, BOB, CAT, "o-1"))


def test_forwarded_events_of_heap_ask_for_consent_too(
    canary_base: World, tmp_path: Path, segment: ServerProcess
) -> None:
    def track(before: str) -> str:
        return TRACK.format(url=segment.base_url, key=WRITE_KEY, before=before)

    def people() -> list[tuple[str, str | None]]:
        return sorted((event["timestamp"][:10], event.get("userId")) for event in segment.state()["events"].values())

    world = world_of(canary_base, tmp_path, track("leave"), consent=CONSENT)
    world.write("warehouse/contacts", DAY, answered(ann=("yes", at(DAY, 8)), bob=("no", at(DAY, 8))))
    world.resolve(DAY)
    for day in (BEFORE, DAY):
        outcome, check = sent(world, "segment_track", day, f"first {day}")
        assert (outcome.report.sent, outcome.report.no_consent) == ((0, 6) if day == BEFORE else (1, 5))
        assert check.passed
    assert people() == [(str(DAY), ANN)]
    assert due_days(world.project, "segment_track") == [LONG_AGO]

    world.write("warehouse/contacts", DAY, answered(ann=("yes", at(DAY, 8)), bob=("yes", at(DAY, 18))))
    world.resolve(DAY)
    for before, expected in (("leave", 0), ("send", 2)):
        world.choose(track(before))
        outcome, check = sent(world, "segment_track", DAY, before)
        assert outcome.report.sent == expected, "a consent does not send what happened before it"
        assert check.passed
    assert people() == [(str(DAY), ANN), (str(DAY), BOB), (str(DAY), BOB)]
    assert DAY in due_days(world.project, "segment_track"), "its other people may consent yet"


@pytest.mark.parametrize(
    ("syncs", "old", "new", "message"),
    [
        (HOOK.replace("BEFORE", "leave"), ", at: stated_at", "", r"sources\[0\] does not say when people consented"),
        (
            HOOK.replace("BEFORE", "leave").replace("source: orders", "source: moves"),
            "",
            "",
            "events of moves have no time",
        ),
        ("heap_user_properties: {properties: {P: plan}, before_consent: send}", "", "", "before_consent is for a sync"),
        (HOOK.replace("BEFORE", "leave"), "[marketing]", "[marketing, a__since]", "ends with __since"),
        (
            "hook: {kind: webhook, source: accounts, url: 'http://127.0.0.1:9/', properties: {S: size}, "
            "purpose: marketing}",
            "",
            "",
            "purpose is for a sync of profiles or of events",
        ),
        (
            "hook: {kind: webhook, url: 'http://127.0.0.1:9/', properties: {P: plan}, consent: c, purpose: marketing}",
            "",
            "",
            "Name the column of the purpose, and no purpose: consent: consent_marketing",
        ),
    ],
)
def test_mistakes_are_named(canary_base: World, tmp_path: Path, syncs: str, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_syncs(copied(canary_base, tmp_path / "world", syncs, more=CONSENT.replace(old, new, 1)).project)
