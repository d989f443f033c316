"""What is known of a person: golden records, audiences and scores."""

from heap_assets.profiles.audiences import (
    Audience,
    audience_schema,
    event_table,
    events_needed,
    events_of_profiles,
    members,
    parse_audience,
    with_audiences,
)
from heap_assets.profiles.behaviour import (
    Stage,
    activity,
    behavioural_traits,
    engagement,
    event_stream,
    lifecycle,
    transitions,
    with_behaviour,
)
from heap_assets.profiles.conditions import Condition, holds, parse_conditions
from heap_assets.profiles.golden import PROFILE_SCHEMA, SET_ASIDE, golden_records
from heap_assets.profiles.survivorship import Choose, TraitRule
from heap_assets.profiles.trait_rows import TraitSource

__all__ = [
    "PROFILE_SCHEMA",
    "SET_ASIDE",
    "Audience",
    "Choose",
    "Condition",
    "Stage",
    "TraitRule",
    "TraitSource",
    "activity",
    "audience_schema",
    "behavioural_traits",
    "engagement",
    "event_stream",
    "event_table",
    "events_needed",
    "events_of_profiles",
    "golden_records",
    "holds",
    "lifecycle",
    "members",
    "parse_audience",
    "parse_conditions",
    "transitions",
    "with_audiences",
    "with_behaviour",
]
