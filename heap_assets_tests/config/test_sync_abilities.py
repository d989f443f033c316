"""Match policy, API version and hashed identifiers: what the destination cannot keep is refused by its key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from heap_assets.config import HashedSettings, Match, MatchSettings, VersionedSettings
from heap_assets.quality import api_version_lives, nothing_lost


class Crm(MatchSettings, VersionedSettings, HashedSettings):
    kind: Literal["crm"] = "crm"
    source: Literal["profiles"] = "profiles"
    api_version: str = "v3"
    api_ends: ClassVar[Mapping[str, date]] = {"v2": date(2027, 1, 15)}
    by: Literal["id", "email"] = "id"

    def possible_matches(self) -> tuple[Match, ...]:
        return ("upsert",) if self.by == "email" else self.matches


class Chooses(MatchSettings):
    kind: Literal["chooses"] = "chooses"
    source: Literal["profiles"] = "profiles"
    default_match: ClassVar[Match | None] = None
    matches: ClassVar[tuple[Match, ...]] = ("upsert", "create_only")


def refusal(model: Any, **settings: Any) -> str:
    with pytest.raises(ValidationError) as error:
        model(**settings)
    return str(error.value)


def test_no_new_records_unless_the_settings_say_so() -> None:
    assert Crm().match_policy == "update_only"
    assert Crm(match="upsert").match_policy == "upsert"
    assert Crm(unmatched_days=3).unmatched_for == timedelta(days=3)


def test_a_policy_that_the_destination_cannot_keep_is_refused() -> None:
    assert "match: update_only is not possible here; it must be upsert" in refusal(Crm, by="email")
    assert Crm(by="email", match="upsert").match_policy == "upsert"
    assert "match: there is no default here; it must be upsert or create_only" in refusal(Chooses)


def test_hashed_names_a_property_of_the_sync() -> None:
    assert Crm(properties={"EMAIL": "email"}, hashed=["EMAIL"]).hashed_properties == {"EMAIL"}
    assert "hashed: 'PHONE' is no property of this sync" in refusal(Crm, hashed=["PHONE"])


def test_an_api_version_warns_sixty_days_before_its_end() -> None:
    assert Crm().api_end is None
    ends = Crm(api_version="v2").api_end
    assert ends is not None
    assert api_version_lives(ends, date(2026, 11, 16)).passed
    assert Crm(api_version_ends=date(2027, 3, 1)).api_end == date(2027, 3, 1)
    late = api_version_lives(ends, date(2026, 11, 17))
    assert (late.passed, late.numbers["days_left"]) == (False, 59)


def test_rows_that_could_count_twice_are_named() -> None:
    assert nothing_lost(0).passed
    assert not nothing_lost(1).passed
