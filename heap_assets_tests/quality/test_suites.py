"""The suites over sixty clean days, and over every fault planted one by one."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.quality.engine import Check, CheckContext, blocking_checks
from heap_assets.quality.heap_tables import checks_for_event_table, checks_for_migrations, checks_for_users
from heap_assets.quality.identity import checks_for_identity
from heap_assets.quality.profiles import WarehouseKeys, checks_for_profiles
from heap_assets.quality.recency import recency_checks
from heap_assets.quality.result_store import gate, partition_version, record
from heap_assets.quality.results import CheckResult
from heap_assets.quality.sync import checks_for_sync, delivery_recency_check, sync_results
from heap_assets.quality.thresholds import Cadence
from heap_assets.quality.warehouse import checks_for_warehouse_table
from heap_assets.storage import Lake

START = date(2026, 9, 1)
TABLE = "heap/events/signup"
CONTACTS = "warehouse/crm_contacts"
CHECKS: dict[str, list[Check]] = {
    TABLE: checks_for_event_table(TABLE, properties=["plan", "note"]),
    "heap/sessions": checks_for_event_table("heap/sessions"),
    "heap/users": checks_for_users(),
    "heap/user_migrations": checks_for_migrations(),
    CONTACTS: checks_for_warehouse_table(
        CONTACTS, key="contact_id", identifiers={"email": "email", "contact_id": "crm_id"}
    ),
}
IDENTITY = checks_for_identity(
    limits={"email": 3}, heap_types=["heap_identity"], other_types=["crm_id"], unique_types=["crm_id", "email"]
)
PROFILES = checks_for_profiles(
    unique_types=["heap_identity", "email", "crm_id"],
    warehouse_keys=[WarehouseKeys(CONTACTS, "contact_id", {"email": "email", "contact_id": "crm_id"})],
    snapshots=["heap/users", CONTACTS],
)
EVENTS = [TABLE, "heap/sessions"]
CHECKS["heap/users"] = checks_for_users(events=EVENTS)
RECENCY = [
    *recency_checks(dict.fromkeys(EVENTS, Cadence()), dict.fromkeys(("heap/users", CONTACTS), Cadence())),
    delivery_recency_check("sync/heap_user_properties", Cadence()),
]
SYNC = checks_for_sync("sync/heap_user_properties")
Frames = dict[str, pl.DataFrame]


def clean_day(day: date, chance: random.Random) -> Frames:
    """Build a day of a small company: weekends at a third, 2 % more people every week, 5 % noise."""
    age = (day - START).days
    people = 200 + 2 * age
    rows = round(400 * (0.33 if day.weekday() > 4 else 1.0) * 1.02 ** (age / 7) * chance.uniform(0.95, 1.05))
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    user = [chance.randrange(people) for _ in range(rows)]
    times = [noon + timedelta(seconds=n) for n in range(rows)]
    common = {"user_id": user, "session_id": [100_000 * age + n for n in range(rows)], "time": times}
    events = pl.DataFrame(
        {
            "event_id": range(rows),
            **common,
            "plan": [chance.choice(["free", "pro", None]) for _ in range(rows)],
            "note": [f"step {n % 7}" for n in range(rows)],
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    users = pl.DataFrame(
        {
            "user_id": range(people),
            "identity": [f"u{n}" if n % 2 else None for n in range(people)],
            "migrated_to": pl.Series([None] * people, dtype=pl.Int64),
        }
    )
    migrations = pl.DataFrame({"from_user_id": [900], "to_user_id": [1], "resolved_to": [1], "cycle": [False]})
    contacts = pl.DataFrame(
        {"contact_id": [str(n) for n in range(people)], "email": [f"p{n}@acme.test" for n in range(people)]}
    )
    return {
        "heap/users": users,
        "heap/user_migrations": migrations,
        "heap/sessions": events.drop("event_id", "note"),
        TABLE: events,
        CONTACTS: contacts,
    }


def judge(lake: Lake, checks: Iterable[Check], asset: str, day: date) -> dict[str, bool]:
    """Judge one partition as a step does, and store the results."""
    subject = CheckContext(lake, asset, str(day))
    results = {}
    for check in checks:
        if check.asset != asset or check.evaluate is None:
            continue
        result = check.evaluate(replace(subject, check=check.name))
        record(
            lake.store,
            result,
            asset=asset,
            check=check.name,
            partition=str(day),
            version=partition_version(lake, asset, str(day)),
            severity=check.severity,
            blocking=check.blocking,
        )
        results[check.name] = result.passed
    return results


def test_an_event_that_never_happened_is_not_late_and_pageviews_without_rows_are(lake: Lake) -> None:
    rows = clean_day(START, random.Random(1))[TABLE].clear()
    checks = {check.asset: check for check in recency_checks(dict.fromkeys((TABLE, "heap/pageviews"), Cadence()), {})}
    results = {}
    for asset, check in checks.items():
        lake.write(asset, str(START), rows)
        assert check.evaluate is not None
        results[asset] = check.evaluate(CheckContext(lake, asset, str(START), check.name))
    assert results[TABLE].passed
    assert str(results[TABLE].not_judged).startswith("no row in its 45 newest days")
    assert not results["heap/pageviews"].passed


def store(lake: Lake, check: Check, result: CheckResult, partition: str) -> None:
    record(
        lake.store,
        result,
        asset=check.asset,
        check=check.name,
        partition=partition,
        version=None,
        severity=check.severity,
        blocking=check.blocking,
    )


def live_through(lake: Lake, days: int, seed: int = 1) -> list[tuple[str, str, date]]:
    """Write and judge clean days; return what failed."""
    chance = random.Random(seed)
    failed = []
    for n in range(days):
        day = START + timedelta(days=n)
        for asset, frame in clean_day(day, chance).items():
            lake.write(asset, str(day), frame)
            results = judge(lake, CHECKS[asset], asset, day)
            failed += [(asset, name, day) for name, passed in results.items() if not passed]
    return failed


def test_nothing_fails_over_sixty_clean_days_with_seasons_and_growth(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every check of the platform judges every day: tables, identity, profiles, syncs, and how new all of it is."""
    chance = random.Random(1)
    failed, judged = [], set()
    for n in range(60):
        day = START + timedelta(days=n)
        monkeypatch.setenv(clock.VARIABLE, f"{day + timedelta(days=1)}T03:00:00+00:00")
        results = {(asset, name): passed for asset, name, passed in lived_day(lake, day, chance)}
        failed += [(asset, name, day) for (asset, name), passed in results.items() if not passed]
        judged |= set(results)
    assert failed == []
    everything = [*IDENTITY, *PROFILES, *RECENCY, *SYNC, *(check for checks in CHECKS.values() for check in checks)]
    given_by_steps = {"readable"}
    assert {(c.asset, c.name) for c in everything if c.name not in given_by_steps} == judged


def lived_day(lake: Lake, day: date, chance: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Write a clean day of everything, people and deliveries included, and judge it by every check."""
    for asset, frame in clean_day(day, chance).items():
        lake.write(asset, str(day), frame)
    people_day(lake, day, profiles=200 + 2 * (day - START).days, contacts=False, chance=chance)
    for asset, checks in CHECKS.items():
        yield from ((asset, name, passed) for name, passed in judge(lake, checks, asset, day).items())
    for asset in dict.fromkeys(check.asset for check in [*IDENTITY, *PROFILES]):
        yield from ((asset, name, passed) for name, passed in judge(lake, [*IDENTITY, *PROFILES], asset, day).items())
    sent = round(150 * chance.uniform(0.5, 1.5))
    report = {"status": "succeeded", "planned": sent, "sent": sent, "invalid": chance.randrange(3), "rejected": 0}
    known = lake.scan("heap/users", str(day))
    ledger = known.drop_nulls("identity").select(key="identity")
    for name, result in sync_results(report, ledger=ledger, users=known).items():
        store(lake, next(c for c in SYNC if c.name == name), result, str(day))
        yield "sync/heap_user_properties", name, result.passed
    for check in RECENCY:
        assert check.evaluate is not None
        result = check.evaluate(CheckContext(lake, check.asset, "all", check=check.name))
        yield check.asset, check.name, result.passed


Fault = Callable[[pl.DataFrame], pl.DataFrame]
FAULTS: list[tuple[str, str, Fault]] = [
    (TABLE, "unique_keys", lambda f: pl.concat([f, f.head(3)])),
    (TABLE, "ids_and_times", lambda f: f.with_columns(user_id=pl.when(pl.col("event_id") > 5).then("user_id"))),
    (TABLE, "ids_and_times", lambda f: f.with_columns(pl.col("time") + timedelta(hours=11, minutes=58))),
    (TABLE, "volume_as_usual", lambda f: f.head(f.height // 5)),
    (TABLE, "volume_as_usual", lambda f: f.head(0)),
    (TABLE, "columns_as_usual", lambda f: f.with_columns(plan=pl.lit(None, pl.String))),
    (TABLE, "columns_as_usual", lambda f: f.with_columns(coupon=pl.lit("x"))),
    (TABLE, "columns_as_usual", lambda f: f.drop("note")),
    (TABLE, "columns_as_usual", lambda f: f.with_columns(pl.col("session_id").cast(pl.String))),
    (TABLE, "names_known", lambda f: f.with_columns(pl.col("user_id") + 10_000)),
    (TABLE, "no_personal_data", lambda f: f.with_columns(note=pl.lit("ann@acme.com"))),
    ("heap/users", "unique_keys", lambda f: pl.concat([f, f.head(1)])),
    ("heap/users", "not_shrunk", lambda f: f.head(f.height // 2)),
    ("heap/user_migrations", "no_cycles", lambda f: f.with_columns(cycle=pl.lit(True))),
    (CONTACTS, "unique_keys", lambda f: pl.concat([f, f.head(1)])),
    (CONTACTS, "ids_present", lambda f: f.with_columns(contact_id=pl.lit(None, pl.String))),
    (CONTACTS, "not_shrunk", lambda f: f.head(f.height // 2)),
    (CONTACTS, "identifiers_well_formed", lambda f: f.with_columns(email=pl.lit("Ann Lee"))),
    (CONTACTS, "columns_as_usual", lambda f: f.with_columns(email=pl.lit(None, pl.String))),
]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with four clean weeks of history."""
    lake = Lake.open(str(tmp_path_factory.mktemp("lived")))
    live_through(lake, 28)
    return lake


@pytest.mark.parametrize(
    ("asset", "check", "fault"), FAULTS, ids=[f"{a}-{c}-{n}" for n, (a, c, _) in enumerate(FAULTS)]
)
def test_every_planted_fault_is_seen_by_its_check(lived: Lake, asset: str, check: str, fault: Fault) -> None:
    day = START + timedelta(days=28)
    for name, frame in clean_day(day, random.Random(5)).items():
        lived.write(name, str(day), fault(frame) if name == asset else frame)
    assert not judge(lived, CHECKS[asset], asset, day)[check]


def test_rejected_rows_are_read_from_the_footer(lake: Lake) -> None:
    lake.write(TABLE, str(START), clean_day(START, random.Random(1))[TABLE], notes={"rejected": 40})
    assert not judge(lake, CHECKS[TABLE], TABLE, START)["rejected_rows"]


@pytest.mark.parametrize("asset", [TABLE, "heap/users", "heap/user_migrations", CONTACTS])
def test_values_that_could_not_be_kept_are_read_from_the_footer(lake: Lake, asset: str) -> None:
    rows = clean_day(START, random.Random(1))[asset]
    lake.write(asset, str(START), rows, notes={"values_lost_in": {"until": 2}})
    assert not judge(lake, CHECKS[asset], asset, START)["values_kept"]
    lake.write(asset, str(START), rows.reverse(), notes={})
    assert judge(lake, CHECKS[asset], asset, START)["values_kept"]


def test_a_day_that_is_not_over_is_not_judged_by_its_volume(lived: Lake) -> None:
    day = START + timedelta(days=28)
    lived.write(TABLE, str(day), clean_day(day, random.Random(5))[TABLE].head(1), notes={"complete": False})
    assert judge(lived, CHECKS[TABLE], TABLE, day)["volume_as_usual"]


def people_day(
    lake: Lake,
    day: date,
    profiles: int = 50,
    split_contact: str | None = None,
    contacts: bool = True,
    chance: random.Random | None = None,
) -> None:
    """Write an identity graph of `profiles` people, each known to CRM and Heap, and their profiles."""
    ids = [f"p{n}" for n in range(profiles)]
    graph = pl.concat(
        [
            pl.DataFrame(
                {"identifier_type": kind, "identifier": [f"{prefix}{n}" for n in range(profiles)]}
            ).with_columns(profile_id=pl.Series(ids), shared=pl.lit(False))
            for kind, prefix in [("heap_identity", "h"), ("crm_id", ""), ("email", "m")]
        ]
    )
    refused, shared = (chance.randrange(15, 30), chance.randrange(15, 30)) if chance else (3, 3)
    named = pl.DataFrame(
        {"contact_id": [str(n) for n in range(profiles)], "email": [f"M{n} " for n in range(profiles)]}
    )
    if split_contact:
        named = named.with_columns(email=pl.lit(split_contact))
    lake.write("identity/graph", str(day), graph)
    lake.write("identity/conflicts", str(day), conflicts(refused))
    lake.write("identity/shared", str(day), pl.DataFrame({"identifier": ["d"] * shared}))
    lake.write("identity/changes", str(day), pl.DataFrame({"kind": ["created"]}))
    if contacts:
        lake.write(CONTACTS, str(day), named)
    frame = pl.DataFrame({"profile_id": ids}).with_columns(
        heap_identities=pl.concat_list(pl.format("h{}", pl.int_range(pl.len()))),
        heap_user_ids=pl.concat_list(pl.int_range(pl.len(), dtype=pl.Int64) * 2 + 1),
    )
    lake.write("profiles", str(day), frame)


def conflicts(count: int) -> pl.DataFrame:
    """Build refused links between devices and people."""
    row = {"type_a": "email", "value_a": "m1", "type_b": "device_id", "profile_a": "p1", "profile_b": "p2"}
    return pl.DataFrame([{**row, "value_b": f"d{n}"} for n in range(count)])


def people_results(lake: Lake, day: date) -> dict[str, bool]:
    results = {}
    for asset in ("identity/graph", "identity/conflicts", "identity/shared", "identity/changes", "profiles"):
        results |= judge(lake, [*IDENTITY, *PROFILES], asset, day)
    return results


def test_people_who_are_who_they_are_pass_every_check(lake: Lake) -> None:
    for n in range(8):
        people_day(lake, START + timedelta(days=n))
        assert all(people_results(lake, START + timedelta(days=n)).values())


@pytest.mark.parametrize("spelt", ["m1", " M1 ", "mailto:m1.", "\u200bm1"])
def test_a_contact_that_names_two_people_is_seen_however_it_is_spelt(lake: Lake, spelt: str) -> None:
    people_day(lake, START, split_contact=spelt)
    assert not people_results(lake, START)["one_profile_per_crm_contacts_key"]


def test_a_collapsed_snapshot_shuts_the_gate_of_the_profiles_made_of_it(lake: Lake) -> None:
    following = START + timedelta(days=1)
    people_day(lake, START)
    judge(lake, CHECKS[CONTACTS], CONTACTS, START)
    people_day(lake, following)
    lake.write(CONTACTS, str(following), lake.scan(CONTACTS, str(following)).head(20))
    assert not judge(lake, CHECKS[CONTACTS], CONTACTS, following)["not_shrunk"]
    assert not people_results(lake, following)["inputs_not_shrunk"]
    assert gate(lake, "profiles", str(following), ["inputs_not_shrunk"]) == [
        f"profiles {following}: inputs_not_shrunk failed"
    ]


def test_conflicts_that_jump_and_matches_that_fall_are_seen(lake: Lake) -> None:
    for n in range(4):
        people_day(lake, START + timedelta(days=n))
        people_results(lake, START + timedelta(days=n))
    day = START + timedelta(days=4)
    people_day(lake, day)
    lake.write("identity/conflicts", str(day), conflicts(40))
    graph = lake.scan("identity/graph", str(day)).collect()
    apart = graph.with_columns(
        profile_id=pl.when(pl.col("identifier_type") == "heap_identity").then("identifier").otherwise("profile_id")
    )
    lake.write("identity/graph", str(day), apart)
    lake.write("identity/changes", str(day), pl.DataFrame({"kind": ["split"] * 30}))
    results = people_results(lake, day)
    assert [name for name, passed in results.items() if not passed] == [
        "matched_as_before",
        "conflicts_as_usual",
        "ids_stable",
    ]


def test_a_mailbox_of_two_customers_is_seen_and_shown_as_a_hash(lake: Lake) -> None:
    people_day(lake, START)
    inbox = {"type_a": "crm_id", "value_a": "2", "type_b": "email", "profile_a": "p2", "profile_b": "p1"}
    lake.write("identity/conflicts", str(START), pl.DataFrame([{**inbox, "value_b": "billing@firm.example"}]))
    assert not people_results(lake, START)["claimed_by_one"]
    check = next(check for check in IDENTITY if check.name == "claimed_by_one")
    assert check.evaluate is not None
    sample = check.evaluate(CheckContext(lake, check.asset, str(START))).sample(b"key")
    assert [(row["identifier_type"], row["people"], len(row["identifier"])) for row in sample] == [("email", 2, 12)]
    assert "claimed_by_one" not in blocking_checks(IDENTITY, "identity/conflicts"), "a mailbox holds nobody's sync up"


def test_what_blocks_is_what_must_not_reach_heap() -> None:
    assert blocking_checks(PROFILES, "profiles") == [
        "unique_keys",
        "one_profile_per_identity",
        "one_identity_per_profile",
        "inputs_not_shrunk",
    ]
    assert blocking_checks(CHECKS[TABLE], TABLE) == ["unique_keys", "no_personal_data"]
    assert blocking_checks(CHECKS["heap/users"], "heap/users") == ["unique_keys", "not_shrunk"]


def test_every_rule_is_a_sentence_and_every_name_is_used_once() -> None:
    everything = [*IDENTITY, *PROFILES, *checks_for_sync("sync/heap_user_properties")]
    for checks in CHECKS.values():
        everything += checks
    names = [(check.asset, check.name) for check in everything]
    assert len(names) == len(set(names))
    for check in everything:
        assert check.rule[0].isupper(), check.name
        assert check.rule.endswith("."), check.name


def test_a_sync_run_gives_all_its_verdicts() -> None:
    report = {
        "status": "stopped",
        "reason": "401",
        "planned": 100,
        "sent": 50,
        "rejected": 5,
        "invalid": 1,
        "unknown": 2,
    }
    found = sync_results(report)
    assert {name for name, result in found.items() if not result.passed} == {
        "delivered",
        "few_rejected",
        "nothing_unanswered",
    }
    assert found["delivered"].notes == {"reason": "401"}
    assert all(result.passed for result in sync_results({"status": "succeeded", "sent": 10}).values())


def test_sessions_that_are_about_to_be_built_anew_are_not_held_against_their_events(lake: Lake) -> None:
    frames = clean_day(START, random.Random(1))
    lake.write("heap/sessions", str(START), frames["heap/sessions"].head(1), notes={"dumps": [7]})
    lake.write(TABLE, str(START), frames[TABLE], notes={"dumps": [8]})
    assert judge(lake, CHECKS[TABLE], TABLE, START)["names_known"]
    lake.write("heap/sessions", str(START), frames["heap/sessions"].head(2), notes={"dumps": [8]})
    assert not judge(lake, CHECKS[TABLE], TABLE, START)["names_known"]


def test_users_that_are_built_while_a_step_goes_on_are_held_against_its_further_days(lake: Lake) -> None:
    frames, shared = clean_day(START, random.Random(1)), dict[str, Any]()
    [check] = [check for check in CHECKS[TABLE] if check.name == "names_known"]
    lake.write(TABLE, str(START), frames[TABLE].with_columns(pl.col("user_id") + 10_000))

    def passes() -> bool:
        assert check.evaluate is not None
        return check.evaluate(CheckContext(lake, TABLE, str(START), check.name, step_shared=shared)).passed

    assert passes()
    lake.write("heap/users", str(START), frames["heap/users"])
    assert not passes()
