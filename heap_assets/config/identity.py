"""The `identity:` and `profiles:` sections: what identifies a person, and what is said of one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from heap_assets.config.base import Section
from heap_assets.config.spark import SparkEngine
from heap_assets.tables import ACCOUNT_COLUMNS, BEHAVIOUR_COLUMNS, PROFILE_COLUMNS, TOP_PAGES_COLUMN, TREND_COLUMNS

Choice = Literal["first_present", "newest", "earliest", "max", "min", "sum", "any"]


class IdentifierType(Section):
    """One identifier type. The order of the list is the order of strength."""

    type: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the type, which mappings of columns refer to")
    max_per_profile: int | None = Field(
        default=None,
        ge=1,
        description="Merge limit: values of the type that one profile may hold; no limit unless given",
    )
    shared_above: int | dict[str, int] | Literal["never"] | None = Field(
        default=None,
        description="A value that belongs to more people than this is shared and merges nobody; {type: number} counts "
        "by that type only. 1 for heap_user_id and types below email, never for others, unless given",
    )
    normalise: Literal["none", "strip", "lower", "email", "digits"] | None = Field(
        default=None,
        description="How values are spelled before they are compared: email for email, none for heap_identity and "
        "heap_user_id, strip for others, unless given",
    )
    pattern: str | None = Field(default=None, description="A value that does not match is no identifier")
    blocked: list[str] = Field(default=[], description="Values that are no identifiers, compared after normalising")
    blocked_patterns: list[str] = Field(
        default=[], description="Regular expressions; a value that matches one is no identifier"
    )


class IdentitySettings(Section):
    """The identifier types that link rows to people, in order of strength, and the limits of merging."""

    engine: Literal["native", "reference"] | SparkEngine = Field(
        default="native", description="native; reference: the same rows, slowly and plainly; or {spark: …}"
    )
    order: Literal["priority", "first_seen"] = Field(
        default="priority",
        description="Which links are taken first: those of stronger types, or older ones (profiles then never split)",
    )
    identifiers: list[IdentifierType] = Field(min_length=1, description="Strongest first")
    suppressed: str | None = Field(default=None, description="CSV file (identifier_type, identifier) of erased people")
    decisions: str | None = Field(
        default=None,
        description="CSV or YAML file of what people have settled: same, apart, nobody or confirmed (docs/identity.md)",
    )
    decisions_table: str | None = Field(
        default=None,
        description="Table of a source with the same columns, whose rows are decisions too; the file wins over it",
    )
    decisions_hashed: bool = Field(
        default=False,
        description="`heap-assets decide` writes keyed hashes into the file; the values stay in the lake",
    )
    review_by: str | None = Field(
        default=None, description="Trait, such as revenue, that `heap-assets review` ranks by besides rows and syncs"
    )
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
    choose: Choice = Field(default="first_present", description="Which of several values survives")
    description: str | None = Field(default=None, description="Description of the column")
    personal: bool = Field(default=False, description="Personal data: masked in previews and marked in the catalogue")

    @field_validator("sources")
    @classmethod
    def _are_columns(cls, value: list[str]) -> list[str]:
        for source in value:
            if "." not in source:
                raise ValueError(f"table.column, not {source!r}")
        return value


class Behaviour(Section):
    """Columns of profiles computed from recent events."""

    days: int = Field(default=30, ge=1, le=366, description="Length of the window that ends with the partition's day")
    features: dict[str, str] = Field(
        default={}, description="Name of a true/false column to the event that proves that a feature is used"
    )
    messages: list[str] = Field(
        default=[],
        description="Tables of messages that count as activity beside Heap's events, such as inbox/track",
    )
    trends: bool = Field(default=False, description="Also sessions_per_week, trend and features_used")
    top_pages: str | None = Field(
        default=None, description="Property of pageviews, such as path: its most frequent values are the list top_pages"
    )

    @property
    def columns(self) -> list[str]:
        """Columns that these settings make, in order."""
        trends = TREND_COLUMNS if self.trends else ()
        return [*BEHAVIOUR_COLUMNS, *self.features, *trends, *([TOP_PAGES_COLUMN] if self.top_pages else [])]


class Score(Section):
    """A column of profiles: how often events happened lately, each with a weight."""

    weights: dict[str, float] = Field(min_length=1, description="Event to what each one of it counts")
    within_days: int = Field(default=30, ge=1, le=366, description="Length of the window that ends with the day")
    most: int | None = Field(default=None, ge=1, description="Of each event at most so many count; all unless given")
    description: str | None = Field(default=None, description="Description of the column")


class AccountsSettings(Section):
    """The companies that people belong to: conditions of audiences, and profiles of accounts."""

    table: str = Field(description="A table of a source with one row per account")
    key: str = Field(description="Its column with the account's id")
    member_of: str = Field(description="Trait of profiles that holds the id of the account they belong to")
    behaviour: Behaviour | None = Field(default=None, description="As of profiles, of all people of an account")
    scores: dict[str, Score] = Field(default={}, description="As of profiles, of all people of an account")
    audiences: dict[str, dict[str, object]] = Field(
        default={}, description="Name of a true/false column to its definition, over what all people of an account did"
    )

    @property
    def columns(self) -> list[str]:
        """Columns of `accounts/profiles` that these settings make, in order; none if there is no such table."""
        behaviour = self.behaviour
        columns = [*behaviour.columns, *(f"{name}_people" for name in behaviour.features)] if behaviour else []
        return [*columns, *self.scores, *self.audiences]

    @model_validator(mode="after")
    def _columns_differ(self) -> AccountsSettings:
        names = [*ACCOUNT_COLUMNS, *self.columns]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"accounts have a column {name!r} already: call this feature, score or audience otherwise"
                )
        return self


class ProfilesSettings(Section):
    """The traits, behaviour and audiences that profiles have."""

    traits: dict[str, Trait] = Field(
        default={}, description="Name of a column of profiles to where its values come from"
    )
    behaviour: Behaviour | None = Field(default=None, description="Columns of activity; none unless given")
    scores: dict[str, Score] = Field(default={}, description="Name of a column to the events that it counts")
    audiences: dict[str, dict[str, object]] = Field(
        default={}, description="Name of a true/false column to its definition (docs/profiles.md)"
    )
    audience_files: list[str] = Field(
        default=[], description="Files of definitions (JSON or YAML), or folders of them, beside those of audiences"
    )

    @property
    def columns(self) -> list[str]:
        """Columns of `profiles` that these settings make, in order."""
        behaviour = self.behaviour.columns if self.behaviour else []
        return [*self.traits, *behaviour, *self.scores, *self.audiences]

    @model_validator(mode="after")
    def _columns_differ(self) -> ProfilesSettings:
        reserved = {*PROFILE_COLUMNS, *(f"{trait}__source" for trait in self.traits)}
        for name in self.columns:
            if name in reserved:
                raise ValueError(
                    f"profiles has a column {name!r} already: call this trait, feature or audience otherwise"
                )
            reserved.add(name)
        return self
