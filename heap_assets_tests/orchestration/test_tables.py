"""Heap and warehouse tables as assets: single partitions and ranges, results per partition, nothing written twice."""

from __future__ import annotations

from heap_assets_tests.orchestration.company_platform import World


def test_landing_a_dump_reports_the_days_it_touched(world: World) -> None:
    landed = world.materialized("heap_connect/landed")
    assert {str(day) for day in world.company.days} <= landed
    assert world.materialized("heap_connect/dumps") == {str(dump) for dump in world.company.dump_ids.values()}


def test_event_tables_are_built_for_one_day(world: World) -> None:
    day = str(world.company.days[3])
    result = world.run(world.event_assets, day)
    assert result.success
    for asset in world.event_assets:
        assert day in world.materialized(asset)
        assert world.checked(result, asset, "unique_keys") == {day: True}


def test_event_tables_are_built_for_a_range_with_a_result_per_day(world: World) -> None:
    days = [str(day) for day in world.company.days[-4:]]
    result = world.run(world.event_assets, days[0], days[-1])
    assert result.success
    rows = 0
    for asset in world.event_assets:
        assert set(days) <= world.materialized(asset)
        assert world.checked(result, asset, "readable") == dict.fromkeys(days, True)
        assert world.checked(result, asset, "unique_keys") == dict.fromkeys(days, True)
        rows += sum(found.rows for day in days if (found := world.project.lake.find(asset, day)))
    assert rows > 0


def test_a_day_whose_inputs_did_not_change_is_not_written(world: World) -> None:
    day = str(world.company.days[4])
    world.run(["heap/pageviews"], day)
    before = world.project.lake.versions("heap/pageviews")[day]
    result = world.run(["heap/pageviews"], day)
    [event] = result.asset_materializations_for_node("heap_event_tables")
    assert event.metadata["status"].value == "unchanged"
    assert world.project.lake.versions("heap/pageviews")[day] == before


def test_users_and_migrations_for_one_day_and_for_a_range(world: World) -> None:
    assets = ["heap/users", "heap/user_migrations"]
    newest = str(world.company.until)
    assert world.run(assets, newest).success
    days = [str(day) for day in world.company.days[-3:]]
    result = world.run(assets, days[0], days[-1])
    assert result.success
    assert world.checked(result, "heap/users", "unique_keys") == dict.fromkeys(days, True)
    counts = [found.rows for day in days if (found := world.project.lake.find("heap/users", day))]
    assert counts == sorted(counts)


def test_the_warehouse_is_read_for_the_newest_day_and_has_no_past(world: World) -> None:
    newest, older = str(world.company.until), str(world.company.days[-3])
    result = world.run(["warehouse/crm_contacts"], newest)
    assert result.success
    assert world.checked(result, "warehouse/crm_contacts", "unique_keys") == {newest: True}

    past = world.run(["warehouse/crm_contacts"], older)

    assert past.success
    assert older not in world.materialized("warehouse/crm_contacts")
    assert world.checked(past, "warehouse/crm_contacts", "readable") == {older: False}


def test_jobs_build_days_again_without_sending(world: World) -> None:
    day = str(world.company.days[2])
    job = world.definitions.resolve_job_def("rebuild_heap_days")
    result = job.execute_in_process(instance=world.instance, partition_key=day)
    assert result.success
    assert {day} <= world.materialized("heap/pageviews")
    assert world.checked(result, "heap/pageviews", "newest_row_is_recent") == {}
    graph = world.definitions.resolve_asset_graph()
    wanted = {"rebuild_identities": {"identity", "profiles"}, "read_the_warehouse_again": {"warehouse"}}
    for name, groups in wanted.items():
        keys = world.definitions.resolve_job_def(name).asset_layer.executable_asset_keys
        assert {graph.get(key).group_name for key in keys} == groups
