"""Rows a month are counted with each landing, survive resets, and are reported with everything else."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from dump_builders import Bucket, Clock, event, land_all, landing_in

from heap_assets.sources.heap_connect import Plan, QuotaStatus, quota, usage
from heap_assets.sources.heap_connect.quota import ROWS_A_MONTH


def dump(bucket: Bucket, number: int, rows: int) -> None:
    day = date(2026, 5, number)
    bucket.dump(number, f"{day}T02:00:00", a=[event(number * 100 + i, f"{day} 01:00:00") for i in range(rows)])


def test_rows_are_counted_by_day_of_landing_and_again_when_they_land_again(tmp_path: Path) -> None:
    clock = Clock(datetime(2026, 5, 30, 23, 0, tzinfo=UTC))
    bucket, landing = Bucket(tmp_path / "bucket"), landing_in(tmp_path / "lake", clock=clock)
    dump(bucket, 1, 5)
    land_all(landing, bucket)
    clock.forward(days=1)
    landing.reset("a")
    land_all(landing, bucket)
    clock.forward(days=7)
    dump(bucket, 2, 3)
    land_all(landing, bucket)
    assert usage(landing).rows() == [
        (date(2026, 5, 30), "2026-05", 5, True),
        (date(2026, 5, 31), "2026-05", 5, True),
        (date(2026, 6, 7), "2026-06", 3, False),
    ]
    may = quota(landing, "growth", datetime(2026, 5, 31, tzinfo=UTC))
    assert (may.rows, may.status, may.resumes) == (10, QuotaStatus.WITHIN, date(2026, 6, 1))
    assert quota(landing, "growth", datetime(2026, 5, 31, tzinfo=UTC), count_free_days=False).rows == 0


def test_a_month_warns_at_four_fifths_and_stops_between_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS_A_MONTH, Plan.GROWTH, 10)
    clock = Clock(datetime(2026, 12, 5, tzinfo=UTC))
    bucket, landing = Bucket(tmp_path / "bucket"), landing_in(tmp_path / "lake", clock=clock)
    seen = []
    for number, rows in ((1, 7), (2, 1), (3, 6)):
        dump(bucket, number, rows)
        land_all(landing, bucket)
        seen.append(quota(landing, Plan.GROWTH, clock()))
    assert [q.status for q in seen] == [QuotaStatus.WITHIN, QuotaStatus.WARN, QuotaStatus.REACHED]
    assert seen[-1].rows == 14
    assert seen[-1].resumes == date(2027, 1, 1)
    clock.forward(days=30)
    assert quota(landing, Plan.GROWTH, clock()).status is QuotaStatus.WITHIN
    assert quota(landing, Plan.PREMIER, clock()).share is None


def test_reports_are_a_table(tmp_path: Path) -> None:
    bucket, landing = Bucket(tmp_path / "bucket"), landing_in(tmp_path / "lake")
    dump(bucket, 1, 5)
    land_all(landing, bucket)
    (row,) = landing.reports().to_dicts()
    assert (row["table"], row["state"], row["rows_read"], row["rows_new"], row["files"]) == ("a", "landed", 5, 5, 1)
    assert row["bytes"] > 0
    assert landing.index().select("table", "dump_id", "rows", "standing").rows() == [("a", 1, 5, True)]
