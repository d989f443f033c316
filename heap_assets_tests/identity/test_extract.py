"""Rows become links as rule 2 says, and nothing that is not an identifier disappears uncounted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import (
    ColumnMapping,
    IdentifierRule,
    Rules,
    RulesError,
    SourceTable,
    extract,
    own_identify_links,
    user_migrations_table,
    users_table,
)

RULES = Rules(
    (
        IdentifierRule("heap_identity"),
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email", blocked=("Office@Acme.io",), blocked_patterns=(r"@spam\.",)),
        IdentifierRule("device_id"),
        IdentifierRule("heap_user_id"),
    ),
    suppressed=frozenset({("email", "gone@acme.io")}),
)


def table(*mappings: tuple[str, str], **more: object) -> SourceTable:
    parts = tuple(ColumnMapping(kind, tuple(columns.split("+"))) for kind, columns in mappings)
    return replace(SourceTable("crm", "snapshot", parts), **more)  # type: ignore[arg-type]


def links(rows: pl.LazyFrame, source: SourceTable, rules: Rules = RULES) -> set[tuple[object, ...]]:
    found = extract(rows, source, rules).links.collect()
    return set(found.select("type_a", "value_a", "type_b", "value_b").rows())


def refused(rows: pl.LazyFrame, source: SourceTable, rules: Rules = RULES) -> dict[tuple[object, ...], int]:
    return {tuple(row[:3]): row[3] for row in extract(rows, source, rules).refused.collect().rows()}


class TestLinks:
    def test_the_strongest_is_linked_to_each_of_the_others(self) -> None:
        rows = pl.LazyFrame({"c": ["1"], "e": ["a@x.io"], "d": ["d1"]})
        expected = {("crm_id", "1", "email", "a@x.io"), ("crm_id", "1", "device_id", "d1")}
        assert links(rows, table(("crm_id", "c"), ("email", "e"), ("device_id", "d"))) == expected

    def test_a_type_that_can_be_shared_does_not_speak_for_the_rest(self) -> None:
        rows = pl.LazyFrame({"d": ["d1"], "u": [7], "v": [8]})
        assert links(rows, table(("device_id", "d"), ("heap_user_id", "u"), ("heap_user_id", "v"))) == {
            ("device_id", "d1", "heap_user_id", "7"),
            ("device_id", "d1", "heap_user_id", "8"),
            ("heap_user_id", "7", "heap_user_id", "8"),
        }

    def test_one_identifier_is_a_sighting(self) -> None:
        rows = pl.LazyFrame({"e": ["a@x.io"], "d": [None]}, schema={"e": pl.String, "d": pl.String})
        assert links(rows, table(("email", "e"), ("device_id", "d"))) == {("email", "a@x.io", None, None)}

    def test_one_column_may_feed_several_types_and_several_columns_one(self) -> None:
        rules = Rules((*RULES.identifiers, IdentifierRule("person", normalise="lower")))
        rows = pl.LazyFrame({"i": ["Ann@x.io"], "g": ["Ann"], "s": ["O|Neill"], "b": [date(1990, 1, 2)]})
        source = table(("heap_identity", "i"), ("email", "i"), ("person", "g+s+b"))
        assert links(rows, source, rules) == {
            ("heap_identity", "Ann@x.io", "email", "ann@x.io"),
            ("heap_identity", "Ann@x.io", "person", "ann|o\\|neill|1990-01-02"),
        }

    def test_decimals_are_the_numbers_that_they_spell(self) -> None:
        """PostgreSQL's numeric and BigQuery's NUMERIC have nine digits after the point, whatever is in them."""
        ids = pl.Series([Decimal(10), Decimal("9007199254740993"), Decimal("1.50"), None], dtype=pl.Decimal(38, 9))
        rows = pl.LazyFrame({"c": ids, "d": ["a", "b", "c", "e"]})
        assert links(rows, table(("crm_id", "c"), ("device_id", "d"))) == {
            ("crm_id", "10", "device_id", "a"),
            ("crm_id", "9007199254740993", "device_id", "b"),
            ("crm_id", "1.5", "device_id", "c"),
            ("device_id", "e", None, None),
        }

    def test_a_composite_with_a_missing_part_is_none(self) -> None:
        rules = Rules((*RULES.identifiers, IdentifierRule("person")))
        rows = pl.LazyFrame({"g": ["Ann", "Bob"], "s": [None, " "], "e": ["a@x.io", "b@x.io"]})
        assert links(rows, table(("email", "e"), ("person", "g+s")), rules) == {
            ("email", "a@x.io", None, None),
            ("email", "b@x.io", None, None),
        }

    def test_nested_paths_and_array_elements(self) -> None:
        rows = pl.LazyFrame(
            {
                "id": ["1", "2"],
                "home": [{"email": "a@x.io"}, None],
                "items": [[{"email": "B@x.io"}, {"email": None}], []],
                "deep": [[{"in": [{"e": "c@x.io"}, {"e": "d@x.io"}]}], None],
            }
        )
        source = table(
            ("crm_id", "id"), ("email", "home.email"), ("email", "items[].email"), ("email", "deep[].in[].e")
        )
        emails = {("crm_id", "1", "email", f"{letter}@x.io") for letter in "abcd"}
        assert links(rows, source) == {*emails, ("crm_id", "2", None, None)}

    def test_counts_and_times_are_over_all_rows(self) -> None:
        times = [datetime(2026, 1, n, tzinfo=UTC) for n in (3, 1, 2)]
        rows = pl.LazyFrame({"e": ["a@x.io", "A@x.io ", "a@x.io"], "d": ["d"] * 3, "t": times})
        found = extract(rows, table(("email", "e"), ("device_id", "d"), time_column="t"), RULES).links.collect()
        assert found.select("source", "first_seen", "last_seen", "count").rows() == [("crm", times[1], times[0], 3)]

    def test_without_a_time_column_the_partition_s_day_counts(self) -> None:
        rows = pl.LazyFrame({"e": ["a@x.io"]})
        found = extract(rows, table(("email", "e")), RULES, date(2026, 1, 5)).links.collect()
        assert found["first_seen"].to_list() == [datetime(2026, 1, 5, tzinfo=UTC)]


_KINDS = ["heap_identity", "crm_id", "email", "device_id", "heap_user_id"]


def as_the_rule_says(record: list[tuple[str, str]]) -> list[tuple[object, ...]]:
    there = sorted(set(record), key=lambda i: (_KINDS.index(i[0]), i[1].encode()))
    if len(there) == 1:
        return [(*there[0], None, None)]
    pairs = []
    for at, strongest in enumerate(there):
        pairs += [(*strongest, *other) for other in there[at + 1 :]]
        if strongest[0] not in ("device_id", "heap_user_id"):
            break
    return pairs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*(st.sampled_from([None, "11", "22", "33"]) for _ in range(6))), min_size=1, max_size=5),
    st.booleans(),
)
def test_links_are_those_of_the_rule(rows: list[tuple[str | None, ...]], arrays: bool) -> None:
    rules = Rules(tuple(IdentifierRule(kind, pattern="[0-9]") for kind in _KINDS))
    columns = ["heap_identity", "crm_id", "email", "email", "device_id", "heap_user_id"]
    frame = pl.LazyFrame(rows, schema=[f"c{n}" for n in range(6)], orient="row", infer_schema_length=None).cast(
        pl.String
    )
    paths = [f"c{n}" for n in range(6)]
    if arrays:
        frame, paths[3] = frame.with_columns(pl.concat_list("c3")), "c3[]"
    found = extract(frame, table(*zip(columns, paths, strict=True)), rules).links.collect()
    expected: Counter[tuple[object, ...]] = Counter()
    for row in rows:
        expected.update(
            as_the_rule_says([(kind, v) for kind, v in zip(columns, row, strict=True) if v]) if any(row) else []
        )
    assert {
        tuple(row[:4]): row[4] for row in found.select("type_a", "value_a", "type_b", "value_b", "count").rows()
    } == expected


class TestAuthority:
    def test_each_migration_is_one_authoritative_link(self) -> None:
        rows = pl.LazyFrame({"from_user_id": [9, 5], "to_user_id": [3, 5], "time": [None, None]})
        source = user_migrations_table()
        found = extract(rows, source, RULES).links.filter("authoritative").collect()
        assert found.select("value_a", "value_b").rows() == [("3", "9")]
        assert refused(rows, source) == {("from_user_id+to_user_id", "heap_user_id", "self_link"): 1}

    def test_the_pair_of_users_is_authoritative_and_its_other_columns_are_not(self) -> None:
        extra = (ColumnMapping("email", ("email",)), ColumnMapping("crm_id", ("crm",)))
        source = replace(users_table(mappings=(*users_table().mappings, *extra)), time_column=None)
        rules = Rules((RULES["crm_id"], RULES["heap_identity"], RULES["email"], RULES["heap_user_id"]))
        rows = pl.LazyFrame({"user_id": [1], "identity": ["Ann"], "email": ["a@x.io"], "crm": ["c"]})
        found = extract(rows, source, rules).links.collect()
        decided = {tuple(row[:4]): row[-1] for row in found.rows()}
        assert decided == {
            ("crm_id", "c", "heap_identity", "Ann"): False,
            ("crm_id", "c", "email", "a@x.io"): False,
            ("crm_id", "c", "heap_user_id", "1"): False,
            ("heap_identity", "Ann", "heap_user_id", "1"): True,
        }

    def test_what_we_sent_through_identify_does_not_come_back_as_proof(self) -> None:
        users = pl.LazyFrame({"user_id": [3], "identity": ["Ann"]})
        own = own_identify_links(pl.LazyFrame({"user_id": [9], "identity": ["Ann"]}), users)
        rows = pl.LazyFrame({"from_user_id": [9, 8], "to_user_id": [3, 3], "time": [None, None]})
        found = extract(rows, user_migrations_table(), RULES, own_identify=own).links.collect()
        assert set(found.select("value_b", "source", "authoritative").rows()) == {
            ("9", "own_identify", False),
            ("8", "heap/user_migrations", True),
        }


class TestRefused:
    def test_every_reason_is_counted_and_no_value_is_told(self) -> None:
        values = [
            None,
            " ",
            "x" * 2000 + "@x.io",
            "NULL",
            "0000",
            "office@acme.io",
            "me@spam.io",
            "GONE@acme.io",
            "ann",
        ]
        rows = pl.LazyFrame({"e": [*values, "ann@acme.io"]})
        assert links(rows, table(("email", "e"))) == {("email", "ann@acme.io", None, None)}
        counted = refused(rows, table(("email", "e")))
        assert counted == {
            ("e", "email", why): n
            for why, n in {
                "null": 1,
                "empty": 1,
                "too_long": 1,
                "junk": 2,
                "blocked": 2,
                "suppressed": 1,
                "pattern": 1,
            }.items()
        }

    @pytest.mark.parametrize(
        "value", ["none", "NaN", "undefined", "Guest", "n/a", "-1", "0", "0000-0000", "no@acme.io", "a@example.com"]
    )
    def test_junk_is_no_identifier_whatever_the_type(self, value: str) -> None:
        rules = Rules((IdentifierRule("anything"),))
        assert links(pl.LazyFrame({"v": [value]}), table(("anything", "v")), rules) == set()

    def test_an_array_that_is_no_person_is_refused(self) -> None:
        rows = pl.LazyFrame({"c": ["1"], "e": [[f"e{n}@x.io" for n in range(500)]]})
        source = table(("crm_id", "c"), ("email", "e[]"))
        assert links(rows, source) == {("crm_id", "1", None, None)}
        assert refused(rows, source) == {("e[]", "email", "too_many"): 1}

    def test_a_time_that_cannot_be_read_is_counted(self) -> None:
        rows = pl.LazyFrame({"e": ["a@x.io", "b@x.io"], "t": ["yesterday", "2026-01-01T00:00:00"]})
        assert refused(rows, table(("email", "e"), time_column="t")) == {("t", None, "unreadable_time"): 1}

    @pytest.mark.parametrize("first", range(4))
    def test_times_of_several_spellings_count_whichever_comes_first(self, first: int) -> None:
        spelt = ["2026-01-01T00:00:00Z", "2026-01-02 00:00", "2026/01/03", "03.01.2026"]
        rows = pl.LazyFrame({"e": ["a@x.io"] * 4, "t": spelt[first:] + spelt[:first]})
        found = extract(rows, table(("email", "e"), time_column="t"), RULES)
        seen = found.links.select("first_seen", "last_seen", "count").collect().row(0)
        assert seen == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC), 4)
        assert dict(found.refused.collect().select("reason", "rows").iter_rows()) == {"unreadable_time": 1}


class TestErrors:
    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            (("email", "nope"), "no column 'nope'"),
            (("emial", "e"), "unknown identifier type 'emial'"),
            (("email", "e.x"), "needs a struct"),
            (("email", "e[]"), "needs a list"),
            (("email", "f"), "Float64"),
        ],
    )
    def test_a_mapping_that_leads_nowhere_says_so(self, mapping: tuple[str, str], message: str) -> None:
        rows = pl.LazyFrame({"e": ["a"], "f": [1.5]})
        with pytest.raises(RulesError, match=message.replace("[", r"\[")):
            extract(rows, table(mapping), RULES)

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ({"max_per_profile": 0}, "at least 1"),
            ({"shared_above": 0}, "at least 1"),
            ({"normalise": "upper"}, "expected one of"),
            ({"pattern": "("}, "regular expression"),
            ({"type": ""}, "empty"),
        ],
    )
    def test_a_rule_that_means_nothing_says_so(self, rule: dict[str, object], message: str) -> None:
        with pytest.raises(RulesError, match=message):
            IdentifierRule(**{"type": "email", **rule})  # type: ignore[arg-type]

    def test_rules_that_contradict_each_other_say_so(self) -> None:
        with pytest.raises(RulesError, match="stand twice"):
            Rules((IdentifierRule("email"), IdentifierRule("email")))
        with pytest.raises(RulesError, match="'crm_id'"):
            Rules((IdentifierRule("email", shared_above={"crm_id": 1}),))
