"""A pair that we told Heap of comes back in its export, and proves nothing."""

from __future__ import annotations

import polars as pl

from heap_assets.demo.server_process import ServerProcess
from heap_assets.pipelines import delivery
from heap_assets.pipelines.readiness import graph_is_due, identity_inputs
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, contacts, migrations


def test_our_own_pair_is_an_ordinary_link_when_it_comes_back(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_identify: {enabled: true}")
    assert delivery.send(world.project, "heap_identify", DAY, "r1").report.sent == 1
    world.write("heap/user_migrations", DAY, migrations((900, 1), (901, 2)))
    # the CRM was wrong: the visitor is nobody it knows, so nothing but our own guess joins them
    world.write("warehouse/contacts", DAY, contacts().with_columns(visitor=pl.lit(None, pl.String)))
    world.resolve(DAY)
    links = world.lake.scan("identity/links", str(DAY)).collect()
    ours = links.filter(pl.col("source") == "own_identify")
    assert ours.select("value_a", "value_b", "authoritative").rows() == [("1", "900", False)]
    theirs = links.filter(pl.col("source") == "heap/user_migrations")
    assert theirs.select("value_a", "value_b", "authoritative").rows() == [("2", "901", True)]


def test_new_pairs_are_a_new_version_of_the_migrations(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_identify: {enabled: true}")
    before = {given.version for given in identity_inputs(world.project, DAY).inputs}
    delivery.send(world.project, "heap_identify", DAY, "r1")
    after = {given.version for given in identity_inputs(world.project, DAY).inputs}
    assert before != after
    assert graph_is_due(world.project) == DAY
    world.resolve(DAY)
    assert graph_is_due(world.project) is None
