"""What is known of a person: golden records, audiences and scores."""

from heap_assets.profiles.audiences import (
    Accounts,
    Facts,
    counts_of,
    events_needed,
    events_of_profiles,
    members,
    with_audience,
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
from heap_assets.profiles.definitions import (
    Audience,
    EventCriterion,
    EventSequence,
    audience_schema,
    event_table,
    in_order,
    parse_audience,
    spelling,
)
from heap_assets.profiles.golden import PROFILE_SCHEMA, SET_ASIDE, golden_records
from heap_assets.profiles.membership import ENTERED, LEFT, MEMBERSHIP_SCHEMA, STAYED, current_members, membership
from heap_assets.profiles.survivorship import Choose, TraitRule
from heap_assets.profiles.trait_rows import TraitSource

__all__ = [
    "ENTERED",
    "LEFT",
    "MEMBERSHIP_SCHEMA",
    "PROFILE_SCHEMA",
    "SET_ASIDE",
    "STAYED",
    "Accounts",
    "Audience",
    "Choose",
    "Condition",
    "EventCriterion",
    "EventSequence",
    "Facts",
    "Stage",
    "TraitRule",
    "TraitSource",
    "activity",
    "audience_schema",
    "behavioural_traits",
    "counts_of",
    "current_members",
    "engagement",
    "event_stream",
    "event_table",
    "events_needed",
    "events_of_profiles",
    "golden_records",
    "holds",
    "in_order",
    "lifecycle",
    "members",
    "membership",
    "parse_audience",
    "parse_conditions",
    "spelling",
    "transitions",
    "with_audience",
    "with_audiences",
    "with_behaviour",
]
