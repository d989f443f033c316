from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity.explain.blockers import IdentityTables, Refused, SharedValue
from heap_assets.identity.explain.cluster import Identifier, Link, as_links, in_order, load_clusters, tree
from heap_assets.identity.explain.explain import Explanation, explain
from heap_assets.identity.explain.query import Outcome, QueryError
from heap_assets.identity.rules import IdentifierRule, Rules
from heap_assets.identity.schemas import LINKS
from heap_assets.identity.timeline import resolve
from heap_assets_tests.examples import examples

RULES = Rules(
    (
        IdentifierRule("heap_identity"),
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email", max_per_profile=3, blocked=("info@acme.io",)),
        IdentifierRule("device_id"),
        IdentifierRule("heap_user_id"),
    )
)
Row = tuple[str, str | None, str, int | None, bool]


def day(n: int | None) -> datetime | None:
    return None if n is None else datetime(2026, 11, n, tzinfo=UTC)


def links(*rows: Row) -> pl.LazyFrame:
    """Each row: two identifiers (or one and None), the source, a day of November, whether Heap decided it."""
    ends = [(*a.split(":", 1), *(b.split(":", 1) if b else (None, None))) for a, b, *_ in rows]
    facts = [(source, day(n), day(n), 1, decided) for *_, source, n, decided in rows]
    return pl.LazyFrame([(*e, *f) for e, f in zip(ends, facts, strict=True)], schema=LINKS, orient="row")


def tables(*rows: Row, rules: Rules = RULES) -> IdentityTables:
    seen = links(*rows)
    result = resolve(seen, rules)
    return IdentityTables(seen, result.graph, result.conflicts, result.shared)


ANN: list[Row] = [
    ("heap_identity:ann", "heap_user_id:1", "heap/users", 1, True),
    ("heap_identity:ann", "email:ann@acme.io", "heap/users", 1, False),
    ("crm_id:c1", "email:ann@acme.io", "crm", 2, False),
    ("crm_id:c1", "email:ann@home.io", "crm", 3, False),
    ("crm_id:c1", "email:ann@home.io", "billing", 9, False),
    ("email:ann@home.io", "device_id:phone", "heap/events/login", 4, False),
]
BOB: list[Row] = [
    ("crm_id:c2", "email:bob@x.io", "crm", 6, False),
    ("crm_id:c2", "email:ann@home.io", "support", 7, False),
]
KIOSK: list[Row] = [
    ("email:ann@acme.io", "device_id:kiosk", "heap/events/login", 7, False),
    ("email:cid@x.io", "device_id:kiosk", "heap/events/login", 8, False),
    ("email:dan@x.io", "device_id:kiosk", "heap/events/login", 8, False),
]
COMPANY = tables(*ANN, *BOB, *KIOSK, ("email:lone@x.io", None, "crm", 5, False))


def ask(first: str, second: str | None = None, of: IdentityTables = COMPANY) -> Explanation:
    return explain(first, second, of, RULES)


def test_two_identifiers_of_a_person_are_joined_by_a_chain_with_sources_and_dates() -> None:
    answer = ask("heap_user_id:1", "email:ann@home.io")
    assert answer.outcome is Outcome.JOINED
    assert answer.text().splitlines() == [
        "heap_user_id:1 and email:ann@home.io are one person: 4 links joined them.",
        f"  profile {answer.clusters[0].profile_id}, 6 identifiers",
        "",
        "  heap_user_id:1",
        "   │  decided by Heap: heap/users, 1 record, 2026-11-01",
        "  heap_identity:ann",
        "   │  heap/users, 1 record, 2026-11-01",
        "  email:ann@acme.io",
        "   │  crm, 1 record, 2026-11-02",
        "  crm_id:c1",
        "   │  billing, 1 record, 2026-11-09; crm, 1 record, 2026-11-03   (the weakest link)",
        "  email:ann@home.io",
    ]


def test_a_merge_limit_keeps_two_people_apart_and_is_named() -> None:
    answer = ask("email:ann@acme.io", "email:bob@x.io")
    assert answer.outcome is Outcome.LIMIT
    refused = next(step for step in answer.steps if isinstance(step, Refused))
    assert (str(refused.near), str(refused.far)) == ("email:ann@home.io", "crm_id:c2")
    assert (refused.limited_type, refused.limit, refused.count_near, refused.count_far) == ("crm_id", 1, 1, 1)
    assert (refused.sources, refused.first_seen) == (("support",), day(7))
    assert "a profile may hold 1 crm_id, together they would have 1 + 1; support since 2026-11-07" in answer.text()


def test_the_same_two_people_are_explained_from_the_other_side() -> None:
    there, back = ask("email:ann@acme.io", "email:bob@x.io"), ask("email:bob@x.io", "email:ann@acme.io")
    (refused,) = (step for step in back.steps if isinstance(step, Refused))
    assert (str(refused.near), str(refused.far)) == ("crm_id:c2", "email:ann@home.io")
    assert [step for step in there.steps if isinstance(step, Link)] == [
        step for step in reversed(back.steps) if isinstance(step, Link)
    ]


def test_a_shared_value_keeps_people_apart_and_shows_how_each_met_it() -> None:
    answer = ask("email:cid@x.io", "email:dan@x.io")
    assert answer.outcome is Outcome.SHARED
    (met,) = answer.steps
    assert isinstance(met, SharedValue)
    assert (met.value, met.groups) == (Identifier("device_id", "kiosk"), 3)
    assert "they only meet on device_id:kiosk, which joins nobody because 3 groups" in answer.text()


def test_people_two_steps_apart_are_connected_through_the_one_between() -> None:
    answer = ask("email:bob@x.io", "email:cid@x.io")
    kinds = [type(step).__name__ for step in answer.steps]
    assert kinds == ["Link", "Refused", "Link", "Link", "SharedValue"]
    assert len(answer.clusters) == 3
    assert contiguous(answer)


def test_everything_between_two_profiles_is_listed() -> None:
    both = tables(*ANN, *BOB, *KIOSK, ("email:bob@x.io", "device_id:kiosk", "heap/events/login", 9, False))
    answer = ask("email:ann@acme.io", "email:bob@x.io", both)
    assert [type(other).__name__ for other in answer.more_barriers] == ["SharedValue"]
    assert "Also between the two:\n  device_id:kiosk, shared by 3 groups of stronger identifiers" in answer.text()


def test_a_shared_value_itself_belongs_to_nobody() -> None:
    answer = ask("device_id:kiosk", "email:cid@x.io")
    assert answer.outcome is Outcome.SHARED
    assert answer.text().startswith("device_id:kiosk is a shared value: 3 groups of stronger identifiers use it")
    assert ask("device_id:kiosk").outcome is Outcome.SHARED


def test_a_shared_value_that_heap_tied_to_a_person_is_on_the_profile() -> None:
    tied = tables(
        ("heap_identity:ann", "heap_user_id:7", "heap/users", 1, True),
        ("heap_identity:ann", "email:ann@x.io", "crm", 1, False),
        ("email:bob@x.io", "heap_user_id:7", "heap/events/login", 2, False),
    )
    answer = ask("heap_user_id:7", "email:ann@x.io", tied)
    assert answer.outcome is Outcome.JOINED
    assert ask("heap_user_id:7", "email:bob@x.io", tied).outcome is Outcome.SHARED


def test_a_blocked_value_is_no_identifier() -> None:
    answer = ask("email: INFO@acme.io", "email:cid@x.io")
    assert answer.outcome is Outcome.BLOCKED
    assert answer.text().startswith("email:info@acme.io is no identifier: the settings block it.")
    assert "does not match the pattern" in ask("email:nobody").text()
    assert "the list of values that mean nobody" in ask("crm_id:null").text()


def test_an_unknown_value_suggests_how_it_may_have_been_spelt() -> None:
    answer = ask("heap_identity:ANN")
    assert answer.outcome is Outcome.UNKNOWN
    assert "never seen in any table up to this day. Similar ones were: heap_identity:ann." in answer.text()


def test_people_without_anything_in_common_are_unconnected() -> None:
    answer = ask("email:ann@acme.io", "email:lone@x.io")
    assert answer.outcome is Outcome.UNCONNECTED
    assert "no link, refused link or shared value connects them" in answer.text()


def test_one_identifier_shows_its_whole_profile_as_a_tree_and_what_keeps_others_away() -> None:
    lines = ask("email:ann@acme.io").text().splitlines()
    assert lines[0] == "email:ann@acme.io is one of 6 identifiers of a person."
    assert lines[3:8] == [
        "  email:ann@acme.io         2026-11-01 to 2026-11-07",
        "  ├─ heap_identity:ann      heap/users, 1 record, 2026-11-01",
        "  │  └─ heap_user_id:1      decided by Heap: heap/users, 1 record, 2026-11-01",
        "  └─ crm_id:c1              crm, 1 record, 2026-11-02",
        "     └─ email:ann@home.io   billing, 1 record, 2026-11-09; crm, 1 record, 2026-11-03",
    ]
    assert (
        "  email:ann@acme.io – device_id:kiosk: one of them is shared; heap/events/login, 1 record, 2026-11-07" in lines
    )


def test_an_identifier_alone_and_one_asked_twice_read_well() -> None:
    assert ask("email:lone@x.io").text().startswith("email:lone@x.io stands alone.")
    assert ask("email:cid@x.io", "email:cid@x.io").text().startswith("email:cid@x.io and email:cid@x.io are the same")


@pytest.mark.parametrize("question", [("email:ann@acme.io", "email:bob@x.io"), ("heap_user_id:1", "device_id:phone"),
                                      ("email:bob@x.io", "email:cid@x.io"), ("email:ann@acme.io", None),
                                      ("device_id:kiosk", None), ("email:x@y.zz", "email:ann@acme.io")])  # fmt: skip
def test_every_answer_is_json_and_a_flowchart_of_its_profiles(question: tuple[str, str | None]) -> None:
    answer = ask(*question)
    facts = json.loads(answer.json())
    assert facts["verdict"] == answer.outcome
    assert len(facts["steps"]) == len(answer.steps)
    drawn = answer.mermaid().splitlines()
    assert drawn[1] == "flowchart LR"
    assert sum(line.startswith("subgraph ") for line in drawn) == drawn.count("end") == len(answer.clusters)
    for cluster in answer.clusters:
        assert all(f'["{member.identifier}"]' in answer.mermaid() for member in cluster.members)
    between_drawn = () if answer.outcome is Outcome.PROFILE else (*answer.steps, *answer.more_barriers)
    assert (" --x " in answer.mermaid()) == any(isinstance(step, Refused) for step in between_drawn)


def test_values_from_outside_are_escaped_in_the_flowchart() -> None:
    nasty = tables(("crm_id:<script>&\"'", "email:ann@acme.io", "crm", 1, False))
    drawn = ask("email:ann@acme.io", of=nasty).mermaid()
    assert "<script>" not in drawn
    assert "crm_id:%3Cscript%3E%26%22'" in drawn


def test_a_very_large_profile_is_cut_in_text_and_flowchart_and_says_so() -> None:
    many = tables(*[("heap_identity:ann", f"heap_user_id:{i}", "heap/users", 1, True) for i in range(300)])
    answer = ask("heap_identity:ann", of=many)
    assert "more lines: ask for JSON" in answer.text()
    assert "301 identifiers, 241 not drawn" in answer.mermaid()
    assert len(json.loads(answer.json())["profiles"][0]["identifiers"]) == 301


@pytest.mark.parametrize(
    ("question", "message"),
    [("ann@acme.io", "has no type; ask for type:value"), ("emial:x", "unknown identifier type 'emial'.*mean 'email'")],
)
def test_a_question_that_means_nothing_says_how_to_ask(question: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        ask(question)


TYPES = ("a", "b", "c")
identifiers = st.tuples(st.sampled_from(TYPES), st.sampled_from("123")).map(":".join)
rules_of = st.builds(
    lambda limits, order: Rules(
        tuple(IdentifierRule(name, limit, pattern=".", shared_above=1 if name == "c" else "never")
              for name, limit in zip(TYPES, limits, strict=True)), order
    ),
    st.tuples(*[st.sampled_from([1, 2, None])] * 3),
    st.sampled_from(["priority", "first_seen"]),
)  # fmt: skip
graphs = st.lists(
    st.tuples(
        identifiers, identifiers, st.sampled_from(["s", "t"]), st.one_of(st.none(), st.integers(1, 4)), st.booleans()
    ),
    min_size=1,
    max_size=14,
)


def stored(rows: list[Row]) -> list[Row]:
    """The shape in which links are kept: stronger end first, one row per link and source, itself is a sighting."""
    found: dict[tuple[str, str | None, str], Row] = {}
    for a, b, source, n, decided in rows:
        ends = sorted((a, b or a))
        key = (ends[0], ends[1] if ends[0] != ends[1] else None, source)
        found.setdefault(key, (*key, n, decided and a != b))
    return list(found.values())


def contiguous(answer: Explanation) -> bool:
    """Whether the steps lead from the first identifier asked about to the second, without a gap."""
    at = answer.lookups[0].identifier
    for step in answer.steps:
        match step:
            case Link():
                assert at in (step.a, step.b)
                at = step.other(at)
            case Refused():
                assert step.near == at
                at = step.far
            case SharedValue():
                assert at in (step.near.a, step.near.b)
                at = step.far.other(step.value)
    return at == answer.lookups[1].identifier


@settings(max_examples=examples(60), deadline=None)
@given(graphs, rules_of)
def test_every_pair_gets_a_whole_chain_that_agrees_with_the_graph(rows: list[Any], rules: Rules) -> None:
    of = tables(*stored(rows), rules=rules)
    profiles = {
        f"{t}:{v}": p for t, v, p in of.graph.select("identifier_type", "identifier", "profile_id").collect().rows()
    }
    names = sorted(profiles)
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        answer = explain(first, second, of, rules)
        one = profiles[first] is not None and profiles[first] == profiles[second]
        assert (answer.outcome is Outcome.JOINED) is one
        if answer.steps or one:
            assert contiguous(answer)
        assert all(isinstance(step, Link) for step in answer.steps) or not one


@settings(max_examples=examples(60), deadline=None)
@given(graphs, rules_of)
def test_a_tree_spans_its_profile_and_no_path_has_a_stronger_weakest_link(rows: list[Any], rules: Rules) -> None:
    of = tables(*stored(rows), rules=rules)
    ids = of.graph.select("profile_id").drop_nulls().unique().collect()["profile_id"].to_list()
    for cluster in load_clusters(ids, of.links, of.graph, rules).values():
        assert len(cluster.tree) == len(cluster.members) - 1
        assert tree(cluster.links, rules) == list(cluster.tree)
        order = in_order(cluster.links, rules)
        accepted = [link for link in order if link in cluster.tree]
        for member in cluster.members[1:]:
            way = cluster.path(cluster.members[0].identifier, member.identifier)
            assert way
            weakest = max(accepted.index(link) for link in way)
            stronger = tree(accepted[:weakest], rules)
            without = {cluster.members[0].identifier}
            for _ in stronger:
                without |= {e for link in stronger if {link.a, link.b} & without for e in (link.a, link.b)}
            assert member.identifier not in without


def test_links_of_one_pair_are_put_together_from_all_sources() -> None:
    (link,) = as_links(links(("a:1", "b:2", "t", 3, False), ("a:1", "b:2", "s", 1, True)).collect())
    assert [seen.source for seen in link.sources] == ["s", "t"]
    assert (link.first_seen, link.last_seen, link.authoritative) == (day(1), day(3), True)


SAME_VALUE = tables(
    ("heap_identity:ann@acme.io", "heap_user_id:1", "heap/users", 1, True),
    ("crm_id:c1", "email:ann@acme.io", "crm", 2, False),
)


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        (("email:Ann@Acme.io", None), "heap_identity:ann@acme.io"),
        (("crm_id:c1", "heap_identity:ann@acme.io"), "email:ann@acme.io"),
        (("device_id:ann@acme.io", None), "email:ann@acme.io, heap_identity:ann@acme.io"),
    ],
)
def test_the_same_value_under_another_type_is_hinted_at(asked: tuple[str, str | None], other: str) -> None:
    answer = ask(*asked, SAME_VALUE)
    found = {str(identifier) for one in answer.lookups for identifier in one.elsewhere}
    assert found == set(other.split(", "))
    assert "values of different types are never compared" in answer.text()
    assert "identity: [heap_identity, email" in answer.text()
    assert sorted(json.loads(answer.json())["asked"][-1]["elsewhere"]) == sorted(found)


def test_a_value_that_is_joined_under_both_types_needs_no_hint() -> None:
    joined = tables(("heap_identity:ann@acme.io", "email:ann@acme.io", "heap/users", 1, False))
    assert "never compared" not in ask("email:ann@acme.io", None, joined).text()
    assert "never compared" not in ask("heap_user_id:1", "crm_id:c1", COMPANY).text()
