from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from heap_assets.identity.explain.audit import AUDIT_SCHEMA, AuditedTable, audit, audit_figures, audit_text
from heap_assets.identity.rules import ColumnMapping, IdentifierRule, Rules, SourceTable, users_table
from heap_assets.identity.schemas import CONFLICTS, GRAPH

NOW = datetime(2026, 11, 20, tzinfo=UTC)
RULES = Rules(
    (
        IdentifierRule("heap_identity", max_per_profile=2),
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email"),
        IdentifierRule("heap_user_id"),
    )
)
CRM = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mail",)), ColumnMapping("crm_id", ("contact",))))
Member = tuple[str, str, str | None]


def graph(*members: Member, shared: tuple[Member, ...] = ()) -> pl.LazyFrame:
    rows = [(*member, NOW, NOW, member in shared) for member in (*members, *shared)]
    return pl.LazyFrame(rows, schema=GRAPH, orient="row")


def users(*rows: tuple[int, str | None, str | None, int | None]) -> pl.LazyFrame:
    """Each row: user_id, identity, email, migrated_to."""
    schema = {"user_id": pl.Int64, "identity": pl.String, "email": pl.String, "migrated_to": pl.Int64}
    return pl.LazyFrame(rows, schema=schema, orient="row")


def crm(*rows: tuple[str | None, str | None]) -> dict[str, AuditedTable]:
    """Each row: contact, mail."""
    schema = {"contact": pl.String, "mail": pl.String}
    return {"crm": AuditedTable(pl.LazyFrame(rows, schema=schema, orient="row"), CRM)}


def heap_mapping(*identity: str) -> SourceTable:
    """The mapping of Heap's users, with their identity as these types."""
    mappings = [ColumnMapping(kind, ("identity",)) for kind in identity]
    return users_table(
        mappings=(ColumnMapping("heap_user_id", ("user_id",)), *mappings, ColumnMapping("email", ("email",)))
    )


BOTH = heap_mapping("heap_identity", "email")


def report(
    of: pl.LazyFrame,
    heap: pl.LazyFrame | None = None,
    tables: dict[str, AuditedTable] | None = None,
    conflicts: pl.LazyFrame | None = None,
    identity: tuple[str, ...] = ("heap_identity", "email"),
) -> dict[tuple[str, str], tuple[float, float | None]]:
    refused = pl.LazyFrame(schema=CONFLICTS) if conflicts is None else conflicts
    heap = users() if heap is None else heap
    rows = audit(of, refused, heap, tables or {}, RULES, heap_mapping(*identity)).collect()
    assert dict(rows.schema) == dict(AUDIT_SCHEMA)
    assert rows.select("metric", "subject").is_unique().all()
    return {(metric, subject): (value, share) for metric, subject, value, share in rows.iter_rows()}


ANN: tuple[Member, ...] = (
    ("heap_identity", "ann@acme.io", "A"),
    ("email", "ann@acme.io", "A"),
    ("email", "ann@home.io", "A"),
    ("crm_id", "c1", "A"),
    ("heap_user_id", "1", "A"),
    ("heap_user_id", "2", "A"),
)


def test_rows_are_matched_in_three_steps() -> None:
    of = graph(*ANN, ("heap_user_id", "3", "B"), ("email", "bob@x.io", "B"), ("crm_id", "c3", "C"))
    found = report(of, tables=crm(("c1", None), (None, "bob@x.io"), ("c3", None), (None, None)))
    assert found["rows", "crm"] == (4, None)
    assert found["rows_identified", "crm"] == (3, 0.75)
    assert found["rows_in_heap", "crm"] == (2, 0.5)
    assert found["rows_addressable", "crm"] == (1, 0.25)
    assert found["cohort_size", "crm"] == (2, 1.0)


def test_partial_profiles_are_those_that_one_side_does_not_know() -> None:
    of = graph(*ANN, ("heap_user_id", "3", "B"), ("crm_id", "c3", "C"))
    found = report(of, tables=crm(("c1", None), ("c3", None)))
    assert found["profiles", "all"] == (3, None)
    assert found["profiles_in_heap", "all"] == (2, 2 / 3)
    assert found["profiles_anonymous", "all"] == (1, 1 / 3)
    assert found["profiles_heap_only", "all"] == (1, 1 / 3)
    assert found["profiles_warehouse_only", "all"] == (1, 1 / 3)


def test_duplicates_are_found_from_both_ends() -> None:
    of = graph(
        *ANN, ("heap_identity", "ann2", "A"), ("heap_identity", " Ann@acme.io", "B"), ("heap_identity", "bob", "C")
    )
    found = report(of)
    assert found["profiles_several_identities", "all"] == (1, 1 / 3)
    assert found["identities_on_several_profiles", "all"] == (2, 0.5)


def test_an_anonymous_user_of_a_known_person_is_a_twin_until_it_migrates() -> None:
    heap = users((1, "ann@acme.io", None, None), (2, None, None, None), (3, None, None, None), (4, None, None, 1))
    found = report(graph(*ANN, ("heap_user_id", "3", "B"), ("heap_user_id", "4", "A")), heap)
    assert found["heap_users", "all"] == (3, None)
    assert found["heap_users_anonymous", "all"] == (2, 2 / 3)
    assert found["anonymous_twins", "all"] == (1, 1 / 3)


def test_the_naive_join_misses_other_addresses_spellings_and_devices() -> None:
    heap = users((1, "ann@acme.io", "ann@acme.io", None), (2, None, None, None))
    rows = crm(("c1", "ann@acme.io"), ("c1", "ann@home.io"), ("c1", "Ann@Acme.io"), ("c1", None))
    found = report(graph(*ANN), heap, rows)
    assert found["naive_rows_right", "crm"] == (1, 0.25)
    assert found["naive_rows_missed", "crm"] == (3, 0.75)
    assert found["naive_users_missed", "crm"] == (1, 0.5)
    assert found["naive_cohort_size", "crm"] == (1, 1.0)


def test_the_naive_join_writes_to_the_wrong_person() -> None:
    of = graph(*ANN, ("heap_identity", "bob", "B"), ("heap_user_id", "7", "B"))
    # bob typed ann's second address into his profile; the other row is of somebody that only a shared value names
    heap = users((1, "ann@acme.io", None, None), (7, "bob", "ann@home.io", None), (8, "ann@home.io", None, None))
    rows = crm(("c1", "ann@home.io"), (None, "kiosk@acme.io"))
    found = report(of, heap, rows)
    assert found["naive_rows_wrong", "crm"] == (1, 0.5)
    assert found["naive_rows_unproved", "crm"] == (0, 0)
    assert found["naive_cohort_size", "crm"] == (0, 0)


def test_a_hit_on_several_people_is_ambiguous_and_one_nobody_owns_is_unproved() -> None:
    kiosk = ("email", "desk@acme.io", None)
    of = graph(*ANN, ("heap_user_id", "7", "B"), shared=(kiosk,))
    heap = users((1, None, "ann@acme.io", None), (7, None, "ann@acme.io", None), (9, "desk@acme.io", None, None))
    found = report(of, heap, crm(("c1", "ann@acme.io"), (None, "desk@acme.io")))
    assert found["naive_rows_ambiguous", "crm"] == (1, 0.5)
    assert found["naive_rows_unproved", "crm"] == (1, 0.5)


def test_a_value_that_was_never_compared_is_neither_right_nor_wrong() -> None:
    """Heap's identity is an address, and the settings do not say so: nothing joins it to the CRM's."""
    of = graph(("heap_identity", "ann@acme.io", "H"), ("heap_user_id", "1", "H"), ("email", "ann@acme.io", "C"))
    heap, rows = users((1, "ann@acme.io", None, None)), crm((None, "ann@acme.io"))
    found = report(of, heap, rows, identity=("heap_identity",))
    assert found["naive_rows_unproved", "crm"] == (1, 1.0)
    assert found["naive_rows_uncompared", "crm"] == (1, 1.0)
    assert found["naive_rows_wrong", "crm"] == (0, 0.0)
    told = audit(of, pl.LazyFrame(schema=CONFLICTS), heap, rows, RULES, heap_mapping("heap_identity")).collect()
    assert "1 (100.0%) equal a value of Heap's users that is mapped to another type" in audit_text(told)
    assert "[heap_identity, email]" in audit_text(told)


def test_a_value_that_was_compared_and_is_another_persons_is_wrong() -> None:
    of = graph(("heap_identity", "ann@acme.io", "H"), ("heap_user_id", "1", "H"), ("email", "ann@acme.io", "C"))
    found = report(of, users((1, "ann@acme.io", None, None)), crm((None, "ann@acme.io")))
    assert found["naive_rows_wrong", "crm"] == (1, 1.0)
    assert found["naive_rows_uncompared", "crm"] == (0, 0.0)


def test_users_without_an_email_column_are_joined_by_their_identity() -> None:
    heap = users((1, "ann@acme.io", None, None)).drop("email")
    assert report(graph(*ANN), heap, crm(("c1", "ann@acme.io")))["naive_rows_right", "crm"] == (1, 1.0)


def test_a_table_without_such_a_column_has_no_naive_join() -> None:
    table = SourceTable("crm", "snapshot", (ColumnMapping("crm_id", ("contact",)),))
    rows = {"crm": AuditedTable(crm(("c1", None))["crm"].rows, table)}
    assert not [metric for metric, _ in report(graph(*ANN), tables=rows) if metric.startswith("naive")]


def test_sizes_fall_into_powers_of_two() -> None:
    members = [("email", f"{size}-{i}", f"P{size}") for size in (1, 2, 3, 4, 5, 8, 9, 16) for i in range(size)]
    found = report(graph(*members))
    sizes = {subject: value for (metric, subject), (value, _) in found.items() if metric == "profile_size"}
    assert sizes == {"1": 1, "2": 1, "3-4": 2, "5-8": 2, "9-16": 2}


def test_profiles_at_a_limit_are_counted_by_type() -> None:
    found = report(graph(*ANN, ("heap_identity", "b", "B"), ("heap_identity", "b2", "B")))
    assert found["profiles_at_limit", "heap_identity"] == (1, 0.5)
    assert ("profiles_at_limit", "crm_id") not in found, "at a limit of one is everybody"
    assert ("profiles_at_limit", "email") not in found


def test_shared_values_and_conflicts_are_counted_by_type() -> None:
    conflict = pl.LazyFrame({"limited_type": ["crm_id", "crm_id", "email"]})
    found = report(graph(*ANN, shared=(("heap_user_id", "9", None),)), conflicts=conflict)
    assert found["identifiers_shared", "heap_user_id"] == (1, pytest.approx(1 / 3))
    assert found["conflicts", "all"] == (3, None)
    assert found["conflicts", "crm_id"] == (2, pytest.approx(2 / 3))


def test_nothing_at_all_is_a_report_of_zeros_without_shares() -> None:
    found = report(graph(), tables=crm())
    assert found["profiles_in_heap", "all"] == (0, None)
    assert found["rows_identified", "crm"] == (0, None)


def test_the_report_reads_in_a_few_lines() -> None:
    heap = users((1, "ann@acme.io", None, None), (2, None, None, None))
    rows = crm(("c1", "ann@home.io"), ("c1", "ann@acme.io"))
    found = audit(graph(*ANN), pl.LazyFrame(schema=CONFLICTS), heap, rows, RULES, BOTH).collect()
    assert audit_text(found).splitlines() == [
        "- **People**: 1; known to Heap 1 (100.0%), with a Heap identity 1 (100.0%), only in Heap 0 (0.0%), "
        "only in the warehouse 0 (0.0%)",
        "- **Duplicates**: on several identities 0 (0.0%), anonymous twins 1 (50.0%), refused links 0",
        "- **crm**: in Heap 2 (100.0%) of 2 rows; a join on one raw column: missed 1 (50.0%), wrong person 0 (0.0%), "
        "several people 0 (0.0%)",
    ]


def test_figures_over_time_are_shares_and_counts_by_name() -> None:
    heap = users((1, "ann@acme.io", None, None), (2, None, None, None))
    rows = crm(("c1", "ann@home.io"), ("c1", "ann@acme.io"))
    found = audit_figures(audit(graph(*ANN), pl.LazyFrame(schema=CONFLICTS), heap, rows, RULES, BOTH).collect())
    assert found == {
        "profiles_in_heap_share": 1.0,
        "profiles_addressable_share": 1.0,
        "profiles_heap_only_share": 0.0,
        "profiles_warehouse_only_share": 0.0,
        "profiles_several_identities": 0,
        "anonymous_twins": 1,
        "conflicts": 0,
        "at_limit_heap_identity": 0,
        "identified_crm": 1.0,
        "matched_crm": 1.0,
        "naive_missed_crm": 0.5,
        "naive_wrong_crm": 0.0,
    }
    nobody = audit_figures(audit(graph(), pl.LazyFrame(schema=CONFLICTS), users(), crm(), RULES, BOTH).collect())
    assert set(nobody.values()) == {0}, "a share of nothing is no figure"
