"""Heap's dumps and the tables made of them: ids, times, rejected rows, user migrations; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.quality import baselines, measures
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.functions import checks_for_function
from heap_assets.quality.measures import (
    TableFacts,
    column_check,
    facts_of,
    inside_day,
    readable_check,
    rejected_check,
    shrink_check,
    unique_key_check,
    unique_keys,
    values_check,
)
from heap_assets.quality.personal_data import no_personal_data
from heap_assets.quality.results import (
    SAMPLE_ROWS,
    CheckResult,
    Severity,
    combine_results,
    nothing_to_compare,
    share_within,
)
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import MIGRATIONS, SESSIONS, USERS
from heap_assets.values import PRIVATE

_ROWS = f"{PRIVATE}rows"


def times_inside_day(rows: pl.LazyFrame, facts: TableFacts, day: date, time_column: str = "time") -> CheckResult:
    """Check that every row happened on the UTC day of its partition."""
    sample = None
    if facts.outside:
        outside = rows.filter(~inside_day(time_column, day))
        sample = outside.select(pl.col(time_column).dt.date().alias("day")).group_by("day").len("rows")
        sample = sample.sort("rows", "day", descending=[True, False]).head(SAMPLE_ROWS)
    return CheckResult(
        passed=not facts.outside,
        numbers={"rows": facts.rows, "rows_of_other_days": facts.outside},
        offenders=sample.collect() if sample is not None else None,
        plain=("day", "rows"),
    )


_REFERENCED_TABLES = {"user_id": USERS, "session_id": SESSIONS}
"""Column that names something to the table that must know it."""


def names_known(rows: pl.LazyFrame, exported: Mapping[str, pl.Series | None], allowed: float) -> CheckResult:
    """Check that the users and sessions which events name have been exported too.

    `known`: column (`user_id`, `session_id`) to all values that exist, None if that table has not been built.
    """
    present = rows.collect_schema().names()
    compared = {name: values for name, values in exported.items() if values is not None and name in present}
    figures = [
        (pl.col(name).is_not_null() & ~_is_exported(name, values)).sum().alias(name)
        for name, values in compared.items()
    ]
    unknown = rows.select(pl.len().alias(_ROWS), *figures).collect().row(0, named=True)
    total = unknown.pop(_ROWS)
    share = max(unknown.values(), default=0) / total if total else 0.0
    missing = [name for name, values in exported.items() if values is None and name in present]
    return CheckResult(
        passed=share <= allowed,
        numbers={
            "rows": total,
            "unknown_share": share,
            "allowed_share": allowed,
            **{f"rows_with_unknown_{name}": count for name, count in unknown.items()},
        },
        not_judged=f"{' and '.join(_REFERENCED_TABLES[name] for name in missing)} of the day must be built first"
        if missing and share <= allowed
        else "",
    )


def users_of_events_known(event_users: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> CheckResult:
    """Check that the users whom events name are exported; the table of users comes with the same dump.

    `event_users` has user_id Int64 and rows of all event tables of the day; `users` is heap/users of the day.
    """
    unknown = event_users.drop_nulls("user_id").join(users.select("user_id"), on="user_id", how="anti")
    total, strangers, rows = pl.collect_all(
        [
            event_users.select(pl.col("rows").sum()),
            unknown.select(pl.col("user_id").n_unique()),
            unknown.select(pl.col("rows").sum()),
        ]
    )
    event_rows, unknown_rows = total.item() or 0, rows.item() or 0
    numbers = {"event_rows": event_rows, "rows_of_unknown_users": unknown_rows, "unknown_users": strangers.item()}
    return share_within(unknown_rows, event_rows, allowed, numbers)


def no_migration_cycles(migrations: pl.LazyFrame) -> CheckResult:
    """Check that every chain of user migrations ends at one user; `migrations` is heap/user_migrations."""
    total, cycles, sample = pl.collect_all(
        [
            migrations.select(pl.len()),
            migrations.filter("cycle").select(pl.len()),
            migrations.filter("cycle").select("from_user_id", "to_user_id").sort("from_user_id").head(SAMPLE_ROWS),
        ]
    )
    return CheckResult(
        passed=cycles.item() == 0,
        numbers={"migrations": total.item(), "in_a_cycle": cycles.item()},
        offenders=sample if cycles.item() else None,
    )


def migration_chains_short(migrations: pl.LazyFrame, longest: int) -> CheckResult:
    """Check that users do not migrate over and over: long chains are scripts that call identify in a loop.

    `migrations` is heap/user_migrations; chains are followed no further than `longest` steps.
    """
    steps = migrations.filter(~pl.col("cycle")).select("from_user_id", "to_user_id", "resolved_to").collect()
    hop = steps.select(pl.col("from_user_id").alias("at"), pl.col("to_user_id").alias("next"))
    going = steps.filter(pl.col("to_user_id") != pl.col("resolved_to")).select(pl.col("to_user_id").alias("at"))
    in_chains, length = going.height, 1 if steps.height else 0
    while going.height and length <= longest:
        length += 1
        going = going.join(hop, on="at").select(pl.col("next").alias("at")).join(hop.select("at"), on="at", how="semi")
    return CheckResult(
        passed=length <= longest,
        numbers={"migrations": steps.height, "in_chains": in_chains, "longest_chain_at_least": length},
    )


def _is_exported(name: str, values: pl.Series) -> pl.Expr:
    """Return whether a column's values are among `values`; a column of another type is reported by another check."""
    return pl.col(name).cast(values.dtype, strict=False).is_in(values.implode()).fill_null(value=False)


_NOT_OVER = "no dump was made after the end of the day yet"
_MEND_VALUES = "such values are null (docs/values.md): track the property as text, or correct it where it is tracked."


def checks_for_event_table(
    asset: str,
    *,
    properties: Sequence[str] = (),
    accepted: Sequence[str] = (),
    ordinal: Sequence[str] = (),
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `heap/events/<t>`, `heap/pageviews` or `heap/sessions`.

    `properties`: columns that the company tracks itself, searched for personal data. `accepted`: those of them that are
    personal data on purpose (`pii: true` in the catalogue). `ordinal`: the column that tells apart the rows which a
    function made of one event, of tables that have one.
    """
    t = thresholds or Thresholds()
    ids = ("event_id", "user_id", "time") if asset != SESSIONS else ("session_id", "user_id", "time")
    key = (*ids[:2], *ordinal)

    def personal(s: CheckContext) -> CheckResult:
        return no_personal_data(s.rows(), properties, accepted, rows_searched=t.personal_rows, allowed=t.personal_share)

    return [
        readable_check(asset),
        rejected_check(asset, t),
        values_check(asset, _MEND_VALUES),
        *(checks_for_function(asset, t) if ordinal else []),
        Check(
            asset,
            "unique_keys",
            f"No two rows have the same {' and '.join(key)}.",
            lambda s: unique_keys(s.rows(), key),
            blocking=True,
            remedy="materialize the partition again; if it stays, the dump itself repeats rows.",
        ),
        Check(
            asset,
            "ids_and_times",
            f"Every row has {', '.join(ids)}, and happened on the UTC day of its partition.",
            lambda s: combine_results(
                measures.ids_present(facts_of(s), ids),
                times_inside_day(s.rows(), facts_of(s), s.day),
            ),
            remedy="materialize the partition again; if it stays, something else writes to the lake.",
        ),
        Check(
            asset,
            "volume_as_usual",
            f"The day has about as many rows as the same weekday before (within {t.volume_change:.0%}).",
            lambda s: _volume(s, t),
            Severity.WARN,
            remedy="look for a release that stopped or doubled tracking, or for a dump that has not landed.",
            plotted=("expected_rows",),
        ),
        column_check(asset, t),
        Check(
            asset,
            "names_known",
            f"At most {t.unknown_names:.1%} of the rows name a user or session that Heap has not exported.",
            lambda s: names_known(s.rows(), _values_exported(s), t.unknown_names),
            Severity.WARN,
            remedy="see with `heap-assets discover` whether a dump came without its users or sessions.",
            plotted=("unknown_share",),
        ),
        Check(
            asset,
            "no_personal_data",
            "No event property holds emails, card, social-security or phone numbers or IP addresses.",
            personal,
            blocking=True,
            remedy="stop tracking the property, exclude it in heap.tables, or mark it `pii: true` in the catalogue.",
        ),
    ]


def checks_for_users(thresholds: Thresholds | None = None, events: Sequence[str] = ()) -> list[Check]:
    """Return the checks of `heap/users`; `events` are the event tables whose rows name them."""
    t = thresholds or Thresholds()
    users_exported = Check(
        USERS,
        "users_of_events_known",
        f"At most {t.unknown_names:.1%} of the day's event rows name a user that Heap has not exported.",
        lambda s: _users_of_events_known(s, events, t.unknown_names),
        Severity.WARN,
        remedy="see whether a dump came without its users table; until they come, nobody can be told who these are.",
    )
    return [
        *([users_exported] if events else []),
        readable_check(USERS),
        rejected_check(USERS, t),
        values_check(USERS, _MEND_VALUES),
        unique_key_check(USERS, "user_id", "materialize the partition again."),
        Check(
            USERS,
            "ids_present",
            "Every row has a user_id.",
            lambda s: measures.ids_present(facts_of(s), ["user_id"]),
            remedy="materialize the partition again; if it stays, something else writes to the lake.",
        ),
        shrink_check(USERS, t),
        column_check(USERS, t),
    ]


def checks_for_migrations(thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of `heap/user_migrations`."""
    t = thresholds or Thresholds()
    ends = ["from_user_id", "to_user_id"]
    return [
        readable_check(MIGRATIONS),
        rejected_check(MIGRATIONS, t),
        values_check(MIGRATIONS, _MEND_VALUES),
        Check(
            MIGRATIONS,
            "ids_present",
            "Every migration has both of its users.",
            lambda s: measures.ids_present(facts_of(s), ends),
            remedy="materialize the partition again; if it stays, something else writes to the lake.",
        ),
        Check(
            MIGRATIONS,
            "no_cycles",
            "Every chain of migrations ends at one user.",
            lambda s: no_migration_cycles(s.rows()),
            remedy="the users of a cycle keep their own ids; report them to Heap's support.",
        ),
        Check(
            MIGRATIONS,
            "chains_short",
            f"No user migrates more than {t.migration_chain} times.",
            lambda s: migration_chains_short(s.rows(), t.migration_chain),
            Severity.WARN,
            remedy="look for a script that calls identify in a loop, or for shared test accounts.",
        ),
    ]


def _volume(s: CheckContext, t: Thresholds) -> CheckResult:
    rows = facts_of(s).rows
    complete = bool(s.notes().get("complete", s.day < clock.today()))
    if not complete:
        return nothing_to_compare(_NOT_OVER, {"rows": rows}, {"complete": False})
    complete_days = {
        (s.day - date.fromisoformat(v.partition)).days: v.numbers["rows"]
        for v in s.earlier_days(sorted({*range(1, 14), *range(7, 7 * t.volume_weeks + 1, 7)}))
        if v.memory.get("complete") and "rows" in v.numbers
    }
    same_weekdays = [complete_days[n] for n in sorted(complete_days) if n % 7 == 0]
    result = baselines.volume_as_usual(rows, same_weekdays, t, baselines.week_against_last(complete_days))
    return replace(result, memory={"complete": True})


def _values_exported(s: CheckContext) -> dict[str, pl.Series | None]:
    """Return all users there are, and the sessions of the day and the day before: sessions run over midnight."""
    users = _users(s)
    if s.asset == SESSIONS:
        return {"user_id": users}
    sessions = s.cached(f"sessions {s.partition}", lambda: _sessions(s)) if _sessions_as_new(s) else None
    return {"user_id": users, "session_id": sessions}


def _users_of_events_known(s: CheckContext, events: Sequence[str], allowed: float) -> CheckResult:
    event_users = _event_users(s, events)
    if event_users is None:
        return nothing_to_compare("no event table of the day is built")
    return users_of_events_known(event_users, s.rows(), allowed)


def _event_users(s: CheckContext, events: Sequence[str]) -> pl.LazyFrame | None:
    """Return the users that rows of the day name, of the tables that are built: user_id, rows; None if none is."""
    built = [frame for frame in (s.other(asset) for asset in events) if frame is not None]
    counts = [frame.group_by("user_id").agg(pl.len().alias("rows")) for frame in built]
    return pl.concat(counts) if counts else None


def _users(s: CheckContext) -> pl.Series | None:
    """Read the newest users, if they are not older than the day: users add up, and a late event may name a new one."""
    newest = s.cached("newest users", lambda: _newest_users(s))
    if newest < s.partition:  # they may have been built since the step began
        newest = s.step_shared["newest users"] = _newest_users(s)
    if newest < s.partition:
        return None
    return s.cached(f"users {newest}", lambda: _user_ids(s, newest))


def _newest_users(s: CheckContext) -> str:
    return max(s.lake.partitions(USERS), default="")


def _user_ids(s: CheckContext, day: str) -> pl.Series:
    return s.lake.scan(USERS, day).select("user_id").unique().collect()["user_id"]


def _sessions_as_new(s: CheckContext) -> bool:
    """Return whether the day's sessions were built from a dump as new as this table's; if not, they soon will be."""
    partition = s.lake.find(SESSIONS, s.partition)
    return partition is None or _newest_dump(partition.notes) >= _newest_dump(s.notes())


def _newest_dump(notes: Mapping[str, Any]) -> int:
    return max((int(dump) for dump in notes.get("dumps", ())), default=0)


def _sessions(s: CheckContext) -> pl.Series | None:
    frames = [s.other(SESSIONS), s.other(SESSIONS, days_back=1)]
    if frames[0] is None:
        return None
    session_ids = [frame.select("session_id") for frame in frames if frame is not None]
    return pl.concat(session_ids).unique().collect()["session_id"]
