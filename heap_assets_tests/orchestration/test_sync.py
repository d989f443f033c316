"""Syncs as Dagster runs them: one day, a range, dry, blocked, and what is kept of each."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from heap_assets.activation import hashed_key, salt
from heap_assets.demo.server_process import ServerProcess
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines import delivery
from heap_assets.quality import result_store
from heap_assets_tests.pipelines.delivery_fixtures import (
    Worlds,
    at_three_in_the_morning,
    base,
    heap,
    heap_process,
    segment,
    segment_process,
    worlds,
)
from heap_assets_tests.pipelines.delivery_world import (
    BEFORE,
    DAY,
    WRITE_KEY,
    World,
    calls,
    contacts,
    properties,
    users,
    why,
)

__all__ = ["at_three_in_the_morning", "base", "heap", "heap_process", "segment", "segment_process", "worlds"]

USERS = "heap_user_properties: {properties: {Plan: plan}}"
ASSET = "sync/heap_user_properties"
EVENTS = "heap_events: {source: orders, event_name: Ordered, since: beginning, properties: {Total: total}}"


def kept(world: World, asset: str = ASSET) -> dict[str, dict[str, object]]:
    """What the UI shows of each materialized partition."""
    found = world.instance.fetch_materializations(asset_key(asset), limit=50).records
    return {
        str(record.partition_key): {name: value.value for name, value in record.asset_materialization.metadata.items()}
        for record in reversed(found)
        if record.asset_materialization is not None
    }


def rows_of(world: World, name: str, asset: str = ASSET) -> list[dict[str, object]]:
    """A table among the metadata of the newest materialization."""
    [record] = world.instance.fetch_materializations(asset_key(asset), limit=1).records
    assert record.asset_materialization is not None
    table = record.asset_materialization.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(row.data) for row in table.records]


def checked(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {(e.partition, e.check_name): e.passed for e in result.get_asset_check_evaluations() if e.partition}


def failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    return why(result)


def test_a_day_is_sent_judged_and_told(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    result = world.run([ASSET], DAY)
    assert result.success, why(result)
    told = kept(world)[str(DAY)]
    assert (told["status"], told["sent"], told["held"], told["requests"]) == ("succeeded", 3, 1, 1)
    assert told["new_properties"] == "Plan"
    passed = checked(result)
    names = {"delivered", "few_rejected", "few_invalid", "nothing_unanswered", "no_ghost_users", "one_row_per_key"}
    assert passed == {(str(DAY), name): True for name in names}
    stored = result_store.read(world.lake.store, ASSET, "delivered", str(DAY))
    assert stored is not None
    assert stored.passed


def test_a_range_sends_the_newest_day_and_supersedes_the_others(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.write("warehouse/contacts", BEFORE, contacts("old"))
    world.resolve(BEFORE)
    result = world.run([ASSET], BEFORE, DAY)
    assert result.success, why(result)
    assert {day: told["status"] for day, told in kept(world).items()} == {
        str(BEFORE): "superseded",
        str(DAY): "succeeded",
    }
    assert properties(heap)["ann@x.example"] == {"Plan": "pro"}
    assert checked(result)[str(BEFORE), "delivered"]
    again = world.run([ASSET], BEFORE)
    assert again.success
    assert kept(world)[str(BEFORE)]["status"] == "superseded"
    assert properties(heap)["ann@x.example"] == {"Plan": "pro"}


def test_events_send_each_day_of_a_range(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(EVENTS)
    world.write("warehouse/orders", BEFORE, world.lake.scan("warehouse/orders", str(DAY)).head(1).collect())
    result = world.run(["sync/heap_events"], BEFORE, DAY)
    assert result.success, why(result)
    assert {day: told["sent"] for day, told in kept(world, "sync/heap_events").items()} == {
        str(BEFORE): 1,
        str(DAY): 1,
    }


def test_a_day_whose_checks_failed_keeps_no_other_day_of_a_range_back(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(EVENTS)
    world.write("warehouse/orders", BEFORE, world.lake.scan("warehouse/orders", str(DAY)).head(1).collect())
    world.judge("warehouse/orders", BEFORE, passed=False, only="unique_keys")
    result = world.run(["sync/heap_events"], BEFORE, DAY)
    assert f"{BEFORE}: blocked" in failure(result)
    assert set(kept(world, "sync/heap_events")) == {str(DAY)}
    assert not checked(result)[str(BEFORE), "delivered"]
    assert checked(result)[str(DAY), "delivered"]


def test_a_sync_launched_alone_after_a_failed_check_sends_nothing(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.judge("warehouse/contacts", DAY, passed=False, only="not_shrunk")
    result = world.run([ASSET], DAY)
    assert "blocked" in failure(result)
    assert "not_shrunk failed" in failure(result)
    assert calls(heap) == 0
    assert kept(world) == {}
    assert checked(result) == {(str(DAY), "delivered"): False}


def test_a_verdict_on_another_version_sends_nothing(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.lake.write("profiles", str(DAY), world.lake.scan("profiles", str(DAY)).collect())
    assert "judged another version" in failure(world.run([ASSET], DAY))
    assert calls(heap) == 0


def test_a_range_of_events_sends_the_days_that_are_built_and_names_the_others(
    worlds: Worlds, heap: ServerProcess
) -> None:
    world = worlds(EVENTS)
    running = DAY + timedelta(days=1)
    result = world.run(["sync/heap_events"], DAY, running)
    assert result.success, why(result)
    assert set(kept(world, "sync/heap_events")) == {str(DAY)}
    assert checked(result)[str(DAY), "delivered"]
    [seen] = world.instance.fetch_observations(asset_key("sync/heap_events"), limit=5).records
    assert seen.partition_key == str(running)
    alone = world.run(["sync/heap_events"], running)
    assert f"warehouse/orders {running} has not been built" in failure(alone), "asked for, and nothing could be sent"


def test_a_dry_run_materializes_nothing_and_shows_hashed_keys(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    result = world.run([ASSET], DAY, config={"dry_run": True})
    assert result.success, why(result)
    assert calls(heap) == 0
    assert kept(world) == {}
    [seen] = world.instance.fetch_observations(asset_key(ASSET), limit=5).records
    assert seen.asset_observation is not None
    metadata = seen.asset_observation.metadata
    assert metadata["planned"].value == 3
    assert len(metadata["sample"].records) == 3  # type: ignore[union-attr]
    requests = [str(record.data["request"]) for record in metadata["first_requests"].records]  # type: ignore[union-attr]
    assert [request.partition("/api")[2].split(" ")[0] for request in requests] == ["/add_user_properties"] * 3
    assert all('"Plan": "' in request for request in requests)
    assert "ann@x.example" not in repr(metadata)
    assert '"pro"' not in repr(requests)


def test_what_became_of_a_key_is_told_on_the_page_of_the_sync(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    assert world.run([ASSET], DAY).success
    shown = hashed_key("ann@x.example", salt(world.lake.store))
    result = world.run([ASSET], DAY, config={"why": shown})
    assert result.success, why(result)
    assert calls(heap) == 1
    [told] = world.instance.fetch_observations(asset_key(ASSET), limit=5).records
    assert told.asset_observation is not None
    table = told.asset_observation.metadata["why"].records  # type: ignore[union-attr]
    facts = {record.data["what"]: str(record.data["is"]) for record in table}
    assert facts["last answer"] == "acknowledged, HTTP 200"
    assert f"Plan {facts['acknowledged Plan']} at" in facts["last request"]
    assert "ann@x.example" not in repr(result.all_events)
    assert "has a key with the hash 'none'" in failure(world.run([ASSET], DAY, config={"why": "none"}))


def test_the_guard_asks_and_confirm_answers(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    more = contacts().select(pl.all().repeat_by(10)).explode(pl.all())
    many = more.with_columns(
        contact_id=pl.concat_str("contact_id", pl.int_range(pl.len()).cast(pl.String)),
        email=pl.concat_str(pl.lit("p"), pl.int_range(pl.len()).cast(pl.String), pl.lit("@x.example")),
        visitor=pl.lit(None, pl.String),
    )
    everybody = [(100 + n, f"p{n}@x.example") for n in range(len(many))]
    for day, frame in ((BEFORE, many), (DAY, many.with_columns(plan=pl.lit(None, pl.String)))):
        world.write("heap/users", day, users(*everybody))
        world.write("warehouse/contacts", day, frame)
        world.resolve(day)
    assert world.run([ASSET], BEFORE).success
    assert "needs_confirmation" in failure(world.run([ASSET], DAY))
    assert world.run([ASSET], DAY, config={"confirm": True}).success
    assert properties(heap)["p1@x.example"] == {"Plan": "(none)"}


def test_rejected_rows_fail_the_check_and_are_tried_again_on_request(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_user_properties: {properties: {Plan: plan}, max_rejected: 0.2}")
    heap.fail({"kind": "refuse_rows", "match": "^bob", "status": 400})
    result = world.run([ASSET], DAY)
    assert result.success, why(result)
    told = kept(world)[str(DAY)]
    assert (told["status"], told["sent"], told["rejected"]) == ("partial", 2, 1)
    assert not checked(result)[str(DAY), "few_rejected"]
    assert {"what": "profiles looked at", "rows": 4} in rows_of(world, "addressing")
    heap.fail()
    assert "expected a time such as" in failure(world.run([ASSET], DAY, config={"rejected_since": "yesterday"}))
    assert world.run([ASSET], DAY, config={"retry_rejected": True}).success
    assert properties(heap)["bob@x.example"] == {"Plan": "pro"}


def test_rows_rejected_before_a_time_are_left_alone(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    heap.fail({"kind": "refuse_rows", "match": "^bob", "status": 400})
    for _ in range(3):
        world.run([ASSET], DAY)
    heap.fail()
    assert world.run([ASSET], DAY, config={"rejected_since": "2100-01-01"}).success
    assert kept(world)[str(DAY)]["waiting"] == 1, "it failed unchanged three times: not tried in every run"
    assert world.run([ASSET], DAY, config={"rejected_since": "2020-01-01T00:00:00Z"}).success
    assert properties(heap)["bob@x.example"] == {"Plan": "pro"}


def test_no_secret_and_no_person_is_in_what_dagster_keeps(
    worlds: Worlds, heap: ServerProcess, segment: ServerProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    world = worlds(
        f"{USERS}\n{EVENTS}\n"
        f"segment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, since: beginning, columns: ['*']}}\n"
        "webhook: {url: 'http://user:pa55word@127.0.0.1:9/hook', secret: s3cret, headers: {X-Key: k3y-v}, "
        "properties: {plan: plan}}"
    )
    heap.fail({"kind": "refuse_rows", "match": "^bob", "status": 400})
    for name in world.project.settings.sync:
        world.run([f"sync/{name}"], DAY, config={"dry_run": True})
        world.run([f"sync/{name}"], DAY)
    heap.fail()
    said = [repr(entry) for run in world.instance.get_runs() for entry in world.instance.all_logs(run.run_id)]
    stored = [world.lake.store.read(info.key).decode() for info in world.lake.store.list("_verdicts/sync")]
    out, err = capfd.readouterr()
    everything = "\n".join([*said, *stored, out, err])
    assert "sync/webhook" in everything
    for secret in (WRITE_KEY, "pa55word", "s3cret", "k3y-v", "@x.example"):
        assert secret not in everything


def test_progress_is_told_while_rows_are_sent(
    worlds: Worlds, heap: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heap_assets.orchestration.assets.sync._SECONDS_BETWEEN_LINES", 0.0)
    world = worlds(USERS)
    result = world.run([ASSET], DAY)
    said = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert any("3 of 3 rows acknowledged, 0 rejected, 1 requests" in line for line in said)
    assert any("sync/heap_user_properties 2026-11-20: succeeded, 3 sent" in line for line in said)


def test_two_runs_at_once_are_one_that_sends_and_one_that_names_it(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    heap.fail({"kind": "slow", "seconds": 4})
    first = threading.Thread(target=delivery.send, args=(world.project, "heap_user_properties", DAY, "the-first"))
    first.start()
    while calls(heap) == 0 and first.is_alive():
        time.sleep(0.05)
    told = failure(world.run([ASSET], DAY))
    first.join(30)
    assert "LeaseHeldError" in told
    assert "the-first" in told
    assert result_store.read(world.lake.store, ASSET, "delivered", str(DAY)) is None, "the other one will tell"
    assert properties(heap)["ann@x.example"] == {"Plan": "pro"}


def test_a_full_resend_is_for_upserts_only(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(f"{USERS}\n{EVENTS}")
    world.run([ASSET, "sync/heap_events"], DAY)
    again = world.run([ASSET], DAY, config={"full_resend": True})
    assert again.success, why(again)
    assert kept(world)[str(DAY)]["sent"] == 3
    assert "each once" in failure(world.run(["sync/heap_events"], DAY, config={"full_resend": True}))
    stored = result_store.read(world.lake.store, "sync/heap_events", "delivered", str(DAY))
    assert stored is not None
    assert stored.passed, "a wrong choice says nothing of the day"


def test_jobs_and_lineage_describe_what_is_sent(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(
        f"{USERS}\nsegment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, properties: {{Plan: plan}}}}"
    )
    definitions = build_definitions(world.project)
    jobs = {job.name: job for job in definitions.resolve_all_job_defs()}
    assert "Sends nothing" in str(jobs["dry_run_of_all_syncs"].description)
    dry = jobs["dry_run_of_all_syncs"].execute_in_process(
        instance=world.instance, partition_key=str(DAY), raise_on_error=False
    )
    assert dry.success, why(dry)
    assert {f"retry_rejected_rows{at}" for at in ("", "_at_heap", "_at_segment")} | {"full_resend"} <= set(jobs)
    resent = {key.to_user_string() for key in jobs["full_resend"].asset_layer.executable_asset_keys}
    assert resent == {ASSET}, "events are sent once"
    alone = {key.to_user_string() for key in jobs["retry_rejected_rows_at_segment"].asset_layer.executable_asset_keys}
    assert alone == {"sync/segment_track"}
    graph = definitions.resolve_asset_graph()
    track = graph.get(dg.AssetKey(["sync", "segment_track"]))
    lineage = track.metadata["dagster/column_lineage"]
    assert [dep.asset_key for dep in lineage.deps_by_column["Plan"]] == [asset_key("heap/events/signup")]
    assert asset_key("heap/pageviews") in track.parent_keys


def test_schedules_ask_for_the_newest_day_and_for_days_that_landed_late(
    worlds: Worlds, heap: ServerProcess, segment: ServerProcess
) -> None:
    world = worlds(
        f"{USERS}\nsegment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, since: 2026-11-19, "
        "columns: [plan]}"
    )
    definitions = build_definitions(world.project)
    repository = definitions.get_repository_def()
    asked = {}
    for name in ("send_heap_user_properties", "send_segment_track"):
        [schedule] = [s for s in definitions.schedules or [] if s.name == name]
        assert isinstance(schedule, dg.ScheduleDefinition)
        tick = datetime(2026, 11, 21, 3, tzinfo=UTC)
        ticked = schedule.evaluate_tick(
            dg.build_schedule_context(world.instance, repository_def=repository, scheduled_execution_time=tick)
        )
        asked[name] = [request.partition_key for request in ticked.run_requests or []]
    assert asked == {
        "send_heap_user_properties": [str(DAY)],
        "send_segment_track": [str(BEFORE), str(DAY)],
    }
