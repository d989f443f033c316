"""Orders of a job: what travels, what does not, and that another version refuses them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import IdentifierRule, Rules, SparkJob, SparkJobError, SparkTuning
from heap_assets.identity.engine.spark import orders as orders_module
from heap_assets.identity.engine.spark.orders import JobOrders
from heap_assets.storage import Store
from heap_assets_tests.identity.builders import TYPES, Book, books, links_frame, rules_of
from heap_assets_tests.identity.test_decisions import decisions

ALWAYS = SparkTuning(above_links=0)
RULES = Rules(
    (
        IdentifierRule("email", max_per_profile=3, blocked=("info@x.io",)),
        IdentifierRule("device", shared_above={"email": 2}),
    ),
    suppressed=frozenset({("email", "gone@x.io")}),
)
_ENDS = st.tuples(st.sampled_from(TYPES), st.sampled_from("abcd"))


@settings(max_examples=40, deadline=None)
@given(books(), decisions(_ENDS, most=8))
def test_rules_of_any_kind_arrive_as_they_were(book: Book, settled: tuple[Any, ...]) -> None:
    rules = replace(rules_of(book), decisions=settled)
    values = json.loads(json.dumps(JobOrders(("file:///a",), rules, ALWAYS, "/work").values()))
    arrived = JobOrders.of_values(values)
    assert (arrived.rules.digest, arrived.rules.apart) == (rules.digest, rules.apart)
    assert (arrived.links, arrived.tuning, arrived.folder) == (("file:///a",), ALWAYS, "/work")


def test_rules_with_every_key_arrive_as_they_were() -> None:
    values = json.loads(json.dumps(JobOrders((), RULES, ALWAYS, "/work").values()))
    assert JobOrders.of_values(values).rules == RULES


def test_orders_of_another_version_or_other_rules_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = JobOrders((), RULES, ALWAYS, "/work").values()
    with pytest.raises(SparkJobError, match="did not arrive as they were sent"):
        JobOrders.of_values({**values, "digest": "0"})
    monkeypatch.setattr(orders_module, "code_digest", lambda: "0")
    with pytest.raises(SparkJobError, match="of another version than the run"):
        JobOrders.of_values(values)


def test_no_credentials_travel() -> None:
    options = {"aws_region": "eu-west-1", "aws_access_key_id": "AKIA1", "aws_secret_access_key": "xyz-1"}
    values = JobOrders((), RULES, ALWAYS, "s3://b/work", options).values()
    assert values["options"] == {"aws_region": "eu-west-1"}
    assert "AKIA1" not in json.dumps(values)
    assert "xyz-1" not in json.dumps(values)


LINKS = links_frame([])


def report(**changed: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("graph", "conflicts", "shared"), 0)
    whole = {"profiles": 0, "identifiers": 0, "rounds": 0, "rows": counts, "files": counts, "digest": RULES.digest}
    return {**whole, **changed}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "ended well without reporting results"),
        (report(digest="other"), "by other rules"),
        (report(rows={"graph": 1, "conflicts": 0, "shared": 0}), "reports 1 rows of graph in 0 files, and 0 in 0"),
    ],
)
def test_what_is_not_as_reported_is_not_taken(answer: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    job = SparkJob(ALWAYS, Store(str(tmp_path)), lambda orders: answer)
    with pytest.raises(SparkJobError, match=message):
        job.resolve(LINKS, RULES)


def test_few_links_start_no_job_and_links_of_no_file_are_handed_over(tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []

    def launch(orders: Mapping[str, Any]) -> Mapping[str, Any]:
        told.append(orders)
        return report()

    store = Store(str(tmp_path / "work"))
    assert SparkJob(SparkTuning(), store, launch).resolve(LINKS, RULES).identifiers == 0
    assert not told
    assert SparkJob(ALWAYS, store, launch).resolve(LINKS, RULES).identifiers == 0
    [orders] = told
    assert [pl.read_parquet(link).height for link in orders["links"]] == [0]
