"""Consent: the newest statement holds, absence means what the region says, withdrawal clears what was sent."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_checks import results_of
from heap_assets.privacy import newest_statements, with_consent
from heap_assets.privacy.consent import STATEMENTS
from heap_assets.project import parse_settings
from heap_assets.quality import CONSENTED, CheckResult, nobody_without_consent
from heap_assets_tests.pipelines.delivery_world import DAY, World, at, contacts, next_day, properties
from heap_assets_tests.privacy.canary import BOB, copied

ANN, CAT = "ann@x.example", "cat@x.example"
CONSENT = """
privacy:
  consent:
    purposes: [marketing]
    sources:
      - {table: moves, purpose: move_id, state: city, granted: [Yes]}
      - {table: contacts, columns: {marketing: opt_in}, at: stated_at}
    absent: no
    region: plan
    absent_by_region: {pro: yes}
"""
SYNC = "heap_user_properties: {properties: {Account: account}, purpose: marketing}"
_STATEMENT = st.tuples(
    st.sampled_from("ab"), st.sampled_from(["m", "n"]), st.booleans(), st.one_of(st.none(), st.integers(0, 5))
)


@given(st.lists(_STATEMENT))
def test_the_newest_statement_holds_and_of_equally_old_ones_the_no(
    stated: list[tuple[str, str, bool, int | None]],
) -> None:
    def moment(number: int | None) -> datetime | None:
        return None if number is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)

    rows = [(person, purpose, yes, moment(number), "s") for person, purpose, yes, number in stated]
    frame = newest_statements([pl.DataFrame(rows, schema=STATEMENTS, orient="row").lazy()]).collect()
    for person, purpose in {(person, purpose) for person, purpose, _, _ in stated}:
        own = [(number, yes) for one, about, yes, number in stated if (one, about) == (person, purpose)]
        latest = max((number if number is not None else -1) for number, _ in own)
        expected = all(yes for number, yes in own if (number if number is not None else -1) == latest)
        found = frame.filter((pl.col("profile_id") == person) & (pl.col("purpose") == purpose))
        assert found["granted"].to_list() == [expected]


def test_absence_means_what_the_region_says() -> None:
    profiles = pl.LazyFrame({"profile_id": ["a", "b", "c"], "country": ["DE", "us ", None]})
    nothing = newest_statements([])
    result = with_consent(
        profiles, nothing, ["marketing"], absent=True, region="country", by_region={"de": False, "US": True}
    ).collect()
    assert result["consent_marketing"].to_list() == [False, True, True]


def stated(**answers: str) -> pl.DataFrame:
    people = contacts(plan="free")
    opt_in = [answers.get(name) for name in ("ann", "bob", "cat", "dan")]
    return people.with_columns(
        opt_in=pl.Series(opt_in, dtype=pl.String), stated_at=pl.Series([at(DAY)] * 4, dtype=pl.Datetime("us", "UTC"))
    )


def test_without_consent_nothing_is_sent_and_withdrawal_clears_what_was(
    canary_base: World, tmp_path: Path, heap: ServerProcess
) -> None:
    world = copied(canary_base, tmp_path / "world", SYNC, heap.base_url, CONSENT)
    _ = world.project.lake.store.list("_landing")
    for info in world.lake.store.list("_landing"):
        world.lake.store.delete(info.key)  # identity waits for what landed
    heap.seed([ANN, BOB, CAT], app_id="11")
    world.write("warehouse/contacts", DAY, stated(ann="yes", bob="no"))
    world.resolve(DAY)
    profiles = world.lake.scan("profiles", str(DAY)).collect()
    consents = dict(profiles.select("heap_identity", "consent_marketing").drop_nulls("heap_identity").iter_rows())
    assert (consents[ANN], consents[BOB], consents[CAT]) == (True, False, False)
    sent = delivery.send(world.project, "heap_user_properties", DAY, "run").report
    assert (sent.sent, sent.no_consent) == (1, 3)
    assert properties(heap)[ANN] == {"Account": "acme"}
    assert "Account" not in properties(heap)[BOB]

    day = next_day()
    world.write_day(day, contacts=stated(ann="no", bob="yes"))
    world.resolve(day)
    delivery.send(world.project, "heap_user_properties", day, "later", delivery.RunOptions(force=True))
    assert properties(heap)[ANN] == {"Account": "(none)"}
    assert properties(heap)[BOB] == {"Account": "acme"}


def consented(world: World, day: date, run: str, options: delivery.RunOptions | None = None) -> CheckResult:
    sent = delivery.send(world.project, "heap_user_properties", day, run, options)
    assert sent.arrived, sent.report.reason
    return results_of(world.project, "heap_user_properties", sent)[CONSENTED]


def test_the_check_proves_it_from_the_changelog_and_finds_a_planted_breach(
    canary_base: World, tmp_path: Path, heap: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(canary_base, tmp_path / "world", SYNC, heap.base_url, CONSENT)
    for info in world.lake.store.list("_landing"):
        world.lake.store.delete(info.key)  # identity waits for what landed
    heap.seed([ANN, BOB, CAT], app_id="11")
    world.write("warehouse/contacts", DAY, stated(ann="yes", bob="no", cat="yes"))
    world.resolve(DAY)
    result = consented(world, DAY, "honest")
    assert (result.passed, result.numbers["people_sent"]) == (True, 2)

    world.write("warehouse/contacts", DAY, stated(ann="no", bob="no", cat="yes"))
    world.resolve(DAY)
    cleared = consented(world, DAY, "withdrawal")
    assert (cleared.passed, cleared.numbers["people_sent"]) == (True, 0)

    # profiles that say yes for everybody, whatever people have stated: what a fault before the sync looks like
    profiles = world.lake.scan("profiles", str(DAY)).collect().with_columns(consent_marketing=pl.lit(value=True))
    world.write("profiles", DAY, profiles)
    result = consented(world, DAY, "breach", delivery.RunOptions(force=True))
    assert not result.passed
    assert (result.numbers["people_sent"], result.numbers["without_consent"]) == (2, 2)
    assert result.offenders is not None
    text = f"{result.numbers} {result.notes} {result.offenders.to_dicts()}"
    assert not any(name in text for name in (ANN, BOB, "c-ann", "c-bob"))


SENT_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("op", "status", "hashes", "own", "consents", "stated", "passed"),
    [
        ("change", "acknowledged", [7], True, True, None, True),
        ("change", "acknowledged", [7], True, False, None, False),
        ("add", "rejected", [7], True, False, SENT_AT - timedelta(days=1), False),
        ("add", "unknown", [7], True, None, None, False),  # of nobody that the day knows
        ("change", "acknowledged", [7], True, False, SENT_AT + timedelta(hours=1), True),  # withdrawn since
        ("change", "acknowledged", [0], True, False, None, True),  # cleared
        ("withdraw", "acknowledged", [2], True, False, None, True),
        ("insert", "sent", [], True, False, None, False),
        ("change", "aborted", [7], True, False, None, True),  # never went out
        ("change", "acknowledged", [7], False, False, None, True),  # sent live: the answer may be younger
        ("change", "acknowledged", [7], False, False, SENT_AT - timedelta(days=1), False),
    ],
)
def test_what_counts_as_sent_without_consent(
    op: str,
    status: str,
    hashes: list[int],
    own: bool,
    consents: bool | None,
    stated: datetime | None,
    passed: bool,
) -> None:
    sent = pl.DataFrame(
        [{"key_hash": "a1", "op": op, "status": status, "hashes": hashes, "intended_at": SENT_AT, "own": own}],
        schema_overrides={"hashes": pl.List(pl.UInt64)},
    )
    people = pl.DataFrame(
        [("a1", consents, stated)],
        schema={"key_hash": pl.String, "consents": pl.Boolean, "at": pl.Datetime("us", "UTC")},
        orient="row",
    )
    people = people if consents is not None else people.clear()
    assert nobody_without_consent(sent, people).passed == passed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("purpose: marketing}", "purpose: ads}", "sync.heap_user_properties.purpose is 'ads'"),
        ("    region: plan\n", "", "region and absent_by_region: give both, or neither"),
        ("columns: {marketing: opt_in}", "columns: {ads: opt_in}", "which purposes does not list"),
        (", state: city", "", "give purpose and state"),
    ],
)
def test_mistakes_are_named(canary_base: World, tmp_path: Path, old: str, new: str, message: str) -> None:
    world = copied(canary_base, tmp_path / "world", SYNC, more=CONSENT)
    path = world.folder / "heap_assets.yaml"
    text = path.read_text()
    assert old in text
    with pytest.raises(SettingsError, match=message):
        parse_settings(text.replace(old, new), path)
