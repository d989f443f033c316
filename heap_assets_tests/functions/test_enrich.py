"""Columns of profiles that a function makes: in audiences and syncs, checked, and part of the version."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.cli.functions import function
from heap_assets.errors import SettingsError
from heap_assets.pipelines.functions import OpenPools, check_functions, with_enriched
from heap_assets.pipelines.people import profiles_of_day, profiles_version
from heap_assets.pipelines.suites import profile_checks
from heap_assets.quality import CheckContext
from heap_assets_tests.pipelines.delivery_world import DAY, NOW, World, make_base

ENRICH = """
functions:
  enrich:
    fit: {file: fit.js, columns: {fit: number, segment: text, seen: time}}
    tier: {file: tier.js, columns: {tier: text}}
"""
FIT = """
export default function enrich(profile, context) {
  if (profile.heap_identity === "cat@x.example") throw new Error("no " + profile.heap_identity);
  if (profile.heap_identity === null) return null;
  return { fit: profile.account === "acme" ? 0.5 : "high", segment: context.day, seen: profile.first_seen, other: 1 };
}
"""
TIER = 'export default (profile) => ({ tier: profile.fit > 0.4 ? "gold" : "none" });'
SYNC = "heap_user_properties: {properties: {Tier: tier, Fit: fit}}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def world(base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(clock.VARIABLE, NOW)
    made = base.copy(tmp_path / "world", "{}", "http://127.0.0.1:9")
    (made.folder / "functions").mkdir()
    (made.folder / "functions" / "fit.js").write_text(FIT)
    (made.folder / "functions" / "tier.js").write_text(TIER)
    made.more = ENRICH
    return made.choose(SYNC)


def rows_of(world: World) -> dict[str, dict[str, object]]:
    columns = ["heap_identity", "fit", "segment", "seen", "first_seen", "tier"]
    rows = world.lake.scan("profiles", str(DAY)).select(columns).filter(pl.col("heap_identity").is_not_null())
    return {str(row["heap_identity"]): row for row in rows.collect().to_dicts()}


def test_profiles_have_the_columns_and_failures_are_counted(world: World) -> None:
    world.resolve(DAY)
    rows = rows_of(world)
    ann, cat = rows["ann@x.example"], rows["cat@x.example"]
    assert (ann["fit"], ann["segment"], ann["tier"]) == (0.5, str(DAY), "gold")
    assert ann["seen"] == ann["first_seen"]
    assert (cat["fit"], cat["segment"], cat["tier"]) == (None, None, "none"), "later functions see what others made"
    rejected, declared = [c for c in profile_checks(world.project) if c.name.startswith("function_")]
    assert rejected.evaluate is not None
    assert declared.evaluate is not None
    result = rejected.evaluate(CheckContext(world.lake, "profiles", str(DAY), rejected.name))
    assert not result.passed
    assert result.numbers["rejected"] == 1
    assert result.offenders is not None
    assert "fit.js:3" in str(result.offenders.to_dicts())
    assert "cat@" not in str(result)
    unexpected = declared.evaluate(CheckContext(world.lake, "profiles", str(DAY), declared.name))
    assert unexpected.numbers == {"undeclared_columns": 1}


def test_audiences_and_syncs_use_them(world: World) -> None:
    world.profiles = "  audiences:\n    golden: {user_properties: {tier: gold}}\n"
    world.choose(SYNC).resolve(DAY)
    rows = world.lake.scan("profiles", str(DAY)).filter("golden").collect()
    assert set(rows["tier"]) == {"gold"}


def test_an_edited_function_is_another_version(world: World) -> None:
    before = profiles_version(world.project)
    world.choose(SYNC)
    assert profiles_version(world.project) == before
    (world.folder / "functions" / "tier.js").write_text(TIER.replace("0.4", "0.6"))
    world.choose(SYNC)
    assert profiles_version(world.project) != before
    assert profiles_of_day(world.project, DAY).frame.collect()["tier"].to_list().count("gold") == 0


@pytest.mark.parametrize(
    ("of", "by", "message"),
    [
        ("{tier: text}", "{plan: text}", r"functions\.enrich\.tier\.columns\.plan: profiles has a column"),
        ("{tier: text}", "{fit: text}", r"functions\.enrich\.tier\.columns\.fit: profiles has a column"),
        ("{tier: text}", "{}", r"functions\.enrich\.tier\.columns"),
        ("tier.js", "missing.js", r"there is no file missing\.js"),
    ],
)
def test_mistakes_are_told(world: World, of: str, by: str, message: str) -> None:
    world.more = ENRICH.replace(of, by)
    with pytest.raises(SettingsError, match=message):
        check_functions(world.choose("{}").project)


def test_processes_stay_between_calls_until_the_code_is_another(world: World) -> None:
    project, pools = world.project, OpenPools()
    profiles, tier = world.lake.scan("profiles", str(DAY)), project.settings.functions.enrich["tier"]

    def tiers() -> tuple[list[str | None], list[int]]:
        rows, _ = with_enriched(project, profiles, DAY, pools)
        return rows.collect()["tier"].to_list(), pools.pool(project, tier, DAY, "tier").pids

    first = tiers()
    assert first[1]
    assert tiers() == first
    (world.folder / "functions" / "tier.js").write_text(TIER.replace("gold", "highest"))
    edited, processes = tiers()
    assert edited == [str(one).replace("gold", "highest") for one in first[0]]
    assert not set(processes) & set(first[1])
    pools.close()
    assert pools.pool(project, tier, DAY, "tier").pids == []


def test_a_function_of_profiles_is_tried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.resolve(DAY)
    monkeypatch.chdir(world.folder)
    tried = CliRunner().invoke(function, ["test", "fit.js", "--table", "profiles", "--day", str(DAY), "--json"])
    assert tried.exception is None or isinstance(tried.exception, SystemExit), tried.exception
    assert tried.exit_code == 1, tried.output
    trials = {one["before"]["heap_identity"]: one for one in json.loads(tried.output)}
    assert not {"fit", "segment", "seen", "tier"} & trials["ann@x.example"]["before"].keys()
    assert trials["ann@x.example"]["after"][0]["fit"] == 0.5
    assert trials["cat@x.example"]["state"] == "rejected"
    assert "cat@x.example" not in trials["cat@x.example"]["reason"]
    of_tier = CliRunner().invoke(function, ["test", "tier.js", "--table", "profiles", "--day", str(DAY), "--json"])
    shown = {one["before"]["heap_identity"]: one for one in json.loads(of_tier.output)}["ann@x.example"]
    assert "tier" not in shown["before"]
    assert "fit" in shown["before"], "what an earlier function made of it"
    assert shown["after"][0]["tier"] in ("gold", "none")
