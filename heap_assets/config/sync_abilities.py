"""What the settings of several kinds of sync have in common: address, match policy, API version, hashed identifiers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import date, timedelta
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from heap_assets.config.base import Day
from heap_assets.config.heap import HeapSettings
from heap_assets.config.sync import SyncSettings, UpsertSettings

Match = Literal["update_only", "upsert", "create_only"]
"""What happens to keys with and without a record at the destination."""


class VendorSettings(SyncSettings):
    """A sync whose settings alone say which address is called."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that is called, without a slash at its end."""

    def called_url(self, heap: HeapSettings) -> str:
        """Return the URL that is called."""
        del heap
        return self.url


class MatchSettings(UpsertSettings):
    """A sync that says whether it may make records at the destination.

    A kind names what it can do in `matches`, and its default in `default_match`; None: the settings have to say it.
    Where it depends on other settings, it overrides :meth:`possible_matches`.
    """

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert", "create_only")
    default_match: ClassVar[Match | None] = "update_only"

    match: Match | None = Field(
        default=None,
        description="update_only: no new records; upsert: missing ones are made; create_only: existing ones stay",
    )
    unmatched_days: int = Field(
        default=7, ge=0, description="After so many days an unchanged row without a record is tried again"
    )

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that the destination can keep under these settings."""
        return self.matches

    @property
    def match_policy(self) -> Match:
        """The policy of this sync."""
        policy = self.match or self.default_match
        if policy is None:
            raise ValueError("match is checked when settings are loaded")
        return policy

    @property
    def unmatched_for(self) -> timedelta:
        """How long an unchanged row without a record is left alone."""
        return timedelta(days=self.unmatched_days)

    @model_validator(mode="after")
    def _match_is_possible(self) -> MatchSettings:
        policy, possible = self.match or self.default_match, self.possible_matches()
        if policy not in possible:
            mistake = f"{policy} is not possible here" if policy else "there is no default here"
            raise ValueError(f"match: {mistake}; it must be {' or '.join(possible)}")
        return self


class VersionedSettings(SyncSettings):
    """A sync whose destination has versions of its API, each with an end.

    A kind narrows `api_version` to a field with a default, and names the ends that are known in `api_ends`.
    """

    api_ends: ClassVar[Mapping[str, date]] = {}

    api_version: str
    api_version_ends: Day | None = Field(
        default=None,
        description="Last day of that version, as its vendor announced it; ends that are known are built in",
    )

    @property
    def api_end(self) -> date | None:
        """The day on which the version ends, as far as it is known."""
        return self.api_version_ends or self.api_ends.get(self.api_version)


class HashedSettings(SyncSettings):
    """A sync that sends hashed identifiers."""

    hashed: list[str] = Field(
        default=[], description="Properties whose columns hold SHA-256 in hex already; they are passed on as they are"
    )

    @property
    def hashed_properties(self) -> frozenset[str]:
        """Properties whose columns hold hashes."""
        return frozenset(self.hashed)

    @model_validator(mode="after")
    def _hashed_are_mapped(self) -> HashedSettings:
        if unknown := sorted(set(self.hashed) - set(self.properties)):
            raise ValueError(f"hashed: {unknown[0]!r} is no property of this sync")
        return self
