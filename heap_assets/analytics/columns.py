"""The columns of results, with their meaning."""

from __future__ import annotations

from collections.abc import Mapping

from heap_assets.analytics.query import Query

_OF_SEGMENT = {"segment": "Value of the trait `by`; everyone without one.", "event_type": "The event."}
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "adoption": _OF_SEGMENT
    | {
        "users": "People who did it.",
        "percent_of_segment": "Of the people of the segment.",
        "total_events": "How often it was done.",
        "events_per_user": "How often by each who did it.",
    },
    "funnel": {
        "segment": _OF_SEGMENT["segment"],
        "step": "Number of the step.",
        "event": "Its event.",
        "reached": "Sessions or people that got so far.",
        "percent_of_first": "Of those with the first step.",
        "percent_of_previous": "Of those with the step before; empty if there are none.",
        "seconds_from_first": "Mean time from the first step.",
    },
    "paths": {
        "path": "Events in order, the goal last.",
        "frequency": "How many goals were reached so.",
        "percent": "Of all goals that were reached.",
    },
    "engagement": {
        "place": "1 is the most engaged.",
        "profile_id": "The person.",
        "active_days": "Days with an event.",
        "sessions": "Sessions.",
        "total_events": "Events.",
        "event_types": "Different events.",
        "score": "active days × 5 + sessions × 2 + event types × 10.",
    },
    "lifecycle": {
        "from_stage": "Stage of the day before; empty for people who are new.",
        "to_stage": "Stage of the day; empty for people who are gone.",
        "people": "How many.",
    },
    "retention": {
        "cohort": "Period in which the people were first seen; 0 is the earliest.",
        "age": "Periods since.",
        "people": "Those who did something in that period.",
        "percent": "Of the cohort.",
    },
    "recommendations": {
        "profile_id": "The person.",
        "list": "used, or recommended.",
        "event_type": "The event.",
        "total_events": "How often the person did it.",
        "place": "Place in the list.",
    },
    "attribution": {
        "channel": "Where people came from; (none) without a touch.",
        "conversions": "Conversions that it had a part in.",
        "first_touch": "Credit if all goes to the first touch.",
        "last_touch": "Credit if all goes to the last touch.",
        "linear": "Credit in even shares.",
        "position": "Credit of 40 % to the first, 40 % to the last, 20 % to those between.",
    },
    "experiment": {
        "variant": "The variant.",
        "people": "Exposed to it.",
        "converted": "Of those, converted afterwards.",
        "percent": "Share that converted.",
        "percent_low": "Lower end of its 95 % interval.",
        "percent_high": "Upper end of its 95 % interval.",
    },
    "accounts": {
        "account": "Id of the account.",
        "people": "Its people.",
        "active_people": "Those with an event.",
        "active_days": "Days with an event.",
        "sessions": "Sessions.",
        "total_events": "Events.",
        "event_types": "Different events.",
        "score": "active days × 5 + sessions × 2 + event types × 10.",
    },
    "features": {
        "profile_id": "The person.",
        "total_events": "Events.",
        "active_days": "Days with an event.",
        "sessions": "Sessions.",
        "hours_since_last": "Hours from the last event to the end of the day.",
    },
}


def result_columns(query: Query) -> dict[str, str]:
    """Return the columns of a query's result, each with its meaning."""
    counted = {f"count_{event}": f"How often {event} happened." for event in query.events if query.kind == "features"}
    told_apart = {"outcome": "Outcome of the conversions."} if getattr(query, "outcome", None) else {}
    return {**told_apart, **_COLUMNS[query.kind], **counted}
