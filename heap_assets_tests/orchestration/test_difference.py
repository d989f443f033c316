"""What other settings would change is what they do change, and asking changes nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.difference import Count, Difference, difference
from heap_assets.pipelines.people import audiences_of_day
from heap_assets.project import Project, parse_settings
from heap_assets.storage import Lake
from heap_assets.tables import AUDIENCES, GRAPH, PROFILES
from heap_assets_tests.orchestration.company_platform import IDENTITY, ROOT, World, why

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def other(resolved: World) -> Callable[[Change], Project]:
    def changed(change: Change) -> Project:
        text = (ROOT / "heap_assets.yaml").read_text()
        settings = yaml.safe_load(text.replace("${HEAP_ASSETS_DEMO:-./data/demo}", str(resolved.company.folder)))
        settings["lake"] = resolved.project.settings.lake.url
        change(settings)
        parsed = parse_settings(yaml.safe_dump(settings, sort_keys=False), Path("other.yaml"))
        return Project(parsed, resolved.project.catalogue, Lake.open(parsed.lake.url))

    return changed


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def asked(resolved: World, project: Project) -> Difference:
    lake = Path(resolved.project.lake.store.url)
    before = files(lake)
    compared = difference(resolved.project, project)
    assert files(lake) == before, "asking writes nothing"
    return compared


def test_the_same_settings_change_nothing(resolved: World, other: Callable[[Change], Project]) -> None:
    described = other(lambda settings: settings["warehouse"]["tables"]["crm_contacts"].update(description="People"))
    assert asked(resolved, described).is_empty


def test_a_stricter_limit_splits_profiles_as_a_build_with_it_does(
    resolved: World, other: Callable[[Change], Project], tmp_path: Path
) -> None:
    def stricter(settings: dict[str, Any]) -> None:
        settings["identity"]["identifiers"][4]["max_per_profile"] = 1

    compared = asked(resolved, other(stricter))
    assert compared.kinds["split"] > 0
    assert compared.profiles.after > compared.profiles.before
    assert compared.days[GRAPH] == compared.days[PROFILES] == 1
    assert compared.syncs["heap_user_properties"].before > 0

    copy = tmp_path / "lake"
    shutil.copytree(resolved.project.lake.store.url, copy)
    project = other(lambda settings: (stricter(settings), settings.update(lake=str(copy))))
    built = World(resolved.company, project, build_definitions(project))
    result = built.run([*IDENTITY, PROFILES], str(compared.day))
    assert result.success, why(result)
    graph = project.lake.scan(GRAPH, str(compared.day)).collect()
    assert compared.profiles.after == graph["profile_id"].drop_nulls().n_unique()


def test_a_trait_an_audience_and_a_sync_of_the_other_settings(
    resolved: World, other: Callable[[Change], Project]
) -> None:
    def more(settings: dict[str, Any]) -> None:
        settings["profiles"]["traits"]["plan"]["choose"] = "first_present"
        settings["profiles"]["traits"]["stage"] = {"from": ["crm_contacts.stage"]}
        settings["profiles"]["audiences"]["payers"] = {"user_properties": {"plan": {"exists": True}}}
        settings["sync"]["segment_identify"]["properties"] = {"stage": "stage"}

    compared = asked(resolved, other(more))
    assert compared.kinds == {}
    assert compared.profiles.before == compared.profiles.after
    stage, payers = compared.traits["stage"], compared.audiences["payers"]
    profiles = resolved.project.lake.scan(PROFILES, str(compared.day)).collect()
    assert stage.filled == Count(0, profiles["deal_stage"].count())
    assert stage.changed == stage.filled.after
    assert payers.members == Count(0, profiles["plan"].count())
    assert (payers.entered, payers.left) == (payers.members.after, 0)
    sent = compared.syncs["segment_identify"]
    assert sent.before != sent.after


def test_audiences_that_the_other_settings_do_not_have_are_left(
    resolved: World, other: Callable[[Change], Project]
) -> None:
    lake = resolved.project.lake
    lake.write(AUDIENCES, str(resolved.company.until), audiences_of_day(resolved.project, resolved.company.until).frame)
    try:
        compared = asked(resolved, other(lambda settings: settings["profiles"].pop("audiences")))
    finally:
        lake.delete(AUDIENCES, str(resolved.company.until))  # other tests share the lake
    [change] = compared.audiences.values()
    assert change.members.after == change.entered == 0
    assert change.left == change.members.before > 0


def test_rows_that_the_other_settings_leave_out_are_left_out_of_their_days(
    resolved: World, other: Callable[[Change], Project]
) -> None:
    def fewer(settings: dict[str, Any]) -> None:
        settings["heap"]["tables"]["leave_out"] = {"pageviews": {"domain": {"exists": True}}}

    compared = asked(resolved, other(fewer))
    days = resolved.project.lake.partitions("heap/pageviews")
    assert compared.days["heap/pageviews"] == len(days)
    hesitating = compared.audiences.get("hesitating_leads")
    assert hesitating is None or hesitating.entered == 0, "an audience by pageviews can only lose members"


def test_a_table_that_is_mapped_otherwise_is_read_from_its_source(
    resolved: World, other: Callable[[Change], Project]
) -> None:
    def fewer_columns(settings: dict[str, Any]) -> None:
        contacts = settings["warehouse"]["tables"]["crm_contacts"]
        contacts["identifiers"], contacts["columns"] = {"contact_id": "crm_id"}, ["contact_id"]

    compared = asked(resolved, other(fewer_columns))
    assert compared.days["warehouse/crm_contacts"] == 1
    assert compared.profiles.after > compared.profiles.before, "fewer links join fewer"
