"""The `identity:` and `profiles:` sections: what identifies a person, and what is said of one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from heap_assets.config.base import Section
from heap_assets.errors import SettingsError
from heap_assets.identity import EngineName, IdentifierRule, RulesError
from heap_assets.profiles import BEHAVIOUR, PROFILE_SCHEMA, Audience, parse_audience

Choice = Literal["first_present", "newest", "earliest", "max", "min", "sum", "any"]


class IdentifierType(Section):
    """One identifier type. The order of the list is the order of strength."""

    type: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    max_per_profile: int | None = Field(default=None, ge=1)
    shared_above: int | dict[str, int] | Literal["never"] | None = None
    normalise: Literal["none", "strip", "lower", "email", "digits"] | None = None
    pattern: str | None = Field(default=None, description="A value that does not match is no identifier")
    blocked: list[str] = Field(default=[], description="Values that are no identifiers, compared after normalising")
    blocked_patterns: list[str] = []

    @property
    def rule(self) -> IdentifierRule:
        """The rule as identity resolution takes it; RulesError says what it cannot be."""
        return IdentifierRule(
            type=self.type,
            max_per_profile=self.max_per_profile,
            shared_above=self.shared_above,
            normalise=self.normalise,
            pattern=self.pattern,
            blocked=tuple(self.blocked),
            blocked_patterns=tuple(self.blocked_patterns),
        )

    @model_validator(mode="after")
    def _rule_is_possible(self) -> IdentifierType:
        try:
            _ = self.rule
        except RulesError as error:
            raise ValueError(str(error)) from error
        return self


class IdentitySettings(Section):
    """Which identifiers make a person, how strong each is, and where merging stops."""

    engine: EngineName = Field(default="native", description="native, or reference: the same rows, slowly and plainly")
    order: Literal["priority", "first_seen"] = "priority"
    identifiers: list[IdentifierType] = Field(min_length=1, description="Strongest first")
    suppressed: str | None = Field(default=None, description="CSV file (identifier_type, identifier) of erased people")
    carry_max_days: int = Field(default=7, ge=0, description="How long a missing optional input is carried forward")

    @field_validator("identifiers")
    @classmethod
    def _types_differ(cls, value: list[IdentifierType]) -> list[IdentifierType]:
        types = [rule.type for rule in value]
        if doubled := {t for t in types if types.count(t) > 1}:
            raise ValueError(f"each type once; {', '.join(sorted(doubled))} stands twice")
        return value

    @property
    def types(self) -> list[str]:
        """Identifier types, strongest first."""
        return [rule.type for rule in self.identifiers]


class Trait(Section):
    """One attribute of the golden record."""

    sources: list[str] = Field(alias="from", min_length=1, description="table.column, in order of trust")
    choose: Choice = "first_present"
    description: str | None = None
    personal: bool = Field(default=False, description="Personal data: masked in previews and marked in the catalogue")

    @field_validator("sources")
    @classmethod
    def _are_columns(cls, value: list[str]) -> list[str]:
        for source in value:
            if "." not in source:
                raise ValueError(f"table.column, not {source!r}")
        return value


class Behaviour(Section):
    """What people did lately in Heap, as columns of their profile."""

    days: int = Field(default=30, ge=1, le=366, description="Length of the window that ends with the partition's day")
    features: dict[str, str] = Field(
        default={}, description="Name of a true/false column to the event that proves that a feature is used"
    )


class ProfilesSettings(Section):
    """What is known of a person, and which sets of people have a name."""

    traits: dict[str, Trait] = {}
    behaviour: Behaviour | None = None
    audiences: dict[str, dict[str, object]] = Field(
        default={}, description="Name of a true/false column to its definition (docs/profiles.md)"
    )

    @property
    def columns(self) -> list[str]:
        """Columns of `profiles` that these settings make, in order."""
        behaviour = [*BEHAVIOUR, *self.behaviour.features] if self.behaviour else []
        return [*self.traits, *behaviour, *self.audiences]

    @property
    def parsed_audiences(self) -> list[Audience]:
        """The definitions, understood; SettingsError names the path of a mistake."""
        return [parse_audience(name, text, f"profiles.audiences.{name}") for name, text in self.audiences.items()]

    @model_validator(mode="after")
    def _columns_differ(self) -> ProfilesSettings:
        taken = {*PROFILE_SCHEMA, *(f"{trait}__source" for trait in self.traits)}
        for name in self.columns:
            if name in taken:
                raise ValueError(
                    f"profiles has a column {name!r} already: call this trait, feature or audience otherwise"
                )
            taken.add(name)
        return self

    @model_validator(mode="after")
    def _audiences_are_understood(self) -> ProfilesSettings:
        try:
            audiences = self.parsed_audiences
        except SettingsError as error:
            raise ValueError(str(error)) from error
        known = {*PROFILE_SCHEMA, *self.columns} - {*self.audiences}
        for audience in audiences:
            for column, condition in audience.user_properties:
                if column not in known:
                    raise ValueError(
                        f"{condition.where}: there is no trait {column!r}. Traits: {', '.join(sorted(known))}"
                    )
        return self
