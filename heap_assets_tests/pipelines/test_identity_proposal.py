"""Companies whose Heap identity is the address are told how to map it; others are not."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from heap_assets.pipelines.waiting import identity_proposal
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake

_SETTINGS = """
start_date: 2026-01-01
lake: ./lake
heap:
  app_id: "1"
  source: {kind: folder, path: ./bucket}
  identifiers: {users: {user_id: heap_user_id, identity: %s}}
identity:
  identifiers:
    - {type: heap_identity, max_per_profile: 1}
    - {type: email, max_per_profile: 3, normalise: email}
    - {type: heap_user_id, shared_above: 1}
"""


def _platform(folder: Path, mapped: str) -> Project:
    settings = parse_settings(_SETTINGS % mapped, folder / "heap_assets.yaml")
    return Project(settings, Catalogue({}), Lake.open(settings.lake.url))


@pytest.mark.parametrize(
    ("identities", "mapped", "proposed"),
    [
        (["ann@acme.io", "bob@acme.io", None], "heap_identity", True),
        (["ann@acme.io", "bob@acme.io", None], "[heap_identity, email]", False),
        (["u-1", "u-2", "u-3"], "heap_identity", False),
    ],
)
def test_addresses_as_identities_are_proposed_as_emails(
    tmp_path: Path, identities: list[str | None], mapped: str, proposed: bool
) -> None:
    project = _platform(tmp_path, mapped)
    assert identity_proposal(project) is None, "nothing is built yet"
    project.lake.write("heap/users", "2026-01-01", pl.DataFrame({"identity": identities}))
    proposal = identity_proposal(project)
    assert (proposal is not None) == proposed
    if proposal:
        assert "[heap_identity, email]" in proposal
        assert "@" not in proposal
