"""What a sync of user properties promises, against the local Heap server."""

from __future__ import annotations

import json

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import (
    Addressed,
    Guard,
    OnWithdrawn,
    Property,
    Status,
    changelog,
    deliver,
    dry_run,
    runs,
    set_aside,
)
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.storage import Store


def test_first_run_sends_all_second_none_and_one_change_sends_one_row(heap: ServerProcess, lake: Store) -> None:
    first = kit.send(heap, lake, kit.people(2500))
    assert (first.status, first.added, first.sent, first.requests) == (Status.SUCCEEDED, 2500, 2500, 3)
    assert kit.properties(heap)["u7@x.example"] == {"Plan": "pro", "Seats": 7}

    second = kit.send(heap, lake, kit.people(2500))
    assert (second.requests, second.unchanged, second.status) == (0, 2500, Status.SUCCEEDED)

    rows = kit.people(2500).with_columns(plan=pl.when(pl.col("seats") == 7).then(pl.lit("free")).otherwise("plan"))
    third = kit.send(heap, lake, rows)
    assert (third.changed, third.sent, third.requests) == (1, 1, 1)
    assert kit.properties(heap)["u7@x.example"] == {"Plan": "free", "Seats": 7}
    kit.assert_ledger_is_the_log(lake)


def test_only_mapped_columns_leave(heap: ServerProcess, lake: Store) -> None:
    rows = kit.people(3).with_columns(ssn=pl.lit("078-05-1120"), __secret=pl.lit("x"))
    kit.send(heap, lake, rows, properties={"Plan": "plan"})
    assert kit.properties(heap)["u0@x.example"] == {"Plan": "pro"}
    assert "078-05-1120" not in json.dumps(heap.requests(10, bodies=True))


def test_a_value_that_became_null_is_withdrawn_and_so_are_those_of_a_vanished_key(
    heap: ServerProcess, lake: Store
) -> None:
    kit.send(heap, lake, kit.people(100))
    rows = kit.people(99).with_columns(plan=pl.when(pl.col("seats") == 3).then(None).otherwise("plan"))
    report = kit.send(heap, lake, rows)
    assert (report.withdrawn, report.removed, report.sent) == (2, 1, 2)
    assert kit.properties(heap)["u3@x.example"] == {"Plan": "(none)", "Seats": 3}
    assert kit.properties(heap)["u99@x.example"] == {"Plan": "(none)", "Seats": "(none)"}
    assert kit.send(heap, lake, rows).requests == 0


def test_withdrawn_values_may_be_kept(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(100))
    rows = kit.people(99).with_columns(plan=pl.lit(None, pl.String))
    report = kit.send(heap, lake, rows, on_withdrawn=OnWithdrawn.KEEP)
    assert report.requests == 0


def test_a_value_that_comes_back_is_sent_again(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(100))
    kit.send(heap, lake, kit.people(99))
    kit.send(heap, lake, kit.people(100))
    assert kit.properties(heap)["u99@x.example"] == {"Plan": "pro", "Seats": 99}


def test_nulls_are_left_out_or_sent_by_property(heap: ServerProcess, lake: Store) -> None:
    rows = kit.people(2).with_columns(plan=pl.lit(None, pl.String))
    kit.send(heap, lake, rows)
    assert kit.properties(heap)["u1@x.example"] == {"Seats": 1}
    kit.send(heap, lake, rows, name="loud", properties={"Plan": Property("plan", on_null="send"), "Seats": "seats"})
    assert kit.properties(heap)["u1@x.example"] == {"Plan": "(none)", "Seats": 1}
    again = kit.send(heap, lake, rows, name="loud", properties={"Plan": Property("plan", "send"), "Seats": "seats"})
    assert again.requests == 0


@pytest.mark.parametrize(("only", "sent"), [(False, {"Plan": "free", "Seats": 5}), (True, {"Plan": "free"})])
def test_a_change_sends_the_record_or_only_its_changed_fields(
    heap: ServerProcess, lake: Store, only: bool, sent: dict[str, object]
) -> None:
    kit.send(heap, lake, kit.people(10), changed_fields_only=only)
    rows = kit.people(10).with_columns(plan=pl.when(pl.col("seats") == 5).then(pl.lit("free")).otherwise("plan"))
    kit.send(heap, lake, rows, changed_fields_only=only)
    body = json.loads(heap.requests(1, bodies=True)["last"][0]["body"])
    assert body["users"] == [{"identity": "u5@x.example", "properties": sent}]


def test_an_older_day_never_overwrites_a_newer_one(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(30, plan="new"), day=kit.later(1))
    report = kit.send(heap, lake, kit.people(30, plan="old"))
    assert (report.status, report.requests) == (Status.SUPERSEDED, 0)
    forced = kit.send(heap, lake, kit.people(30, plan="old"), force=True, confirmed=True)
    assert forced.sent == 30
    assert len(forced.forced) == 30
    assert not any("@" in key for key in forced.forced)


def test_a_crashed_newer_day_is_not_overwritten_key_by_key(heap: ServerProcess, lake: Store) -> None:
    """The newer run died before it was recorded; the keys it delivered still stand against an older day."""
    kit.send(heap, lake, kit.people(10, plan="new"), day=kit.later(1))
    for info in lake.list("_sync/users/runs"):
        lake.delete(info.key)
    report = kit.send(heap, lake, kit.people(12, plan="old"))
    assert (report.superseded, report.added) == (10, 2)
    assert kit.properties(heap)["u9@x.example"]["Plan"] == "new"


def test_rows_without_a_value_are_empty_until_something_of_theirs_was_sent(heap: ServerProcess, lake: Store) -> None:
    half = kit.people(4).with_columns(plan=None, seats=pl.when(pl.col("seats") < 1).then("seats"))
    first = kit.send(heap, lake, half)
    assert (first.sent, first.unchanged, first.empty) == (1, 0, 3)
    second = kit.send(heap, lake, half, day=kit.later(1))
    assert (second.sent, second.unchanged, second.empty) == (0, 1, 3)
    kit.send(heap, lake, kit.people(2), day=kit.later(2), confirmed=True)
    nothing = kit.people(4).with_columns(plan=pl.lit(None, pl.String), seats=pl.lit(None, pl.Int64))
    kept = kit.send(heap, lake, nothing, day=kit.later(3), on_withdrawn=OnWithdrawn.KEEP)
    assert (kept.planned, kept.unchanged, kept.empty) == (0, 2, 2)


def test_a_new_mapping_sends_everything_again_and_says_so(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(50))
    report = kit.send(heap, lake, kit.people(50), properties={"Plan": "plan", "Licences": "seats"})
    assert report.sent == 50
    assert report.full_resend_reason is not None
    assert "mapping" in report.full_resend_reason
    assert report.new_properties == ("Licences",)


def test_another_account_is_another_ledger(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(5))
    elsewhere = HeapUserProperties(HeapApp(kit.APP, base_url=heap.base_url.replace("127.0.0.1", "localhost")))
    report = deliver(kit.spec(), elsewhere, kit.people(5).lazy(), lake, kit.DAY, "r")
    assert report.sent == 5


def test_new_property_names_are_listed_before_anything_is_sent(heap: ServerProcess, lake: Store) -> None:
    report, rows = dry_run(kit.spec(), kit.users(heap), kit.people(3).lazy(), lake, kit.DAY)
    assert report.new_properties == ("Plan", "Seats")
    assert rows["op"].to_list() == ["add"] * 3
    assert rows["fields"].to_list() == [["Plan", "Seats"]] * 3
    assert kit.requests(heap) == 0
    assert not lake.list("_sync/users")


def test_two_profiles_on_one_key_are_both_invalid(heap: ServerProcess, lake: Store) -> None:
    rows = pl.concat([kit.people(3), kit.people(1, plan="other")]).with_columns(profile_id=pl.lit("p"))
    report = kit.send(heap, lake, rows)
    assert (report.sent, report.invalid, report.status) == (2, 2, Status.PARTIAL)
    assert "u0@x.example" not in kit.properties(heap)
    assert set_aside(lake, "users")["reason"].to_list() == ["two profiles have this key"] * 2


def test_held_and_invalid_keys_lose_nothing(heap: ServerProcess, lake: Store) -> None:
    """A key that is held now must not be written to: a withdrawal would create a ghost."""
    kit.send(heap, lake, kit.people(40))
    rest = kit.people(38).lazy()
    aside = pl.LazyFrame({"profile_id": ["p"], "key": ["u38@x.example"], "reason": ["not in heap/users"]})
    twice = aside.with_columns(key=pl.lit("u39@x.example"))
    report = deliver(kit.spec(), kit.users(heap), Addressed(rest, aside, twice), lake, kit.DAY, "r")
    assert (report.requests, report.held, report.invalid) == (0, 1, 1)


def test_withdrawals_go_only_to_identities_heap_still_has(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(100))
    nobody = pl.LazyFrame(schema={"profile_id": pl.String, "key": pl.String, "reason": pl.String})
    writable = pl.LazyFrame({"key": ["u98@x.example"]})
    rows = Addressed(kit.people(98).lazy(), nobody, nobody, writable)
    report = deliver(kit.spec(), kit.users(heap), rows, lake, kit.DAY, "r")
    assert report.sent == 1
    assert kit.properties(heap)["u99@x.example"]["Plan"] == "pro"


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (kit.people(90), "lose a value"),
        (kit.people(100).with_columns(plan=pl.lit("enterprise")), "spread"),
    ],
)
def test_the_guard_asks_before_something_unusual(
    heap: ServerProcess, lake: Store, rows: pl.DataFrame, word: str
) -> None:
    kit.send(heap, lake, kit.people(100).with_columns(plan=pl.format("plan {}", "seats")))
    if word == "lose a value":
        rows = rows.with_columns(plan=pl.format("plan {}", "seats"))
    before = kit.requests(heap)
    report = kit.send(heap, lake, rows)
    assert report.status == Status.NEEDS_CONFIRMATION
    assert word in " ".join(report.concerns)
    assert kit.requests(heap) == before
    assert kit.send(heap, lake, rows, confirmed=True).status == Status.SUCCEEDED


def test_the_guard_knows_what_is_usual(heap: ServerProcess, lake: Store) -> None:
    def day(number: int, share: float) -> pl.DataFrame:
        changing = pl.col("seats") < share * 100
        plan = (
            pl.when(changing).then(pl.format("{} of {}", "seats", pl.lit(number))).otherwise(pl.format("{}", "seats"))
        )
        return kit.people(100).with_columns(plan=plan)

    for number in range(4):
        assert kit.send(heap, lake, day(number, 0.1), day=kit.later(number)).status == Status.SUCCEEDED
    for _ in range(9):
        report = kit.send(heap, lake, day(9, 0.6), day=kit.later(4))
        assert report.status == Status.NEEDS_CONFIRMATION, "to have asked often is no answer"
    assert "median" in report.concerns[0]
    relaxed = kit.send(heap, lake, day(9, 0.6), day=kit.later(4), guard=Guard(changed=0.7))
    assert relaxed.status == Status.SUCCEEDED


def test_a_failed_check_of_the_input_blocks_the_run(heap: ServerProcess, lake: Store) -> None:
    report = kit.send(heap, lake, kit.people(3), blocked_by=["one_profile_per_identity failed"])
    assert (report.status, kit.requests(heap)) == (Status.BLOCKED, 0)
    assert "one_profile_per_identity" in str(report.reason)


def test_runs_and_changelog_are_tables_without_personal_values(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(5), run="first")
    kit.send(heap, lake, kit.people(5), run="second")
    table = runs(lake, "users")
    assert table["run_id"].to_list() == ["first", "second"]
    assert table["sent"].to_list() == [5, 0]
    log = changelog(lake, "users")
    assert log["status"].to_list() == ["acknowledged"] * 5
    assert log["fields"].to_list() == [["Plan", "Seats"]] * 5
    assert "@" not in log.write_json()


def test_progress_is_told_while_a_run_goes_on(heap: ServerProcess, lake: Store) -> None:
    seen = []
    kit.send(heap, lake, kit.people(50), batch_rows=10, progress=lambda p: seen.append((p.acknowledged, p.planned)))
    assert [done for done, _ in seen] == [10, 20, 30, 40, 50]
    assert {planned for _, planned in seen} == {50}


@pytest.mark.parametrize(("region", "host"), [("us", "https://heapanalytics.com"), ("eu", "https://c.eu.heap-api.com")])
def test_each_region_has_its_host(region: str, host: str) -> None:
    assert HeapApp(kit.APP, region).url == host  # type: ignore[arg-type]


def test_what_cannot_be_a_heap_app_is_refused() -> None:
    for app in ("", "²", "x"):
        with pytest.raises(SettingsError, match="environment ID"):
            HeapApp(app)
    with pytest.raises(SettingsError, match="us or eu"):
        HeapApp("11", "ap")  # type: ignore[arg-type]


def test_a_mapping_to_a_missing_column_names_it(heap: ServerProcess, lake: Store) -> None:
    with pytest.raises(SettingsError, match="'tier'"):
        kit.send(heap, lake, kit.people(1), properties={"Tier": "tier"})
    with pytest.raises(SettingsError, match="clashes"):
        kit.send(heap, lake, kit.people(1), properties={"Id": "plan"})
