"""A version depends on what is chosen, and on nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from heap_assets.pipelines.people import profiles_version
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets.versions import version_of
from heap_assets.yaml_core import Unquoted
from heap_assets_tests.config.test_settings import GOOD


@dataclass(frozen=True)
class Rule:
    name: str
    limit: int | None = None


def test_the_digest_is_of_canonical_json() -> None:
    chosen = [Rule("a"), {"b": 1, "a": 2.5}, {"y", "x"}, date(2026, 1, 2), None, True, Unquoted("01")]
    text = '[{"limit":null,"name":"a"},{"a":2.5,"b":1},["x","y"],"2026-01-02",null,true,{"unquoted":"01"}]'
    assert version_of(chosen) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert version_of([Rule("a"), {"a": 2.5, "b": 1}, {"x", "y"}, date(2026, 1, 2), None, True, Unquoted("01")]) == (
        version_of(chosen)
    )


def test_values_that_mean_different_things_differ() -> None:
    values = [1, 1.5, "1", True, None, ["1"], Unquoted("1"), Unquoted("01"), "01", {"1": 1}]
    assert len({version_of(value) for value in values}) == len(values)


def test_what_has_no_declared_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="a object is no part"):
        version_of([object()])


AUDIENCE = "from: [crm_contacts.plan]}\n  audiences: {a: {user_properties: {plan: pro}}}\n"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("from: [crm_contacts.plan]}", "from: [crm_contacts.plan], description: What they pay., personal: true}", True),
        ("from: [crm_contacts.plan]}", "from: [crm_contacts.plan], choose: newest}", False),
        ("from: [crm_contacts.plan]}", AUDIENCE, False),
        ("max_per_profile: 3", "max_per_profile: 4", False),
        ("relation: crm.contacts", "relation: crm.contacts, description: People", True),
    ],
)
def test_only_what_makes_profiles_makes_their_version(tmp_path: Path, old: str, new: str, *, same: bool) -> None:
    versions = [profiles_version(project(tmp_path, text)) for text in (GOOD, GOOD.replace(old, new))]
    assert (versions[0] == versions[1]) is same


def project(folder: Path, text: str) -> Project:
    settings = parse_settings(text, folder / "heap_assets.yaml")
    return Project(settings, Catalogue(), Lake.open(settings.lake.url))
