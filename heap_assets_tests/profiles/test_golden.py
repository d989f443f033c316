from __future__ import annotations

import random
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from heap_assets.errors import SettingsError
from heap_assets.identity import ColumnMapping, IdentifierRule, Rules, SourceTable
from heap_assets.profiles.golden import PROFILE_SCHEMA, TraitSource, golden_records
from heap_assets.profiles.survivorship import TraitRule
from heap_assets.tables import PROFILE_COLUMNS

TIME = pl.Datetime("us", "UTC")
RULES = Rules(
    (
        IdentifierRule("heap_identity"),
        IdentifierRule("crm_id"),
        IdentifierRule("email", blocked=("info@acme.io",)),
        IdentifierRule("device_id"),
        IdentifierRule("heap_user_id"),
    )
)


def at(day: int) -> datetime:
    return datetime(2026, 11, day, tzinfo=UTC)


def graph(
    *rows: tuple[str, str, str | None] | tuple[str, str, str | None, int | None, int | None, bool],
) -> pl.LazyFrame:
    """Each row: type, identifier, profile; then first seen, last seen (days of November) and shared."""
    full = [(*row, 1, 1, False) if len(row) == 3 else row for row in rows]
    return pl.LazyFrame(
        [(t, v, p, f and at(f), s and at(s), shared) for t, v, p, f, s, shared in full],
        schema={
            "identifier_type": pl.String,
            "identifier": pl.String,
            "profile_id": pl.String,
            "first_seen": TIME,
            "last_seen": TIME,
            "shared": pl.Boolean,
        },
        orient="row",
    )


def crm(*rows: dict[str, Any], updated_at: str | None = None, name: str = "crm", **schema: Any) -> TraitSource:
    columns = {"contact": pl.String, "mail": pl.String, "plan": pl.String, "changed": TIME, **schema}
    frame = pl.LazyFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)
    mappings = (ColumnMapping("email", ("mail",)), ColumnMapping("crm_id", ("contact",)))
    return TraitSource(frame, SourceTable(name, "snapshot", mappings), updated_at)


def golden(
    of: pl.LazyFrame, sources: dict[str, TraitSource], *traits: TraitRule, conflicts: pl.LazyFrame | None = None
) -> list[dict[str, Any]]:
    return golden_records(of, sources, traits, RULES, conflicts).frame.collect().to_dicts()


ANN_AND_BOB = graph(
    ("email", "ann@x.io", "A"), ("crm_id", "c1", "A"), ("email", "bob@x.io", "B"), ("crm_id", "c2", "B")
)
PLAN = TraitRule("plan", ("crm.plan",))


def test_the_columns_of_profiles_are_those_that_settings_may_not_take() -> None:
    assert tuple(PROFILE_SCHEMA) == PROFILE_COLUMNS


def test_every_profile_has_a_row_in_the_shape_others_rely_on() -> None:
    result = golden_records(ANN_AND_BOB, {}, (), RULES).frame.collect()
    assert dict(result.schema) == dict(PROFILE_SCHEMA)
    assert result["profile_id"].to_list() == ["A", "B"]


def test_a_value_says_which_source_gave_it() -> None:
    sources = {
        "billing": crm({"contact": "c2", "plan": "gold"}, name="billing"),
        "crm": crm({"mail": "ANN@x.io ", "plan": "pro"}, {"mail": "bob@x.io", "plan": "free"}),
    }
    ann, bob = golden(ANN_AND_BOB, sources, TraitRule("plan", ("billing.plan", "crm.plan")))
    assert (ann["plan"], ann["plan__source"]) == ("pro", "crm.plan")
    assert (bob["plan"], bob["plan__source"]) == ("gold", "billing.plan")


def test_a_row_belongs_to_its_strongest_identifier() -> None:
    ann, bob = golden(ANN_AND_BOB, {"crm": crm({"contact": "c1", "mail": "bob@x.io", "plan": "pro"})}, PLAN)
    assert (ann["plan"], bob["plan"], bob["plan__source"]) == ("pro", None, None)


def test_shared_blocked_and_unknown_values_give_way_to_the_next_identifier() -> None:
    of = graph(
        ("crm_id", "c1", "A", 1, 1, True),
        ("email", "info@acme.io", "A"),
        ("email", "ann@x.io", "A"),
        ("email", "bob@x.io", "B"),
    )
    rows = [
        {"contact": "c1", "mail": "bob@x.io", "plan": "past the shared one"},
        {"contact": "c9", "mail": "ann@x.io", "plan": "past the unknown one"},
        {"mail": "info@acme.io", "plan": "of a blocked one"},
    ]
    ann, bob = golden(of, {"crm": crm(*rows)}, PLAN)
    assert (ann["plan"], bob["plan"]) == ("past the unknown one", "past the shared one")


def test_of_several_values_of_one_type_the_smallest_known_decides() -> None:
    table = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mails[]",)), ColumnMapping("email", ("mail",))))
    rows = pl.LazyFrame(
        {"mails": [["zoe@x.io", "bob@x.io"], [], None, ["a@x.io"]], "mail": ["aa@x.io", "ann@x.io", None, "ann@x.io"],
         "plan": ["1", "2", "3", "4"]}
    )  # fmt: skip
    sources = {"crm": TraitSource(rows, table)}
    ann, bob = golden(ANN_AND_BOB, sources, TraitRule("plan", ("crm.plan",), "max"))
    assert (ann["plan"], bob["plan"]) == ("4", "1")


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("first_present", ("b", "crm.plan")),
        ("newest", ("c", "other.plan")),
        ("earliest", ("a", "crm.plan")),
        ("max", ("z", "other.plan")),
        ("min", ("a", "crm.plan")),
    ],
)
def test_each_rule_chooses_by_its_own_words(choose: Any, expected: tuple[str, str]) -> None:
    own = crm({"contact": "c1", "plan": "a", "changed": at(2)}, {"contact": "c1", "plan": "b", "changed": at(3)},
              {"contact": "c1", "plan": " ", "changed": at(9)}, updated_at="changed")  # fmt: skip
    other = crm({"contact": "c1", "plan": "z"}, {"contact": "c1", "plan": "c", "changed": at(5)}, updated_at="changed")
    rule = TraitRule("plan", ("crm.plan", "other.plan"), choose)
    ann = golden(ANN_AND_BOB, {"crm": own, "other": other}, rule)[0]
    assert (ann["plan"], ann["plan__source"]) == expected


def test_sums_add_all_rows_and_name_all_sources() -> None:
    own = crm({"contact": "c1", "seats": 3}, {"mail": "ann@x.io", "seats": 2}, {"contact": "c2"}, seats=pl.Int32)
    other = crm({"contact": "c1", "seats": 0.5}, seats=pl.Float64)
    ann, bob = golden(ANN_AND_BOB, {"crm": own, "o": other}, TraitRule("seats", ("crm.seats", "o.seats"), "sum"))
    assert (ann["seats"], ann["seats__source"]) == (5.5, "crm.seats+o.seats")
    assert bob["seats"] is None


def test_what_does_not_fit_the_type_of_a_trait_is_null_and_counted() -> None:
    known = graph(("crm_id", "c-1", "p1"), ("crm_id", "c-2", "p2"), ("crm_id", "c-3", "p3"))
    rows = [{"contact": "c-1", "clicks": 2**63 - 1}, {"contact": "c-1", "clicks": 1}, {"contact": "c-2", "clicks": 4}]
    traits = [TraitRule(name, ("crm.clicks",), choose) for name, choose in (("total", "sum"), ("most", "max"))]
    made = golden_records(known, {"crm": crm(*rows, clicks=pl.Int64)}, traits, RULES)
    assert made.frame.select("total", "total__source", "most").collect().rows() == [
        (None, None, 2**63 - 1),
        (4, "crm.clicks", 4),
        (None, None, None),
    ]
    assert made.values_lost == {"total": 1}


def test_any_is_true_if_one_row_is_and_false_if_all_say_so() -> None:
    own = crm({"contact": "c1", "vip": False}, {"contact": "c2", "vip": False}, vip=pl.Boolean)
    other = crm({"contact": "c1", "vip": True}, vip=pl.Boolean)
    ann, bob = golden(ANN_AND_BOB, {"crm": own, "o": other}, TraitRule("vip", ("crm.vip", "o.vip"), "any"))
    assert (ann["vip"], ann["vip__source"]) == (True, "o.vip")
    assert (bob["vip"], bob["vip__source"]) == (False, "crm.vip")


def test_a_day_and_a_time_without_a_zone_compare_as_utc() -> None:
    own = crm({"contact": "c1", "plan": "day", "changed": date(2026, 11, 5)}, updated_at="changed", changed=pl.Date)
    other = crm({"contact": "c1", "plan": "time", "changed": datetime(2026, 11, 5, 1)}, updated_at="changed",
                changed=pl.Datetime("ms"))  # fmt: skip
    rule = TraitRule("plan", ("crm.plan", "o.plan"), "newest")
    assert golden(ANN_AND_BOB, {"crm": own, "o": other}, rule)[0]["plan"] == "time"


def test_a_field_of_a_struct_is_a_source() -> None:
    own = crm({"contact": "c1", "address": {"city": "Ulm"}}, address=pl.Struct({"city": pl.String}))
    assert golden(ANN_AND_BOB, {"crm": own}, TraitRule("city", ("crm.address.city",)))[0]["city"] == "Ulm"


def test_the_order_of_rows_never_matters() -> None:
    rows = [
        {"contact": f"c{i % 2 + 1}", "plan": f"p{i % 7}", "changed": at(i % 3 + 1) if i % 5 else None, "seats": i / 7}
        for i in range(60)
    ]
    traits = [TraitRule(c, ("crm.plan", "o.plan"), c) for c in ("first_present", "newest", "earliest", "max", "min")]
    traits.append(TraitRule("sum", ("crm.seats", "o.seats"), "sum"))
    results = []
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        source = crm(*rows, updated_at="changed", seats=pl.Float64)
        results.append(golden(ANN_AND_BOB, {"crm": source, "o": source}, *traits))
    assert all(result == results[0] for result in results)


def test_identities_are_sorted_and_the_primary_is_the_one_seen_first() -> None:
    of = graph(
        ("heap_identity", "a", "A", 9, 9, False),
        ("heap_identity", "c", "A", 2, 5, False),
        ("heap_identity", "b", "A", 2, 3, False),
        ("heap_identity", "0", "A", None, None, False),
        ("heap_identity", "kiosk", "A", 1, 20, True),
        ("heap_user_id", "10", "A", 3, 3, False),
        ("heap_user_id", "9", "A", 3, 3, False),
        ("heap_user_id", "8", "A", 3, 3, True),
        ("heap_user_id", "7", None, 3, 3, True),
    )
    (ann,) = golden(of, {})
    assert (ann["heap_identity"], ann["heap_identities"]) == ("b", ["0", "a", "b", "c"])
    assert ann["heap_user_ids"] == [9, 10]
    assert (ann["first_seen"], ann["last_seen"]) == (at(2), at(9))
    assert ann["identifiers"][0] == {"type": "heap_identity", "value": "0"}
    assert {"type": "heap_user_id", "value": "8"} in ann["identifiers"]


def test_a_profile_of_shared_values_only_keeps_their_dates_and_offers_no_key() -> None:
    (kiosk,) = golden(graph(("heap_identity", "k", "K", 1, 4, True), ("heap_user_id", "1", "K", 2, 5, True)), {})
    assert (kiosk["first_seen"], kiosk["last_seen"]) == (at(1), at(5))
    assert (kiosk["heap_identity"], kiosk["heap_identities"], kiosk["heap_user_ids"]) == (None, [], [])


def test_conflicts_are_counted_on_both_sides() -> None:
    conflicts = pl.LazyFrame({"profile_a": ["A", "A"], "profile_b": ["B", "Z"]})
    ann, bob = golden(ANN_AND_BOB, {}, conflicts=conflicts)
    assert (ann["conflicts"], bob["conflicts"]) == (2, 1)


@pytest.mark.parametrize(
    ("trait", "message"),
    [
        (TraitRule("plan", ("erp.plan",)), "'erp.plan' is of no known table. Tables: crm"),
        (TraitRule("plan", ()), "has no source"),
        (TraitRule("conflicts", ("crm.plan",)), "a profile already has a column 'conflicts'"),
    ],
)
def test_a_trait_that_the_settings_get_wrong_stops_the_profiles(trait: TraitRule, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        golden(ANN_AND_BOB, {"crm": crm({"contact": "c1"})}, trait)


@pytest.mark.parametrize(
    ("trait", "message"),
    [
        (TraitRule("x", ("crm.plan", "crm.tier")), "trait 'x': table crm has no column 'tier'"),
        (TraitRule("x", ("crm.plan",), "sum"), "is a sum, its sources must be numbers: crm.plan is text"),
        (TraitRule("x", ("crm.plan",), "any"), "must be Boolean: crm.plan is String"),
        (
            TraitRule("x", ("crm.plan", "crm.seats")),
            "mixes types that cannot be compared: crm.plan is String, crm.seats",
        ),
        (
            TraitRule("x", ("crm.plan", "odd.plan")),
            "the time of its rows: odd.seats is Int64, expected a date or a time",
        ),
        (TraitRule("x", ("crm.tags",)), "needs plain values"),
        (TraitRule("x", ("crm.tags[]",)), "is an array, expected one value"),
    ],
)
def test_a_trait_that_cannot_be_made_is_set_aside_and_the_others_stand(trait: TraitRule, message: str) -> None:
    types = {"seats": pl.Int64, "tags": pl.List(pl.String)}
    source, odd = crm({"contact": "c1", "plan": "pro"}, **types), crm(name="odd", updated_at="seats", **types)
    made = golden_records(ANN_AND_BOB, {"crm": source, "odd": odd}, (trait, PLAN), RULES)
    assert list(made.set_aside) == ["x"]
    assert message in made.set_aside["x"]
    frame = made.frame.collect()
    assert frame["plan"].to_list() == ["pro", None]
    assert frame.select("x", "x__source").null_count().row(0) == (2, 2)
    assert frame.schema["x"] == pl.String


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_times_in_several_spellings_are_times_and_what_is_none_is_counted(rows: list[int]) -> None:
    spelt = [("a", "2026-11-02"), ("b", "soon"), ("c", "2026-11-03T10:00:00+02:00"), ("d", "2026/11/03 09:00")]
    said = [{"contact": "c1", "plan": spelt[n][0], "changed": spelt[n][1]} for n in rows]
    source = crm(*said, updated_at="changed", changed=pl.String)
    made = golden_records(ANN_AND_BOB, {"crm": source}, (TraitRule("plan", ("crm.plan",), "newest"),), RULES)
    assert made.frame.collect()["plan"].to_list() == ["d", None]
    assert made.unreadable_times == {"crm.changed": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", ("crm.plan",), "best"), "choose is 'best', expected one of first_present"),
        (("plan", ("plan",)), "source 'plan' is not table.column"),
        (("plan", ("crm.plan", "crm.plan")), "names a source twice"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TraitRule(*arguments)


def test_no_profiles_is_an_empty_table_of_the_full_shape() -> None:
    result = golden_records(graph(), {"crm": crm()}, (PLAN,), RULES).frame.collect()
    assert result.height == 0
    assert result.columns == [*list(PROFILE_SCHEMA)[:-1], "plan", "plan__source", "conflicts"]
