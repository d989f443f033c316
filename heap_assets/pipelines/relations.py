"""The lake's tables as statements read them: views of `heap-assets sql` in DuckDB, published tables in BigQuery."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from heap_assets.analytics import Dialect, Relation, Statement
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID, SourceTable
from heap_assets.pipelines.events import event_schema, name_of_messages
from heap_assets.project import Project
from heap_assets.signals import FIRED
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE
from heap_assets.sources.warehouse import DAY_COLUMN, table_names
from heap_assets.storage import view_name
from heap_assets.tables import (
    CHANGES,
    GRAPH,
    MODELS,
    PROFILES,
    event_asset,
    heap_asset,
    is_inbox_table,
    is_model,
    is_signal,
    warehouse_asset,
)
from heap_assets.values import set_apart, sql_identifier, sql_literal

_OWN = ("profile_id",)
_OF_VIEWS = ("partition_key",)


class Relations:
    """Names of tables in one dialect, as of one day, which is the parameter `day` of every statement.

    `parameters` are those that the relations name themselves.
    """

    def __init__(self, project: Project, day: date, dialect: Dialect = "lake") -> None:
        self._project, self._day, self._dialect = project, day, dialect
        self._is_view = dialect == "lake"
        self.parameters: Mapping[str, Any] = {"day": str(day)}

    def bound(self, statement: Statement) -> Statement:
        """Return a statement over these relations with those of their parameters that it names."""
        named = set(re.findall(r"\$(\w+)", statement.sql))
        own = {name: value for name, value in self.parameters.items() if name in named}
        return replace(statement, parameters={**own, **statement.parameters})

    def table(self, asset: str) -> str:
        """Return the quoted name of an asset's table."""
        if self._is_view:
            return ".".join(map(sql_identifier, view_name(asset)))
        return sql_identifier(table_names([asset])[asset])

    def snapshot(self, asset: str, day: date | None = None) -> str:
        """Return the rows of one partition: the parameter's day, or another one."""
        if day is not None and day != self._day:
            self.parameters = {**self.parameters, (name := f"day_of_{view_name(asset)[1]}"): str(day)}
            return f"(SELECT * FROM {self.table(asset)} WHERE {self._is_day(name)})"
        return f"(SELECT * FROM {self.table(asset)} WHERE {self._is_day('day')})"

    def people(self) -> Relation:
        """Return the profiles of the day."""
        schema = self._project.lake.scan(PROFILES, str(self._day)).collect_schema()
        return Relation(self.snapshot(PROFILES), schema)

    def named(self, tables: Iterable[str]) -> dict[str, Relation]:
        """Return the rows of events by their names, as :meth:`events` does."""
        return {table: self.events(table, event_schema(self._project, table)) for table in tables}

    def accounts(self) -> tuple[Relation, str, str] | None:
        """Return the accounts of the day with their key and the trait of people that holds it; None without any."""
        accounts = self._project.settings.accounts
        if accounts is None:
            return None
        asset = warehouse_asset(accounts.table)
        newest = self._project.lake.newest_partition(asset, self._day)
        if newest is None:
            return None
        schema = self._project.lake.scan(asset, str(newest)).collect_schema()
        return Relation(self.snapshot(asset, newest), schema), accounts.key, accounts.member_of

    def events(self, table: str, schema: pl.Schema) -> Relation:
        """Return the rows of an event table with the profile that each is of today; rows of nobody are left out.

        Raises SettingsError for messages whose people SQL cannot tell.
        """
        renamed = set_apart(schema, _OWN)
        columns = pl.Schema({renamed.get(name, name): dtype for name, dtype in schema.items()})
        columns["profile_id"] = pl.String()
        if is_signal(table):
            return Relation(self._firings(table, schema), pl.Schema({**schema, "profile_id": pl.String()}))
        if is_inbox_table(table):
            return Relation(self._messages(table, schema), columns)
        if is_model(table):
            return Relation(self._model(table, schema), columns)
        users = (
            f"SELECT CAST(identifier AS BIGINT) AS user_id, profile_id FROM {self.snapshot(GRAPH)} AS g "
            f"WHERE identifier_type = {sql_literal(HEAP_USER_ID)} AND NOT shared AND profile_id IS NOT NULL"
        )
        own = f" WHERE {OWN_MARK} IS NULL OR {OWN_MARK} <> {sql_literal(OWN_VALUE)}" if OWN_MARK in schema else ""
        rows = (
            f"(SELECT {self._columns(schema)}, u.profile_id FROM {self.table(heap_asset(table))} AS t "
            f"JOIN ({users}) AS u ON u.user_id = t.user_id{own})"
        )
        return Relation(rows, columns)

    def people_before(self, before: date, changed: Sequence[str]) -> Relation:
        """Return the profiles of an earlier day under today's ids: one row for each that became one.

        `changed`: the days since of which changes of ids are known, in order.
        """
        schema = self._project.lake.scan(PROFILES, str(before)).collect_schema()
        rows, columns = self.snapshot(PROFILES, before), [name for name in schema if name != "profile_id"]
        for number, day in enumerate(changed):
            self.parameters = {**self.parameters, (name := f"changes_{number + 1}"): day}
            pairs = (
                f"SELECT old_profile_id, new_profile_id FROM {self.table(CHANGES)} WHERE {self._is_day(name)} "
                "AND old_profile_id IS NOT NULL AND new_profile_id IS NOT NULL"
            )
            selected = "".join(f", p.{sql_identifier(column)}" for column in columns)
            rows = (
                f"(SELECT COALESCE(c.new_profile_id, p.profile_id) AS profile_id{selected} FROM {rows} AS p "
                f"LEFT JOIN ({pairs}) AS c ON c.old_profile_id = p.profile_id)"
            )
        return Relation(rows, schema)

    def _firings(self, asset: str, schema: pl.Schema) -> str:
        """Return what a signal fired before the day, under today's profile ids."""
        owners = (
            f"SELECT identifier_type, identifier, profile_id FROM {self.snapshot(GRAPH)} AS g "
            "WHERE NOT shared AND profile_id IS NOT NULL"
        )
        columns = "".join(f", s.{sql_identifier(name)}" for name in schema if name not in ("profile_id", "event_id"))
        return (
            f"(SELECT COALESCE(o.profile_id, s.profile_id) AS profile_id, CAST(NULL AS BIGINT) AS event_id{columns} "
            f"FROM {self.table(asset)} AS s LEFT JOIN ({owners}) AS o "
            "ON o.identifier_type = s.identifier_type AND o.identifier = s.identifier "
            f"WHERE s.status = {sql_literal(FIRED)} AND {self._is_before()})"
        )

    def _messages(self, table: str, schema: pl.Schema) -> str:
        """Return messages with their people: by the strongest of their identifiers that somebody has."""
        joins, owner = self._owner(table, self._project.event_sources[event_asset(table)])
        columns = self._columns(schema, "event_id")
        own = f"(t.{OWN_MARK} IS NULL OR t.{OWN_MARK} <> {sql_literal(OWN_VALUE)})"
        column, event = name_of_messages(table)
        where = f"{owner} IS NOT NULL AND {own}" + (f" AND t.{column} = {sql_literal(event)}" if event else "")
        return (
            f"(SELECT {columns}, CAST(NULL AS BIGINT) AS event_id, {owner} AS profile_id "
            f"FROM {self.table(event_asset(table))} AS t{joins} WHERE {where})"
        )

    def _model(self, table: str, schema: pl.Schema) -> str:
        """Return the rows of a model as events, with their people, as the model stood on its newest day."""
        joins, owner = self._owner(table, self._project.snapshot_sources[table])
        moment = f"t.{sql_identifier(self._project.settings.models[table.removeprefix(MODELS)].created_at or '')}"
        columns = self._columns(schema, "event_id", "time")
        rows = self.snapshot(table, self._project.lake.newest_partition(table, self._day))
        return (
            f"(SELECT {columns}, CAST({moment} AS TIMESTAMPTZ) AS time, CAST(NULL AS BIGINT) AS event_id, "
            f"{owner} AS profile_id FROM {rows} AS t{joins} WHERE {owner} IS NOT NULL AND {moment} IS NOT NULL)"
        )

    def _columns(self, schema: pl.Schema, *without: str) -> str:
        """Return the columns of the rows `t`, those that are called like ours under other names."""
        renamed, shown = set_apart(schema, _OWN), set_apart(schema, _OF_VIEWS) if self._is_view else {}
        return ", ".join(
            f"t.{sql_identifier(shown.get(name, name))} AS {sql_identifier(renamed.get(name, name))}"
            for name in schema
            if name not in without
        )

    def _owner(self, table: str, source: SourceTable) -> tuple[str, str]:
        """Return the joins that tell whose a row is, by the strongest of its identifiers that somebody has, and whose.

        Raises SettingsError: SQL cannot read an identifier as the engine does.
        """
        rules = self._project.rules
        normalisers = {rule.type: rule.normaliser for rule in rules.identifiers}
        joins, profiles = "", []
        for number, mapping in enumerate(sorted(source.mappings, key=lambda one: rules.types.index(one.type))):
            if len(mapping.columns) > 1 or normalisers[mapping.type] not in ("none", "strip"):
                raise SettingsError(
                    f"{table}: SQL cannot tell whose a row is by {mapping.type!r}, which is "
                    f"{'of several columns' if len(mapping.columns) > 1 else 'normalised'}"
                )
            graph = (
                f"SELECT identifier, profile_id FROM {self.snapshot(GRAPH)} AS g "
                f"WHERE identifier_type = {sql_literal(mapping.type)} AND NOT shared AND profile_id IS NOT NULL"
            )
            column = f"TRIM(CAST(t.{sql_identifier(mapping.columns[0])} AS VARCHAR))"
            joins += f" LEFT JOIN ({graph}) AS u{number} ON u{number}.identifier = {column}"
            profiles.append(f"u{number}.profile_id")
        return joins, f"COALESCE({', '.join(profiles)}, NULL)"

    def days_between(self, first: str, last: str) -> str:
        """Return the condition that a row is of a day between two parameters, both included."""
        if self._is_view:
            return f"partition_key >= ${first} AND partition_key <= ${last}"
        return f"{DAY_COLUMN} >= CAST(${first} AS DATE) AND {DAY_COLUMN} <= CAST(${last} AS DATE)"

    def _is_before(self) -> str:
        return "s.partition_key < $day" if self._is_view else f"s.{DAY_COLUMN} < CAST($day AS DATE)"

    def _is_day(self, parameter: str) -> str:
        return f"partition_key = ${parameter}" if self._is_view else f"{DAY_COLUMN} = CAST(${parameter} AS DATE)"
