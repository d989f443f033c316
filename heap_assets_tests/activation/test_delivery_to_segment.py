"""Segment: Track, Identify and Group in batches within its limits."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import Status, SyncSpec, deliver
from heap_assets.activation.connectors.segment import SegmentSource
from heap_assets.activation.connectors.segment_group import SegmentGroup
from heap_assets.activation.connectors.segment_identify import SegmentIdentify
from heap_assets.activation.connectors.segment_reidentify import SegmentReidentify, reidentify_rows
from heap_assets.activation.connectors.segment_track.rows import SegmentTrack, track_rows
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.storage import Store


def source(server: ServerProcess) -> SegmentSource:
    return SegmentSource("wk-secret", base_url=server.base_url)


def heap_events(count: int) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "event_id": list(range(count)),
            "user_id": [n % 3 for n in range(count)],
            "time": [datetime(2026, 11, 19, tzinfo=UTC)] * count,
            "plan": ["pro"] * count,
            "sent_by": ["heap_assets" if n == 1 else None for n in range(count)],
        }
    )


IDENTITIES = pl.LazyFrame({"user_id": [0], "identity": ["ann"]})


def test_heap_events_become_tracks_with_the_right_ids_and_no_echo(segment: ServerProcess, lake: Store) -> None:
    rows = track_rows(heap_events(6), "Signed Up", IDENTITIES, "11")
    spec = SyncSpec("track", {"plan": "plan"}, retry=kit.QUICK)
    report = deliver(spec, SegmentTrack(source(segment), table="signed_up"), rows, lake, kit.DAY, "r")
    assert (report.sent, report.requests) == (5, 1)
    state = segment.state()
    tracks = state["events"]
    assert len(tracks) == 5
    message = next(m for m in tracks.values() if m.get("userId") == "ann")
    assert message["anonymousId"] == "heap|11|0"
    assert message["integrations"] == {"Heap": False}
    assert message["properties"] == {"plan": "pro"}
    anonymous = next(m for m in tracks.values() if "userId" not in m)
    assert anonymous["anonymousId"].startswith("heap|11|")
    assert not state["rejected"]


def test_a_resend_is_dropped_by_segment(segment: ServerProcess, lake: Store) -> None:
    rows = track_rows(heap_events(6), "Signed Up", IDENTITIES, "11")
    spec = SyncSpec("track", {"plan": "plan"}, retry=kit.QUICK)
    destination = SegmentTrack(source(segment), table="signed_up")
    segment.fail({"kind": "drop", "next": 2})
    assert deliver(spec, destination, rows, lake, kit.DAY, "r").sent == 5
    assert len(segment.state()["events"]) == 5


def test_batches_stay_below_500_kb_and_2500_events(segment: ServerProcess, lake: Store) -> None:
    fat = kit.people(120).with_columns(plan=pl.lit("é" * 10_000))
    spec = SyncSpec("identify", {"plan": "plan"}, retry=kit.QUICK)
    report = deliver(spec, SegmentIdentify(source(segment)), fat.lazy(), lake, kit.DAY, "r")
    assert (report.status, report.sent) == (Status.SUCCEEDED, 120)
    assert report.requests == 5
    many = kit.people(6000)
    report = deliver(
        SyncSpec("many", {"plan": "plan"}), SegmentIdentify(source(segment)), many.lazy(), lake, kit.DAY, "r"
    )
    assert report.requests == 3
    assert not segment.state()["rejected"]


def test_a_row_above_32_kb_is_rejected_alone(segment: ServerProcess, lake: Store) -> None:
    rows = kit.people(3).with_columns(plan=pl.when(pl.col("seats") == 1).then(pl.lit("x" * 33_000)).otherwise("plan"))
    spec = SyncSpec("identify", {"plan": "plan"}, retry=kit.QUICK)
    report = deliver(spec, SegmentIdentify(source(segment)), rows.lazy(), lake, kit.DAY, "r")
    assert (report.sent, report.rejected) == (2, 1)
    assert list(report.rejections) == ["row is larger than 32768 bytes"]


def test_traits_keep_their_types_and_a_value_that_returns_is_not_taken_for_a_resend(
    segment: ServerProcess, lake: Store
) -> None:
    spec = SyncSpec("identify", {"plan": "plan", "active": "active", "since": "since"}, retry=kit.QUICK)

    def run(plan: str) -> None:
        rows = pl.LazyFrame({"key": ["ann"], "plan": [plan], "active": [True], "since": [kit.DAY]})
        assert deliver(spec, SegmentIdentify(source(segment)), rows, lake, kit.DAY, "r").sent == 1

    for plan in ("a", "b", "a"):
        run(plan)
    traits = [m["traits"] for m in segment.state()["events"].values()]
    assert [t["plan"] for t in traits] == ["a", "b", "a"]
    assert traits[0] == {"plan": "a", "active": True, "since": "2026-11-20"}


def test_accounts_become_groups(segment: ServerProcess, lake: Store) -> None:
    rows = pl.LazyFrame({"key": ["acme", "lone"], "user_id": ["ann", None], "name": ["Acme", "Lone"]})
    spec = SyncSpec("group", {"name": "name"}, retry=kit.QUICK)
    report = deliver(spec, SegmentGroup(source(segment)), rows, lake, kit.DAY, "r")
    assert (report.sent, report.invalid_reasons) == (1, {"no member of the group is known": 1})
    (message,) = segment.state()["events"].values()
    assert (message["groupId"], message["userId"], message["traits"]) == ("acme", "ann", {"name": "Acme"})


def test_a_migrated_user_is_identified_with_both_ids_once(segment: ServerProcess, lake: Store) -> None:
    migrations = pl.LazyFrame({"from_user_id": [5, 6], "resolved_to": [700, 701]})
    users = pl.LazyFrame({"user_id": [700, 701], "identity": ["ann", None]})
    rows = reidentify_rows(migrations, users, "11")
    spec = SyncSpec("reidentify", retry=kit.QUICK)
    assert deliver(spec, SegmentReidentify(source(segment)), rows, lake, kit.DAY, "r").sent == 1
    assert deliver(spec, SegmentReidentify(source(segment)), rows, lake, kit.DAY, "r").requests == 0
    (message,) = segment.state()["events"].values()
    assert (message["type"], message["userId"], message["anonymousId"]) == ("identify", "ann", "heap|11|5")


def test_a_full_resync_refreshes_each_identity_once(segment: ServerProcess, lake: Store) -> None:
    migrations = pl.LazyFrame(schema={"from_user_id": pl.Int64, "resolved_to": pl.Int64})
    users = pl.LazyFrame({"user_id": [700, 701, 702], "identity": ["ann", "ann", None]})
    resynced = pl.LazyFrame({"user_id": [700, 701, 702], "resync": ["dump 7 signed_up"] * 3})
    rows = reidentify_rows(migrations, users, "11", resynced)
    spec = SyncSpec("reidentify", retry=kit.QUICK)
    assert deliver(spec, SegmentReidentify(source(segment)), rows, lake, kit.DAY, "r").sent == 1
    later = reidentify_rows(migrations, users, "11", resynced.with_columns(resync=pl.lit("dump 9 signed_up")))
    assert deliver(spec, SegmentReidentify(source(segment)), later, lake, kit.DAY, "r").sent == 1


def test_the_write_key_shows_nowhere(segment: ServerProcess, lake: Store) -> None:
    where = source(segment)
    assert "wk-secret" not in repr(where)
    spec = SyncSpec("identify", {"plan": "plan"}, retry=kit.QUICK)
    segment.fail({"status": 401})
    report = deliver(spec, SegmentIdentify(where), kit.people(2).lazy(), lake, kit.DAY, "r")
    assert report.status == Status.STOPPED
    assert "wk-secret" not in json.dumps(report.as_dict(), default=str)
    assert b"wk-secret" not in b"".join(lake.read(info.key) for info in lake.list("_sync"))
    with pytest.raises(SettingsError, match="write_key"):
        SegmentSource(" ")
