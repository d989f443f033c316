"""Profiles of accounts: what all people of an account did together, by the columns that profiles of people have.

The people's events count for their account as if it were one person: the graph is read with accounts in place of
profiles, and everything else is the code of people.
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from heap_assets.config import AccountsSettings
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.behaviour import accounts_of_day, heap_stream, reach_of, with_activity, with_scores
from heap_assets.pipelines.events import Window, days_of, event_frames, table_of_event
from heap_assets.pipelines.people import event_versions
from heap_assets.pipelines.table import BuiltTable
from heap_assets.profiles import (
    Accounts,
    Audience,
    Facts,
    events_needed,
    in_order,
    parse_audience,
    with_audience,
)
from heap_assets.project import Project
from heap_assets.storage import Inputs
from heap_assets.tables import (
    ACCOUNT_COLUMNS,
    GRAPH,
    PROFILES,
    event_asset,
    is_signal,
    warehouse_asset,
)
from heap_assets.versions import version_of


def audiences_of_accounts(project: Project) -> list[Audience]:
    """Return the definitions under `accounts.audiences`, each after those that it names.

    Raises SettingsError: a mistake in one, a column or an event that there is not.
    """
    settings = project.settings.accounts
    if settings is None:
        return []
    parsed = [
        parse_audience(name, definition, f"accounts.audiences.{name}")
        for name, definition in settings.audiences.items()
    ]
    columns = {*ACCOUNT_COLUMNS, *settings.columns} - {*settings.audiences}
    for audience in parsed:
        for column, condition in audience.traits:
            if column not in columns:
                raise SettingsError(
                    f"{condition.where}: accounts have no column {column!r}. Columns: {', '.join(sorted(columns))}"
                )
        for criterion in audience.criteria:
            if not is_signal(criterion.type):
                table_of_event(project, criterion.type, criterion.where)
    return in_order(parsed)


def check_accounts(project: Project) -> None:
    """Check what profiles of accounts name; SettingsError names the key of the first mistake."""
    _reach(project, audiences_of_accounts(project))


def account_profiles_of_day(project: Project, day: date) -> BuiltTable:
    """Return the profiles of accounts as of the end of a day, sorted by account.

    Accounts are those that people name, and those of the accounts' table.

    Raises MissingInputError: the profiles of the day are not built.
    """
    settings, lake, key = account_settings(project), project.lake, str(day)
    for path in (PROFILES, GRAPH):
        if lake.find(path, key) is None:
            raise MissingInputError(f"{path} {day} is not built")
    audiences = audiences_of_accounts(project)
    window = Window(day, days_of(project, day, _reach(project, audiences)))
    members, of_accounts = _members(project, day), graph_of_accounts(project, day)
    of_people = lake.scan(GRAPH, key).join(members.select("profile_id"), on="profile_id")
    frame = _accounts(members, accounts_of_day(project, day))
    frame = _with_active_people(project, settings, frame, members, of_people, window)
    frame = frame.collect(engine="streaming").lazy()  # else each plan made of it reads the events again
    if settings.behaviour:
        frame = with_activity(project, settings.behaviour, frame, of_accounts, window)
        frame = _with_adoption(project, settings, frame, members, of_people, window)
    frame = with_scores(project, settings.scores, frame, of_accounts, window)
    facts = facts_of_accounts(project, audiences, of_accounts, window)
    for audience in audiences:
        frame = with_audience(frame, audience, facts)
    versions = {f"{PROFILES}@{day}": lake.versions(PROFILES)[key], f"{GRAPH}@{day}": lake.versions(GRAPH)[key]}
    versions |= {f"{event_asset(name)}@{one}": version for name, one, version in event_versions(lake, window)}
    asset = warehouse_asset(settings.table)
    if newest := lake.newest_partition(asset, day):
        versions[f"{asset}@{newest}"] = lake.versions(asset)[str(newest)]
    declared = settings.model_dump(mode="json", exclude={"audiences"})
    versions["settings"] = version_of([declared, *(one.declared for one in audiences), project.rules.digest])
    columns = [name for name in settings.columns if name not in settings.audiences]
    order = ["account", *ACCOUNT_COLUMNS[1:], *columns, *settings.audiences]
    rows = frame.rename({"profile_id": "account"}).select(order).sort("account").collect()
    figures = {f"members_{name}": int(rows[name].sum()) for name in settings.audiences}
    return BuiltTable(rows.lazy(), Inputs(versions), {"accounts": rows.height, **figures})


def graph_of_accounts(project: Project, day: date) -> pl.LazyFrame:
    """Return `identity/graph` of a day with accounts in place of profiles; who has no account is left out."""
    graph = project.lake.scan(GRAPH, str(day)).join(_members(project, day), on="profile_id")
    return graph.drop("profile_id").rename({"account": "profile_id"})


def facts_of_accounts(project: Project, audiences: list[Audience], graph: pl.LazyFrame, window: Window) -> Facts:
    """Return what audiences of accounts are evaluated on: events of their people, and the rows of their table.

    Raises SettingsError for an event that no table holds.
    """
    events, table = (
        event_frames(project, _events(project, audiences), graph, window),
        accounts_of_day(project, window.day),
    )
    return Facts(events, window.as_of, None if table is None else Accounts(table.rows, table.key, "profile_id"))


def _members(project: Project, day: date) -> pl.LazyFrame:
    member_of = account_settings(project).member_of
    members = project.lake.scan(PROFILES, str(day)).select("profile_id", account=pl.col(member_of).cast(pl.String))
    return members.drop_nulls("account")


def account_settings(project: Project) -> AccountsSettings:
    """Return `accounts` of the settings; SettingsError if there are none."""
    settings = project.settings.accounts
    if settings is None:
        raise SettingsError("there are no accounts; name their table under `accounts:`")
    return settings


def _reach(project: Project, audiences: list[Audience]) -> dict[str, int | None]:
    settings = project.settings.accounts
    if settings is None:
        return {}
    return reach_of(project, settings.behaviour, settings.scores, audiences, section="accounts")


def _events(project: Project, audiences: list[Audience]) -> list[str]:
    return [
        event if is_signal(event) else table_of_event(project, event, "accounts.audiences")
        for event in events_needed(audiences)
    ]


def _accounts(members: pl.LazyFrame, table: Accounts | None) -> pl.LazyFrame:
    """Return profile_id (the account) and people."""
    people = members.group_by("account").agg(people=pl.len().cast(pl.Int64))
    if table is not None:
        named = table.rows.select(account=pl.col(table.key).cast(pl.String)).drop_nulls().unique()
        people = named.join(people, on="account", how="full", coalesce=True).with_columns(pl.col("people").fill_null(0))
    return people.rename({"account": "profile_id"})


def _with_active_people(
    project: Project,
    settings: AccountsSettings,
    accounts: pl.LazyFrame,
    members: pl.LazyFrame,
    graph: pl.LazyFrame,
    window: Window,
) -> pl.LazyFrame:
    """Add active_people: those with an event in the days of `behaviour`, 0 without such a section."""
    days = settings.behaviour.days if settings.behaviour else 0
    rows = [heap_stream(project, window, project.event_tables, graph)] if days else []
    return _with_people(accounts, rows, members, window, days, "active_people")


def _with_adoption(
    project: Project,
    settings: AccountsSettings,
    accounts: pl.LazyFrame,
    members: pl.LazyFrame,
    graph: pl.LazyFrame,
    window: Window,
) -> pl.LazyFrame:
    """Add <feature>_people: how many people of the account used the feature."""
    assert settings.behaviour is not None
    for flag, event in settings.behaviour.features.items():
        name, column = table_of_event(project, event, f"accounts.behaviour.features.{flag}"), f"{flag}_people"
        rows = list(event_frames(project, [name], graph, window).values())
        accounts = _with_people(accounts, rows, members, window, settings.behaviour.days, column)
    return accounts


def _with_people(
    accounts: pl.LazyFrame,
    rows: list[pl.LazyFrame],
    members: pl.LazyFrame,
    window: Window,
    days: int,
    column: str,
) -> pl.LazyFrame:
    """Add a column of how many people of the account have one of the rows within the days."""
    empty = pl.LazyFrame(schema={"profile_id": pl.String, "time": pl.Datetime("us", "UTC")})
    events = pl.concat([empty, *(frame.select("profile_id", "time") for frame in rows)])
    recent = (pl.col("time") >= window.as_of - timedelta(days=days)) & (pl.col("time") < window.as_of)
    active = events.filter(recent).select("profile_id").unique().join(members, on="profile_id")
    counts = active.group_by("account").agg(pl.len().cast(pl.Int64).alias(column))
    counted = accounts.join(counts.rename({"account": "profile_id"}), on="profile_id", how="left")
    return counted.with_columns(pl.col(column).fill_null(0))
