"""When what happens: promises about days, ids and times that hold for any size of company."""

import itertools
from datetime import UTC, date, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.demo.chance import row_ids, stream
from heap_assets.demo.plan import DIGIT_BOUNDARY, Plan

plans = st.builds(
    Plan,
    people=st.integers(20, 10**6),
    days=st.integers(3, 120),
    seed=st.integers(0, 2**63),
    first_day=st.dates(date(2015, 1, 1), date(2025, 1, 1)),
    faults=st.booleans(),
    grown=st.integers(0, 30),
)


@settings(max_examples=40, deadline=None)
@given(plans)
def test_dump_ids_rise_with_gaps_and_cross_a_digit_boundary(plan: Plan) -> None:
    ids = [plan.dump_id(day) for day in plan.dump_days]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(ids))
    assert ids[0] < DIGIT_BOUNDARY <= ids[-1] or len(ids) < 3


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(1, 10))
def test_what_a_company_was_written_with_stays_when_it_grows(plan: Plan, more: int) -> None:
    grown = Plan(plan.people, plan.days, plan.seed, plan.first_day, plan.faults, plan.grown + more)
    assert [plan.dump_id(day) for day in plan.dump_days] == [grown.dump_id(day) for day in plan.dump_days]
    assert (plan.resync_day, plan.new_table_day, plan.history_end) == (
        grown.resync_day,
        grown.new_table_day,
        grown.history_end,
    )


@settings(max_examples=40, deadline=None)
@given(plans)
def test_unusual_nights_lie_within_the_series(plan: Plan) -> None:
    for day in (plan.resync_day, plan.new_column_day, plan.new_table_day, plan.skipped_day, plan.text_time_day):
        assert plan.history_end <= day <= plan.planned_last


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(0, 40))
def test_a_dump_belongs_to_its_day(plan: Plan, number: int) -> None:
    day = min(number, plan.last_day)
    written = plan.written_at(day, now=datetime(2030, 1, 1, tzinfo=UTC))
    assert (written - timedelta(hours=12)).date() == plan.date_of(day)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63), st.text(max_size=10))
def test_chance_depends_on_its_names_alone(seed: int, label: str) -> None:
    assert stream(seed, label).integers(0, 2**40) == stream(seed, label).integers(0, 2**40)
    ids = row_ids(seed, label, np.arange(500))
    assert len(set(ids.tolist())) == 500
    assert (ids == row_ids(seed, label, np.arange(500))).all()
    assert ids.min() >= 2**40
    assert ids.max() < 2**53
