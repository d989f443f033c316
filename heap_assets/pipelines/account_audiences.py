"""Audiences of accounts: who entered and left them, and the answers of `heap-assets audience --accounts`.

An account stands where a person does: what its people did is what it did, and its columns are its traits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import polars as pl

from heap_assets.analytics import Dialect, Relation
from heap_assets.errors import SettingsError
from heap_assets.pipelines.account_profiles import (
    account_settings,
    audiences_of_accounts,
    facts_of_accounts,
    graph_of_accounts,
)
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.pipelines.behaviour import windows_of
from heap_assets.pipelines.people import members_by_columns, sizes_of_audiences
from heap_assets.pipelines.relations import Relations
from heap_assets.pipelines.table import BuiltTable
from heap_assets.profiles import Audience, Facts, membership
from heap_assets.project import Project
from heap_assets.storage import Inputs
from heap_assets.tables import ACCOUNT_AUDIENCES, ACCOUNT_PROFILES, PROFILES
from heap_assets.values import sql_identifier

_AS_PERSON, _AS_ACCOUNT = {"account": "profile_id"}, {"profile_id": "account"}


def account_audiences_of_day(project: Project, day: date) -> BuiltTable:
    """Return which account is in which audience on a day, entered or left it; from `accounts/profiles`.

    Raises MissingInputError: those of the day are not built, or older than an audience.
    """
    names, lake = list(account_settings(project).audiences), project.lake
    inside = members_by_columns(project, ACCOUNT_PROFILES, day, names).rename(_AS_PERSON)
    inputs = {f"{ACCOUNT_PROFILES}@{day}": lake.versions(ACCOUNT_PROFILES)[str(day)]}
    earlier = None
    if before := lake.newest_partition(ACCOUNT_AUDIENCES, day - timedelta(days=1)):
        earlier = lake.scan(ACCOUNT_AUDIENCES, str(before)).rename(_AS_PERSON)
        inputs[f"{ACCOUNT_AUDIENCES}@{before}"] = lake.versions(ACCOUNT_AUDIENCES)[str(before)]
    table = membership(inside, day, earlier).rename(_AS_ACCOUNT).collect()
    return BuiltTable(table.lazy(), Inputs(inputs), sizes_of_audiences(table, names))


class AccountAudienceDay(AudienceDay):
    """A project's audiences of accounts on a day, as :class:`AudienceDay` has those of people.

    Members are accounts, in the column `profile_id`.
    """

    members_of, stored_in = ACCOUNT_PROFILES, ACCOUNT_AUDIENCES

    @classmethod
    def of_settings(cls, project: Project) -> list[Audience]:
        return audiences_of_accounts(project)

    @property
    def declared(self) -> Mapping[str, Mapping[str, Any]]:
        return account_settings(self.project).audiences

    def facts(self, *audiences: Audience) -> Facts:
        named = [*audiences, *self._named(*audiences)]
        graph = graph_of_accounts(self.project, self.day)
        return facts_of_accounts(self.project, named, graph, windows_of(self.project, self.day, named))

    def relations(self, dialect: Dialect) -> Relations:
        return _AccountRelations(self.project, self.day, dialect)

    def rows(self, path: str) -> pl.LazyFrame:
        return super().rows(path).rename(_AS_PERSON)

    def _owner(self, identifier: str) -> str:
        if self.rows(ACCOUNT_PROFILES).filter(pl.col("profile_id") == identifier).collect().is_empty():
            raise SettingsError(f"{ACCOUNT_PROFILES} of {self.day} has no such account; expected its id")
        return identifier


class _AccountRelations(Relations):
    """The lake's tables with an account where a person is."""

    def people(self) -> Relation:
        schema = self._project.lake.scan(ACCOUNT_PROFILES, str(self._day)).collect_schema()
        return Relation(
            f"(SELECT *, account AS profile_id FROM {self.snapshot(ACCOUNT_PROFILES)} AS a)",
            pl.Schema({**schema, "profile_id": pl.String()}),
        )

    def named(self, tables: Iterable[str]) -> dict[str, Relation]:
        account = f"CAST({sql_identifier(account_settings(self._project).member_of)} AS VARCHAR)"
        members = f"SELECT profile_id, {account} AS account FROM {self.snapshot(PROFILES)} AS p"

        def of_accounts(relation: Relation) -> Relation:
            columns = "".join(f", e.{sql_identifier(name)}" for name in relation.schema if name != "profile_id")
            rows = f"(SELECT m.account AS profile_id{columns} FROM {relation.sql} AS e JOIN ({members}) AS m"
            return replace(relation, sql=f"{rows} ON m.profile_id = e.profile_id WHERE m.account IS NOT NULL)")

        return {table: of_accounts(relation) for table, relation in super().named(tables).items()}

    def accounts(self) -> tuple[Relation, str, str] | None:
        own = super().accounts()
        return None if own is None else (*own[:2], "profile_id")
