"""Every number that a check compares with; the defaults are meant for a real company's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Self

from heap_assets.errors import SettingsError, did_you_mean


def _threshold(default: float, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Thresholds:
    """What checks tolerate, with the default and meaning of each. Shares are fractions of one."""

    rejected_rows: float = _threshold(0.001, "Share of a day's rows that may be unreadable.")
    function_rejected: float = _threshold(0.001, "Share of a day's rows that a function may reject.")
    volume_change: float = _threshold(
        0.5,
        "How far a day's rows may be from the median of the same weekday, as a share of it. Weekdays that scatter "
        "more get four times their median deviation.",
    )
    volume_weeks: int = _threshold(6, "Same weekdays that are looked at.")
    volume_min_weeks: int = _threshold(3, "How many of them there must be before anything is said.")
    volume_min_rows: int = _threshold(100, "Tables with fewer rows a day are not judged by their volume.")
    null_change: float = _threshold(
        0.2, "How many points the share of nulls of a column may rise over its median, beside three standard errors."
    )
    null_min_days: int = _threshold(3, "Days with enough rows that there must be to compare with, of the last seven.")
    null_min_rows: int = _threshold(
        100,
        "Days with fewer rows are neither judged by how filled their columns are nor compared with: a few people make"
        " the shares.",
    )
    unknown_names: float = _threshold(
        0.01, "Share of an event table's rows that may name a session or user that Heap has not sent."
    )
    migration_chain: int = _threshold(5, "Longest chain of user migrations that is not remarkable.")
    max_shrink: float = _threshold(0.10, "Share of its rows that a snapshot may lose in a day.")
    shrink_min_rows: int = _threshold(20, "Snapshots smaller than this may shrink as they like.")
    filled_identifiers: float = _threshold(0.5, "Share of a warehouse table's rows that must carry an identifier.")
    malformed_identifiers: float = _threshold(0.02, "Share of the filled values that may not look like their type.")
    duplicate_profiles: float = _threshold(0.02, "Share of profiles that may be on more than one Heap identity.")
    anonymous_twins: float = _threshold(
        0.05, "Share of identified profiles that may have anonymous Heap users that Heap could be told of."
    )
    split_keys: float = _threshold(0.01, "Share of a warehouse table's keys that may stand on several profiles.")
    shared_unique: float = _threshold(
        0.01, "Share of the identifiers of a unique type that may be named by several people."
    )
    shared_people: int = _threshold(
        5, "People who name one value of a unique type, from which on it is no person's, such as a functional mailbox."
    )
    claimed_values: int = _threshold(
        0,
        "Identifiers, such as a shared inbox, that may be claimed by several profiles: held by one and named by "
        "others.",
    )
    profile_identifiers: int = _threshold(
        100, "Identifiers of a profile above which it is thought to be several people."
    )
    at_limit: float = _threshold(0.02, "Share of profiles that may be at a merge limit.")
    audience_change: float = _threshold(0.5, "Share of its members that an audience may win or lose in a day.")
    audience_min: int = _threshold(20, "Changes of an audience up to this many members are not remarkable.")
    conflicts_rise: float = _threshold(
        0.5, "How much conflicts and shared values may rise over their median of the last week, as a share of it."
    )
    shared_rise: float = _threshold(
        0.5, "How much conflicts and shared values may rise over their median of the last week, as a share of it."
    )
    rise_min: int = _threshold(10, "Rises below this number of rows are not remarkable.")
    matched_fall: float = _threshold(0.05, "Points that a match rate may fall below its median of the last week.")
    changed_ids: float = _threshold(0.05, "Share of profiles whose id may change in a day.")
    live_waiting: int = _threshold(1000, "People whose changes may wait to be sent live.")
    live_seconds: float = _threshold(60.0, "Seconds within which 95 % of live changes are sent.")
    personal_rows: int = _threshold(
        20_000, "Rows of an event table that are searched for personal data by value (a fixed sample of the day)."
    )
    personal_share: float = _threshold(
        0.001, "Share of searched values of one column that may look like personal data."
    )
    key_notice_days: int = _threshold(14, "Days before the end of a credential from which on a check warns.")
    sync_rejected: float = _threshold(0.01, "Share of a sync's rows that the destination may refuse.")
    sync_invalid: float = _threshold(
        0.05,
        "Share of a sync's rows that may be unfit to be sent; events that nobody could be found for in time do not "
        "count.",
    )
    sync_min_rows: int = _threshold(20, "Runs of fewer rows are not judged by the share of unfit ones.")
    ledger_missing: float = _threshold(0.02, "Share of acknowledged users that the newest export may lack.")
    quota: float = _threshold(
        0.8, "Share of a month's rows (`heap.quota`, else the plan's) that is used before it is remarked upon."
    )

    @classmethod
    def from_settings(cls, settings: Mapping[str, float]) -> Thresholds:
        """Return the defaults with some of them chosen anew (`checks:` in the settings).

        Raises SettingsError if a name is unknown, or a value does not fit its threshold.
        """
        defaults = {own.name: own.default for own in fields(cls)}
        for name, value in settings.items():
            if name not in defaults:
                hint = did_you_mean(name, defaults)
                raise SettingsError(f"checks.{name} is no threshold. Thresholds: {', '.join(defaults)}.{hint}")
            if value < 0 or (isinstance(defaults[name], int) and value != int(value)):
                expected = "a whole number" if isinstance(defaults[name], int) else "a number"
                raise SettingsError(f"checks.{name} is {value}: expected {expected}, not below 0")
        typed: dict[str, Any] = {
            name: int(value) if isinstance(defaults[name], int) else value for name, value in settings.items()
        }
        return cls(**typed)


@dataclass(frozen=True)
class Cadence:
    """How often an asset is expected to be new.

    `every`: time between two arrivals in normal operation (Heap Connect: a day or an hour by plan). `lag`: how far
    behind the clock the newest row is on arrival in normal operation.
    """

    every: timedelta = timedelta(days=1)
    lag: timedelta = timedelta(hours=12)

    @classmethod
    def of_heap(cls, every_hours: int) -> Self:
        """Return the cadence of Heap's tables: the night after day D brings D (heap.md 2.3), hourly plans sooner."""
        every = timedelta(hours=every_hours)
        return cls(every=every, lag=min(timedelta(hours=12), every * 2))

    @property
    def warn_after(self) -> timedelta:
        """Return the age at which somebody should look: one arrival is late by a quarter."""
        return self.every * 1.25 + self.lag

    @property
    def fail_after(self) -> timedelta:
        """Return the age at which something is wrong: one arrival was missed altogether and the next is late."""
        return self.every * 2.25 + self.lag
