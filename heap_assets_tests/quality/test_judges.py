"""Each judge sees its own fault, and nothing on clean data."""

import random
from datetime import UTC, date, datetime

import polars as pl
import pytest
from check_toys import events
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.quality import heap_tables, identity, measures, profiles, sync, warehouse
from heap_assets.quality.baselines import (
    columns_as_before,
    filled_as_usual,
    not_fallen,
    not_risen,
    not_shrunk,
    volume_as_usual,
    week_against_last,
)
from heap_assets.quality.measures import unique_keys
from heap_assets.quality.thresholds import Thresholds

T = Thresholds()
DAY = date(2026, 11, 1)


def profile_rows(*rows: tuple[str, list[str], list[int]]) -> pl.LazyFrame:
    schema = {"profile_id": pl.String, "heap_identities": pl.List(pl.String), "heap_user_ids": pl.List(pl.Int64)}
    return pl.LazyFrame(rows, schema=schema, orient="row")


def _refused(*links: tuple[str, ...]) -> pl.LazyFrame:
    columns = ["type_a", "value_a", "type_b", "value_b", "profile_a", "profile_b"]
    return pl.LazyFrame(links, schema=columns, orient="row")


def graph(*rows: tuple[str, str, str | None], shared: bool = False) -> pl.LazyFrame:
    schema = {"identifier_type": pl.String, "identifier": pl.String, "profile_id": pl.String}
    return pl.LazyFrame(rows, schema=schema, orient="row").with_columns(shared=pl.lit(shared))


class TestDuplicates:
    def test_a_person_on_two_identities(self) -> None:
        people = profile_rows(("p1", ["a", "b", "c"], []), ("p2", ["d"], []), ("p3", [], []))
        result = profiles.one_identity_per_profile(people, allowed=0.4)
        assert not result.passed
        assert result.numbers["profiles_on_several_identities"] == 1
        assert result.numbers["surplus_identities"] == 2
        assert result.numbers["identified_profiles"] == 2
        assert profiles.one_identity_per_profile(people, allowed=0.5).passed

    def test_nobody_is_no_duplicate(self) -> None:
        assert profiles.one_identity_per_profile(profile_rows(), allowed=0.0).passed
        assert profiles.one_profile_per_identity(profile_rows()).passed

    def test_an_identity_on_two_profiles(self) -> None:
        result = profiles.one_profile_per_identity(profile_rows(("p1", ["a", "b"], []), ("p2", ["b"], [])))
        assert not result.passed
        assert result.numbers == {"identities": 2, "identities_on_several_profiles": 1}
        assert {v for row in result.sample(b"key") for v in row.values()}.isdisjoint({"b", "p1", "p2"})

    def test_an_anonymous_twin(self) -> None:
        users = pl.LazyFrame(
            {"user_id": [1, 2, 3, 4], "identity": ["a", None, None, None], "migrated_to": [None, None, 1, None]}
        )
        people = profile_rows(("p1", ["a"], [1, 2, 3]), ("p2", [], [4]))
        result = profiles.no_anonymous_twins(people, users, allowed=0.0)
        assert not result.passed
        assert result.numbers["anonymous_users"] == 1  # 3 has migrated, 4 is nobody's twin

    def test_a_shared_email_is_remarked_and_a_shared_device_is_not(self) -> None:
        rows = pl.concat([graph(("email", "x", None), shared=True), graph(("device_id", "d", None), shared=True)])
        assert profiles.unique_identifiers_not_shared(rows, None, ("email",), 0).numbers["shared_values"] == 1
        assert profiles.unique_identifiers_not_shared(rows, None, ("crm_id",), 0).passed

    def test_a_contact_whose_email_and_id_are_two_people(self) -> None:
        known = graph(("email", "a@x", "p1"), ("crm_id", "1", "p2"), ("crm_id", "2", "p1"))
        rows = pl.LazyFrame({"id": ["1", "2"], "mail": ["a@x", "a@x"]})
        result = profiles.one_profile_per_key(rows, "id", {"mail": "email", "id": "crm_id"}, known, 0)
        assert not result.passed
        assert result.numbers["keys_with_a_profile"] == 2
        assert result.numbers["keys_on_several_profiles"] == 1

    def test_a_mailbox_of_several_contacts_is_found_among_the_refused_links(self) -> None:
        rows = graph(("email", "office@x", "p1"), ("email", "a@x", "p2"))
        refused = pl.LazyFrame(
            {
                "type_a": ["crm_id", "crm_id"],
                "value_a": ["2", "3"],
                "type_b": ["email", "email"],
                "value_b": ["office@x", "office@x"],
                "profile_a": ["p2", "p3"],
                "profile_b": ["p1", "p1"],
            }
        )
        result = profiles.unique_identifiers_not_shared(rows, refused, ("email",), 0.1)
        assert not result.passed
        assert result.numbers["shared_email"] == 1
        assert result.sample(b"key")[0]["people"] == 3


class TestHeapTables:
    def test_repeated_keys(self) -> None:
        rows = pl.concat([events("2026-11-01"), events("2026-11-01").head(2)]).lazy()
        result = unique_keys(rows, ["event_id", "user_id"])
        assert result.numbers == {"rows": 5, "repeated_keys": 2, "extra_rows": 2}

    def test_a_null_key_is_not_a_repeated_one(self) -> None:
        rows = events("2026-11-01").with_columns(user_id=pl.lit(None, pl.Int64)).lazy()
        assert unique_keys(rows, ["event_id", "user_id"]).passed
        assert not measures.ids_present(measures.table_facts(rows), ["user_id"]).passed

    def test_rows_of_another_day(self) -> None:
        rows = pl.concat([events("2026-11-01"), events("2026-11-02", 2)]).lazy()
        facts = measures.table_facts(rows, DAY)
        result = heap_tables.times_inside_day(rows, facts, DAY)
        assert result.numbers["rows_of_other_days"] == 2
        assert result.sample(b"")[0] == {"day": "2026-11-02", "rows": 2}

    def test_the_day_ends_before_midnight(self) -> None:
        edges = [datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, 23, 59, 59, 999999, tzinfo=UTC)]
        rows = pl.LazyFrame({"time": edges}, schema={"time": pl.Datetime("us", "UTC")})
        assert measures.table_facts(rows, DAY).outside == 0

    def test_unreadable_rows(self) -> None:
        result = measures.rejected_rows(99, 1, {"user_id is no integer": 1}, 0.001)
        assert not result.passed
        assert result.numbers["rejected_share"] == 0.01
        assert measures.rejected_rows(0, 0, {}, 0.0).passed

    def test_events_of_unknown_users(self) -> None:
        known = {"user_id": pl.Series([0, 1]), "session_id": None}
        result = heap_tables.names_known(events("2026-11-01").lazy(), known, allowed=0.3)
        assert not result.passed
        assert result.numbers["rows_with_unknown_user_id"] == 1
        assert result.failed, "what could be judged has failed, whatever could not"
        unknown = heap_tables.names_known(events("2026-11-01").lazy(), known, allowed=0.6)
        assert not unknown.failed
        assert unknown.not_judged == "heap/sessions of the day must be built first"

    def test_migration_cycles_and_chains(self) -> None:
        chain = [(n, n + 1, 9, False) for n in range(1, 9)]
        schema = {"from_user_id": pl.Int64, "to_user_id": pl.Int64, "resolved_to": pl.Int64, "cycle": pl.Boolean}
        rows = pl.LazyFrame([*chain, (20, 21, 20, True), (21, 20, 20, True)], schema=schema, orient="row")
        assert heap_tables.no_migration_cycles(rows).numbers["in_a_cycle"] == 2
        assert not heap_tables.migration_chains_short(rows, 5).passed
        assert heap_tables.migration_chains_short(rows, 8).numbers["longest_chain_at_least"] == 8
        assert heap_tables.migration_chains_short(rows.head(0), 5).passed


class TestHistory:
    def test_no_alarm_over_sixty_days_of_season_and_growth(self) -> None:
        """Weekends at a third, 3 % more every week, 10 % of noise: the fault list's clean twin."""
        import random

        chance = random.Random(7)
        rows = [
            round(1000 * (0.33 if day % 7 in (5, 6) else 1.0) * 1.03 ** (day / 7) * chance.uniform(0.9, 1.1))
            for day in range(120)
        ]
        for day in range(60, 120):
            weekdays = [rows[day - 7 * week] for week in range(1, 7)]
            assert volume_as_usual(rows[day], weekdays, T).passed, day

    @pytest.mark.parametrize("rows", [0, 300, 2500])
    def test_a_day_that_lost_or_doubled_its_rows(self, rows: int) -> None:
        assert not volume_as_usual(rows, [1000, 990, 1010, 1005, 980, 995], T).passed

    def test_a_table_that_has_just_begun_is_not_judged_by_the_weeks_before_it(self) -> None:
        assert volume_as_usual(500, [480, 0, 0, 0, 0], T).passed

    def test_a_week_that_is_twice_the_last_one_makes_a_doubled_day_usual(self) -> None:
        weekdays = [1000, 990, 1010, 1005, 980, 995]
        assert not volume_as_usual(2000, weekdays, T).passed
        assert volume_as_usual(2000, weekdays, T, week=1.9).passed
        assert not volume_as_usual(0, weekdays, T, week=0.1).passed, "a table that is dying is not usual"
        assert week_against_last({n: 20 if n < 7 else 10 for n in range(1, 14)}) == 2.0
        assert week_against_last({1: 20, 8: 10}) is None

    def test_little_tables_and_short_histories_say_nothing(self) -> None:
        assert volume_as_usual(0, [40, 50, 60], T).passed
        assert volume_as_usual(0, [1000, 1000], T).passed

    @given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=8))
    def test_volume_never_fails_on_what_it_expects(self, rows: int, earlier: list[int]) -> None:
        result = volume_as_usual(rows, earlier, T)
        if "expected_rows" in result.numbers:
            assert result.numbers["at_least"] <= result.numbers["expected_rows"] <= result.numbers["at_most"]

    def test_a_column_that_went_empty(self) -> None:
        earlier = [(1000, {"plan": 0.1, "note": 0.9})] * 4
        result = filled_as_usual(1000, {"plan": 0.8, "note": 0.95, "new": 1.0}, earlier, T)
        assert result.notes == {"emptier": "plan"}

    def test_a_column_is_not_held_against_days_of_a_few_rows(self) -> None:
        few = [(5, {"plan": 0.0}), (3, {"plan": 0.0}), (4, {"plan": 0.0})]
        assert filled_as_usual(157, {"plan": 0.22}, [(154, {"plan": 0.17}), *few], T).not_judged
        assert filled_as_usual(4, {"plan": 1.0}, [(154, {"plan": 0.0})] * 3, T).notes == {
            "said": "too few rows to remark"
        }
        assert filled_as_usual(100, {"plan": 1.0}, [(100, {"plan": 0.0})] * 3, T).notes == {"emptier": "plan"}

    def test_chance_empties_no_column_and_an_emptied_one_is_seen_on_small_days(self) -> None:
        dice = random.Random(1)

        def day(empty: float) -> tuple[int, dict[str, float]]:
            """Draw a day of 10 to 40 people, each with ten rows of which all or none are empty."""
            people = dice.randrange(10, 41)
            return 10 * people, {"plan": sum(dice.random() < empty for _ in range(people)) / people}

        for _ in range(2000):
            usual = dice.choice([0.0, 0.02, 0.2, 0.5, 0.8, 0.98])
            assert filled_as_usual(*day(usual), [day(usual) for _ in range(3)], T).passed
            if usual <= 0.02:
                assert not filled_as_usual(*day(1.0), [day(usual) for _ in range(3)], T).passed

    def test_columns_that_came_went_and_changed(self) -> None:
        result = columns_as_before(
            {"a": "String", "b": "Int64", "new": "String"}, {"a": "String", "b": "String", "old": "x"}
        )
        assert result.notes == {"new": "new", "vanished": "old", "retyped": "b"}
        assert columns_as_before({"a": "String"}, None).passed

    def test_rises_and_falls(self) -> None:
        assert not not_risen("conflicts", 40, [20, 20], 0.5, 10).passed
        assert not_risen("conflicts", 28, [20, 20], 0.5, 10).passed
        assert not_risen("conflicts", 9, [0, 0], 0.5, 10).passed
        assert not not_fallen({"matched_crm_id": 0.5}, [{"matched_crm_id": 0.6}], 0.05).passed
        assert not_fallen({"matched_crm_id": 0.58}, [{"matched_crm_id": 0.6}], 0.05).passed

    def test_a_snapshot_that_collapsed(self) -> None:
        assert not not_shrunk(850, 1000, T).passed
        assert not_shrunk(900, 1000, T).passed
        assert not_shrunk(1, 10, T).passed
        assert not_shrunk(1, None, T).passed


class TestWarehouse:
    rows = pl.LazyFrame({"id": [1, 2, 3, 4], "email": ["a@x.co", "", None, "Ann Lee"]})

    def test_filled_and_well_formed(self) -> None:
        filled = warehouse.identifiers_filled(self.rows, {"email": "email"}, least=0.6)
        assert not filled.passed
        assert filled.numbers["identified_share"] == 0.5
        formed = warehouse.identifiers_well_formed(self.rows, {"email": "email", "id": "crm_id"}, allowed=0.1)
        assert not formed.passed
        assert formed.numbers["malformed_email"] == 1

    def test_an_empty_table_is_not_malformed(self) -> None:
        assert warehouse.identifiers_filled(self.rows.head(0), {"email": "email"}, least=0.6).passed
        assert warehouse.identifiers_well_formed(self.rows.head(0), {"email": "email"}, allowed=0.0).passed

    def test_a_day_carried_forward(self) -> None:
        assert not warehouse.was_observed({"observed": False, "carried_from": "2026-10-30"}).passed
        assert warehouse.was_observed({"observed": True}).passed
        assert warehouse.was_observed({}).passed


class TestIdentity:
    people = graph(
        *[("email", f"e{n}", "p1") for n in range(3)], ("crm_id", "1", "p1"), ("heap_identity", "h", "p1"),
        ("email", "x", "p2"), ("crm_id", "2", "p2"), ("email", "shared", None),
    )  # fmt: skip

    def test_sizes(self) -> None:
        result = identity.not_over_merged(self.people, most=4)
        assert result.numbers["profiles_too_large"] == 1
        assert result.numbers["largest_profile"] == 5
        assert result.memory["sizes"] == {"2": 1, "5": 1}

    def test_migrations_are_followed(self) -> None:
        users = graph(("heap_user_id", "1", "p1"), ("heap_user_id", "2", "p1"), ("heap_user_id", "3", "p2"))
        moves = pl.LazyFrame({"from_user_id": [1, 1, 1, 9], "to_user_id": [2, 3, None, 1]})
        result = identity.migrations_followed(users, moves)
        assert result.numbers == {"migrations": 2, "migrations_apart": 1}, "one that was never seen is not judged"
        assert result.offenders is not None
        assert result.offenders.rows() == [("1", "3")]
        assert identity.migrations_followed(users, moves.head(1)).passed
        assert identity.migrations_followed(users.head(0), moves).passed

    def test_profiles_at_a_limit(self) -> None:
        result = identity.few_at_limit(self.people, {"email": 3, "crm_id": 1}, allowed=0.4)
        assert result.notes == {"types": "email"}
        assert result.numbers["share_at_limit_email"] == 0.5

    def test_identifiers_that_several_profiles_claim(self) -> None:
        refused = _refused(
            ("billing_id", "cus_1", "email", "billing@firm.example", "p1", "p0"),
            ("billing_id", "cus_2", "email", "billing@firm.example", "p2", "p0"),
            ("crm_id", "2", "email", "billing@firm.example", "p2", "p0"),  # a second record of one profile
            ("heap_identity", "ann", "billing_id", "cus_9", "p5", "p4"),
            ("email", "ann@x", "device_id", "d1", "p5", "p4"),  # people share devices
        )
        result = identity.claimed_by_one(refused, ["billing_id", "email"], 1)
        assert not result.passed
        assert result.numbers == {
            "claimed_values": 2,
            "allowed_values": 1,
            "most_people": 3,
            "claimed_billing_id": 1,
            "claimed_email": 1,
        }
        assert result.offenders is not None
        assert result.offenders.rows() == [("email", "billing@firm.example", 3), ("billing_id", "cus_9", 2)]
        assert identity.claimed_by_one(refused, ["billing_id", "email"], 2).passed
        nobody = identity.claimed_by_one(refused.head(0), ["billing_id", "email"], 0)
        assert nobody.passed
        assert nobody.offenders is None

    def test_an_id_that_two_records_carry_is_the_one_that_is_claimed(self) -> None:
        refused = _refused(
            # customer 1, who is lina, carries the CRM id of customer 2: it was joined to customer 1 first
            ("crm_id", "C-2", "billing_id", "cus_2", "p0", "p2"),
            ("crm_id", "C-2", "email", "lina@x", "p0", "p1"),
        )
        result = identity.claimed_by_one(refused, ["crm_id", "billing_id", "email"], 0)
        assert result.offenders is not None
        assert result.offenders.rows() == [("crm_id", "C-2", 3)]

    def test_match_shares(self) -> None:
        assert identity.match_shares(self.people, ["heap_identity"], ["crm_id", "none"]) == {"matched_crm_id": 0.5}

    def test_changed_ids(self) -> None:
        changes = pl.LazyFrame({"kind": ["merged", "created", "created"]})
        assert not identity.ids_stable(changes, profiles=10, allowed=0.05).passed
        assert identity.ids_stable(changes, profiles=100, allowed=0.05).passed


class TestSync:
    def test_shares(self) -> None:
        assert not sync.few_rejected(98, 2, 0.01, {"400": 2}).passed
        assert sync.few_rejected(0, 0, 0.01).passed
        assert not sync.few_invalid(90, 10, 0.05).passed
        assert sync.few_invalid(2, 4, 0.05, least=20).passed, "six rows are too few for a share"
        waited = sync.few_invalid(90, 10, 0.05, {"expired: nobody to send it to": 8, "too long": 2})
        assert waited.passed
        assert waited.numbers["expired_rows"] == 8

    def test_ghost_users(self) -> None:
        result = sync.no_ghost_users(pl.LazyFrame({"key": ["a", "b"]}), pl.LazyFrame({"identity": ["a", None]}), 0.1)
        assert result.numbers["keys_not_in_heap"] == 1


def test_an_address_is_judged_as_it_is_resolved() -> None:
    spelt = ["Ann@Acme.io", " mailto:ann@acme.io ", '"ann@acme.io"', "ann@acme.io\u200b", "ann@acme.io.", "ann at acme"]
    result = warehouse.identifiers_well_formed(pl.LazyFrame({"mail": spelt}), {"mail": "email"}, 0.1)
    assert (result.passed, result.numbers["malformed_mail"]) == (False, 1)
