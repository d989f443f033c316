"""A property may be called like anything of ours: its values come out under a documented name, ours stay ours."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from dump_builders import Bucket, event, land_all, landing_in, migration, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.identity import ColumnMapping, IdentifierRule, Rules, SourceTable
from heap_assets.profiles import TraitRule, TraitSource, events_of_profiles, golden_records, members, parse_audience
from heap_assets.sources.heap_connect import (
    Catalogue,
    build_event_day,
    build_user_migrations,
    build_users,
    staging,
    values,
)
from heap_assets.storage import Lake, LakeSql
from heap_assets.values import apart

DAY = date(2026, 3, 1)
OURS = (
    *("migrated_to", "partition_key", "partition_day", "profile_id", "resolved_user_id", "resolved_to", "filename"),
    *("identifier", "identifier_type", "identifiers", "heap_identity", "heap_identities", "heap_user_ids", "conflicts"),
    *("first_seen", "last_seen", "count", "source", "shared", "key", "event", "event_key", "value", "type", "profile"),
    *("_day", "_dump", "_row", "_filled", "_hash", "_assigned_row", "_assigned_value", "identifier_0", "day", "rows"),
)
NAMES = st.sampled_from(OURS).flatmap(
    lambda name: st.sampled_from([name, name.upper(), f"property_{name}", f"property_property_{name}", f"{name}__long"])
)
GRAPH = pl.DataFrame(
    {"identifier_type": ["heap_user_id"] * 2, "identifier": ["1", "2"], "profile_id": ["p1", "p2"]}
).with_columns(
    shared=pl.lit(value=False),
    first_seen=pl.lit(datetime(2026, 3, 1, tzinfo=UTC)),
    last_seen=pl.lit(datetime(2026, 3, 1, tzinfo=UTC)),
)
RULES = Rules((IdentifierRule("heap_identity"), IdentifierRule("heap_user_id")))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAMES, min_size=1, max_size=8, unique_by=str.casefold))
def test_a_property_may_be_called_like_anything_of_ours(tmp_path: Path, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        _check(Path(folder), names)


def _check(folder: Path, names: list[str]) -> None:
    values = {name: f"value of {name}" for name in names}
    bucket = Bucket(folder / "bucket")
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        look=[event(1, "2026-03-01 10:00:00", **values)],
        users=[user(1, identity="ann", **values), user(2, identity="bob", **values)],
        user_migrations=[migration(2, 1)],
    )
    landing = landing_in(folder / "lake")
    land_all(landing, bucket)
    catalogue = Catalogue().accept(Catalogue().missing(landing))
    assert not catalogue.missing(landing)
    users = build_users(landing, DAY, catalogue.columns("users")).frame.collect()
    under = {name: apart(name, ["migrated_to"]) for name in names}
    assert users["migrated_to"].to_list() == [None, 1]
    assert users.select(under.values()).row(0) == tuple(values.values())
    looked = build_event_day(landing, "look", DAY, catalogue.columns("look")).frame.collect()
    assert looked.select(names).row(0) == tuple(values.values())
    lake = Lake.open(str(folder / "lake"))
    for asset, frame in (("heap/users", users), ("heap/events/look", looked), ("identity/graph", GRAPH)):
        lake.write(asset, str(DAY), frame)
    lake.write("heap/user_migrations", str(DAY), build_user_migrations(landing, DAY).frame.collect())
    with LakeSql(str(folder / "lake")) as lake_sql:
        assert not lake_sql.unreadable
        row = lake_sql.sql("SELECT * FROM resolved.events_look").row(0, named=True)
    assert (row["partition_key"], row["resolved_user_id"], row["profile_id"]) == (str(DAY), 1, "p1")
    shown = {name: apart(apart(name, ["partition_key"]), ["resolved_user_id", "profile_id"]) for name in names}
    assert {name: row[column] for name, column in shown.items()} == values
    _check_profiles(users, looked, under, values)


def _check_profiles(users: pl.DataFrame, looked: pl.DataFrame, under: dict[str, str], values: dict[str, str]) -> None:
    table = SourceTable("users", "snapshot", (ColumnMapping("heap_user_id", ("user_id",)),), "joindate")
    traits = [TraitRule(f"trait_{n}", (f"users.{column}",)) for n, column in enumerate(under.values())]
    records = golden_records(GRAPH.lazy(), {"users": TraitSource(users.lazy(), table)}, traits, RULES).frame.collect()
    assert records.select(f"trait_{n}" for n in range(len(traits))).row(0) == tuple(values.values())
    events = {"look": events_of_profiles(looked.lazy(), GRAPH.lazy())}
    definition = {"events": [{"type": "look", "properties": values}]}
    inside = members(parse_audience("a", definition), records.lazy(), events, datetime(2026, 3, 2, tzinfo=UTC))
    assert inside.collect()["profile_id"].to_list() == ["p1"]


def test_rows_that_a_former_version_set_aside_for_an_id_of_another_table_land_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(tmp_path / "bucket")
    rows = [event(1, "2026-03-01 10:00:00", to_user_id="ann"), event(2, "2026-03-01 11:00:00", to_user_id="7")]
    bucket.dump(1, "2026-03-02T02:00:00", gift_sent=rows, clicks=[event(3, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    with monkeypatch.context() as former:
        former.setattr(values, "_EVENT_IDS", (*values._EVENT_IDS, "to_user_id"))
        former.setattr(staging, "FORMAT", 1)
        (report,) = land_all(landing, bucket)
        assert {table.table: dict(table.rejected) for table in report.tables if table.rejected} == {
            "gift_sent": {"to_user_id is not an id": 1}
        }
    (healed,) = land_all(landing, bucket)
    assert [table.table for table in healed.tables] == ["gift_sent"], "what was right stays as it is"
    built = build_event_day(landing, "gift_sent", date(2026, 3, 1), None).frame.collect()
    assert built["to_user_id"].to_list() == ["ann", "7"]
    assert land_all(landing, bucket) == []
