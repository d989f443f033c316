"""The `heap_resolved` views over published tables: today's user and profile of each row."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from heap_assets.sources.heap_bigquery.events_table import PUBLICATION, events_table
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
)
from heap_assets.sources.warehouse.publish_log import PublishLog
from heap_assets.sources.warehouse.resolved_views import ResolvedOn
from heap_assets_tests.sources.warehouse.publish_target import MONDAY, TUESDAY, Target


def test_resolved_views_give_todays_user_and_profile(target: Target) -> None:
    publish = target.publisher.publish
    for day in (MONDAY, TUESDAY):
        migrations = pl.LazyFrame({"from_user_id": [1], "resolved_to": [2 if day == TUESDAY else 9]})
        publish(Publication("heap_user_migrations"), day, migrations, f"{day}")
        graph = pl.LazyFrame({"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": [f"p-{day}"]})
        publish(Publication("identity_graph"), day, graph, f"{day}")
    signup = Publication("heap_events_signup")
    publish(signup, MONDAY, pl.LazyFrame({"event_id": [7, 8], "user_id": [1, 3]}), "v")
    view, newest = f"heap_resolved_{uuid4().hex[:8]}", ResolvedOn(TUESDAY, TUESDAY)
    question = f"SELECT event_id, resolved_user_id, profile_id FROM {view}.heap_events_signup ORDER BY event_id"

    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest) == [
        f"{view}.heap_events_signup"
    ]

    assert target.query(question) == [(7, 2, "p-2026-11-03"), (8, 3, None)]
    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest) == []
    publish(signup, MONDAY, pl.LazyFrame({"event_id": [7], "user_id": [1], "plan": ["pro"]}), "v2")
    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest), "a column was added"
    assert target.query(f"SELECT plan FROM {view}.heap_events_signup") == [("pro",)]


def test_a_view_that_another_publisher_made_since_is_made_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, create = target.publisher, target.publisher._create_view
    for day in (MONDAY, TUESDAY):
        rows = {"from_user_id": [1], "resolved_to": [int(f"{day:%d}")], "user_id": [1]}
        publisher.publish(Publication("heap_user_migrations"), day, pl.LazyFrame(rows), "v")
        graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
        publisher.publish(Publication("identity_graph"), day, pl.LazyFrame(graph), "v")
    publisher.publish(Publication("t"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    view = f"heap_resolved_{uuid4().hex[:8]}"

    def overtaken(*arguments: Any) -> None:
        create(*arguments)
        monkeypatch.setattr(publisher, "_create_view", create)
        publisher.resolve_views(["t"], into=view, on=ResolvedOn(MONDAY, MONDAY))

    monkeypatch.setattr(publisher, "_create_view", overtaken)
    publisher.resolve_views(["t"], into=view, on=ResolvedOn(TUESDAY, TUESDAY))
    assert publisher.resolve_views(["t"], into=view, on=ResolvedOn(TUESDAY, TUESDAY)) == [f"{view}.t"]
    assert target.query(f"SELECT resolved_user_id FROM {view}.t") == [(3,)]


def test_a_view_gets_the_column_of_a_run_that_died_before_it_said_so(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    publish(Publication("t"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    view, on = f"heap_resolved_{uuid4().hex[:8]}", ResolvedOn(MONDAY, MONDAY)
    target.publisher.resolve_views(["t"], into=view, on=on)
    wider = pl.LazyFrame({"user_id": [1], "plan": ["pro"]})
    with monkeypatch.context() as dying:
        dying.setattr(PublishLog, "end", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            publish(Publication("t"), MONDAY, wider, "v2")
    publish(Publication("t"), MONDAY, wider, "v2")
    assert target.publisher.resolve_views(["t"], into=view, on=on) == [f"{view}.t"]
    assert target.query(f"SELECT plan FROM {view}.t") == [("pro",)]
    assert target.publisher.resolve_views(["t"], into=view, on=on) == []


def test_the_wide_table_is_resolved_though_its_user_id_is_text(target: Target) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    event = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
    publish(PUBLICATION, MONDAY, events_table({"signup": pl.LazyFrame(event)}), "v")
    view = f"heap_resolved_{uuid4().hex[:8]}"
    target.publisher.resolve_views(["events"], into=view, on=ResolvedOn(MONDAY, MONDAY))
    assert target.query(f"SELECT user_id, resolved_user_id, profile_id FROM {view}.events") == [("1", 2, "p")]


def test_types_widen_and_the_views_on_them_stay(target: Target) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    rows = pl.LazyFrame({"user_id": [1], "amount": [3]}, schema={"user_id": pl.Int64, "amount": pl.Int32})
    wider = pl.LazyFrame({"user_id": [1], "amount": [Decimal("2.5")]}, schema_overrides={"amount": pl.Decimal(12, 2)})
    publish(Publication("t"), MONDAY, rows, "v1")
    view = f"heap_resolved_{uuid4().hex[:8]}"
    target.publisher.resolve_views(["t"], into=view, on=ResolvedOn(MONDAY, MONDAY))
    assert target.publisher.preview(Publication("t"), wider, TUESDAY) == Preview(False, (), ("amount",))

    publish(Publication("t"), TUESDAY, wider, "v1")

    amounts = [Decimal(amount) for (amount,) in target.query(f"SELECT amount FROM {view}.t ORDER BY amount")]
    assert amounts == [Decimal("2.5"), Decimal(3)]
