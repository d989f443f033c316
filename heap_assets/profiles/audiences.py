"""Audiences: named sets of profiles, by a definition over events and traits (:mod:`.definitions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID
from heap_assets.profiles.conditions import holds
from heap_assets.profiles.definitions import Audience, EventCriterion, event_table, in_order
from heap_assets.profiles.sequences import chains, within_span
from heap_assets.values import PRIVATE, apart, set_apart

_OWN = ("profile_id",)
_ACCOUNT = f"{PRIVATE}account."
"""What begins the names of an account's columns beside those of its people."""


@dataclass(frozen=True)
class Accounts:
    """The accounts that people belong to.

    Attributes
    ----------
    rows
        One row per account.
    key
        Its column that is the account's id.
    member_of
        The trait of people that holds it.
    """

    rows: pl.LazyFrame
    key: str
    member_of: str


@dataclass(frozen=True)
class Facts:
    """What definitions are evaluated on.

    Attributes
    ----------
    events
        By event table name (`signals/<name>` of a signal): profile_id, time (UTC), and the columns that `properties`
        names.
    as_of
        The moment that windows count back from: the end of the partition's day.
    accounts
        Of `account_properties`; None: there are none.
    by_user
        The same rows of tables that name users of Heap, with user_id in place of profile_id: events are counted by user
        before their profile is looked up, which takes half of the time.
    users
        user_id, profile_id: whose these rows are.
    """

    events: Mapping[str, pl.LazyFrame]
    as_of: datetime
    accounts: Accounts | None = None
    by_user: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    users: pl.LazyFrame | None = None


def members(
    audience: Audience,
    profiles: pl.LazyFrame,
    events: Mapping[str, pl.LazyFrame],
    as_of: datetime,
    accounts: Accounts | None = None,
) -> pl.LazyFrame:
    """Find who is in an audience.

    Parameters
    ----------
    audience
        The definition.
    profiles
        profile_id, the columns that `user_properties` names and one Boolean column for each of `audiences`; one row per
        profile.
    events, as_of, accounts
        As :class:`Facts` has them.

    Returns profile_id String, sorted; profiles without any event are candidates like all others.

    Raises SettingsError: the definition names an event or a column that does not exist, or compares what cannot be
    compared.
    """
    facts = Facts(events, as_of, accounts)
    return meeting(audience, with_account(profiles, facts, audience), facts).select("profile_id").sort("profile_id")


def with_audiences(
    profiles: pl.LazyFrame,
    audiences: Sequence[Audience],
    events: Mapping[str, pl.LazyFrame],
    as_of: datetime,
    accounts: Accounts | None = None,
) -> pl.LazyFrame:
    """Return the profiles with one Boolean column per audience, so that a sync can send membership as a trait."""
    result = profiles
    for audience in in_order(list(audiences)):
        result = with_audience(result, audience, Facts(events, as_of, accounts))
    return result.select(*profiles.collect_schema(), *(audience.name for audience in audiences))


def with_audience(profiles: pl.LazyFrame, audience: Audience, facts: Facts) -> pl.LazyFrame:
    """Return the profiles with the Boolean column of one audience; those that it names must be columns already.

    The profiles are read now, and so are the events: a plan of many audiences would have each read what the one before
    it reads twice.
    """
    people = profiles.collect()
    inside = meeting(audience, with_account(people.lazy(), facts, audience), facts).select("profile_id")
    ids = inside.collect(engine="streaming")["profile_id"]
    is_member = pl.col("profile_id").is_in(ids.implode()).fill_null(value=False)
    return people.with_columns(is_member.alias(audience.name)).lazy()


def events_needed(audiences: Sequence[Audience]) -> dict[str, float | None]:
    """Return the events that audiences ask for, and how many days back; None: all of them."""
    needed: dict[str, float | None] = {}
    for audience in audiences:
        for criterion in audience.criteria:
            longest, days = needed.get(criterion.type, 0.0), criterion.within_days
            needed[criterion.type] = None if longest is None or days is None else max(longest, days)
    return needed


def users_of_graph(graph: pl.LazyFrame) -> pl.LazyFrame:
    """Return user_id Int64, profile_id of the users of Heap in a graph, without those that are shared."""
    return graph.filter(
        (pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared") & pl.col("profile_id").is_not_null()
    ).select(pl.col("identifier").cast(pl.Int64).alias("user_id"), "profile_id")


def events_of_profiles(rows: pl.LazyFrame, graph: pl.LazyFrame) -> pl.LazyFrame:
    """Add `profile_id` to rows of a Heap event table, by `user_id`; rows of a shared or unknown user are left out.

    A property that is called so goes under another name (:mod:`heap_assets.values`).
    """
    return events_by_user(rows).join(users_of_graph(graph), on="user_id")


def events_by_user(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows of a Heap event table with the column names of :func:`events_of_profiles`, without profiles."""
    return rows.rename(set_apart(rows.collect_schema(), _OWN))


def meeting(audience: Audience, candidates: pl.LazyFrame, facts: Facts) -> pl.LazyFrame:
    """Return the candidates that meet a definition; they have the columns of their accounts (:func:`with_account`)."""
    schema = candidates.collect_schema()
    of_account = [
        holds(condition, *column(schema, f"{_ACCOUNT}{name}", condition.where, name), facts.as_of)
        for name, condition in audience.account_properties
    ]
    own = [
        holds(condition, *column(schema, name, condition.where), facts.as_of)
        for name, condition in audience.user_properties
    ]
    inside_others = [pl.col(name) for name in audience.audiences]
    if conditions := [*own, *of_account, *inside_others]:
        candidates = candidates.filter(conditions)
    for criterion in audience.events:
        candidates = _counting(candidates, criterion, facts, negated=False)
    for criterion in audience.exclude_events:
        candidates = _counting(candidates, criterion, facts, negated=True)
    for sequence in audience.sequences:
        ends = within_span(chains(sequence.steps, partial(rows_of, facts=facts)), sequence.span_days)
        candidates = candidates.join(ends.select("profile_id"), on="profile_id", how="semi")
    for group in audience.all_of:
        candidates = meeting(group, candidates, facts)
    if audience.any_of:
        either = pl.concat([meeting(group, candidates, facts).select("profile_id") for group in audience.any_of])
        candidates = candidates.join(either, on="profile_id", how="semi")
    for group in audience.none_of:
        candidates = candidates.join(meeting(group, candidates, facts), on="profile_id", how="anti")
    return candidates


def with_account(profiles: pl.LazyFrame, facts: Facts, audience: Audience) -> pl.LazyFrame:
    """Return the profiles with their accounts' columns beside their own, if the definition asks for any.

    Raises SettingsError: there are no accounts.
    """
    asked_of_accounts = [condition for part in audience.parts for _, condition in part.account_properties]
    if not asked_of_accounts:
        return profiles
    if (accounts := facts.accounts) is None:
        raise SettingsError(f"{asked_of_accounts[0].where}: there are no accounts; name their table under `accounts:`.")
    key = f"{_ACCOUNT}{accounts.key}"
    rows = accounts.rows.rename(lambda name: f"{_ACCOUNT}{name}").unique(key, keep="any")
    return profiles.join(
        rows.with_columns(pl.col(key).alias(f"{key}{PRIVATE}")),
        left_on=pl.col(accounts.member_of).cast(pl.String),
        right_on=pl.col(f"{key}{PRIVATE}").cast(pl.String),
        how="left",
        maintain_order="left",
    )


def rows_of(criterion: EventCriterion, facts: Facts) -> tuple[str, pl.LazyFrame, pl.Expr]:
    """Return the table of an event, its rows, and whether a row meets properties and window.

    Raises SettingsError: there is no such table, or a property that it does not have.
    """
    table = event_table(criterion.type, facts.events)
    if table is None:
        tables = ", ".join(sorted(facts.events)) or "none"
        raise SettingsError(f"{criterion.where}.type is {criterion.type!r}, which is no event table. Tables: {tables}.")
    rows = facts.events[table]
    schema = rows.collect_schema()
    filters = [
        holds(condition, *column(schema, apart(name, _OWN), condition.where), facts.as_of)
        for name, condition in criterion.properties
    ]
    filters.append(pl.col("time") < facts.as_of)
    if criterion.within_days is not None:
        filters.append(pl.col("time") >= facts.as_of - timedelta(days=criterion.within_days))
    return table, rows, pl.all_horizontal(filters)


def counts_of(criterion: EventCriterion, facts: Facts) -> pl.LazyFrame:
    """Return profile_id, count Int64: events that meet the criterion, of those who did any."""
    table, rows, meets = rows_of(criterion, facts)
    if facts.users is None or table not in facts.by_user:
        return rows.filter(meets).group_by("profile_id").agg(count=pl.len().cast(pl.Int64))
    of_users = facts.by_user[table].filter(meets).group_by("user_id").agg(count=pl.len().cast(pl.Int64))
    return of_users.join(facts.users, on="user_id").group_by("profile_id").agg(pl.col("count").sum())


def _counting(candidates: pl.LazyFrame, criterion: EventCriterion, facts: Facts, *, negated: bool) -> pl.LazyFrame:
    meets = pl.all_horizontal([holds(condition, pl.col("count"), pl.Int64()) for condition in criterion.count])
    never = pl.select(count=pl.lit(0, pl.Int64)).select(meets).item()
    counts = counts_of(criterion, facts)
    # who never did it has no count: they are told by what those who did have not
    if never:
        return candidates.join(counts.filter(~meets), on="profile_id", how="semi" if negated else "anti")
    return candidates.join(counts.filter(meets), on="profile_id", how="anti" if negated else "semi")


def column(schema: pl.Schema, name: str, where: str, shown: str | None = None) -> tuple[pl.Expr, pl.DataType]:
    """Return a column as an expression with its type; SettingsError if there is none."""
    if name not in schema:
        columns = ", ".join(each for each in schema if not each.startswith(PRIVATE))
        raise SettingsError(f"{where}: there is no column {shown or name!r}. Columns: {columns}.")
    return pl.col(name), schema[name]
