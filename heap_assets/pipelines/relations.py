"""The lake's tables as statements read them: views of `heap-assets sql` in DuckDB, published tables in BigQuery."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import polars as pl

from heap_assets.analytics import Dialect, Relation
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID, SourceTable
from heap_assets.pipelines.events import name_of_messages
from heap_assets.project import Project
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE
from heap_assets.sources.warehouse import DAY_COLUMN, table_names
from heap_assets.storage import view_name
from heap_assets.tables import GRAPH, MODELS, PROFILES, event_asset, heap_asset, is_inbox_table, is_model
from heap_assets.values import sql_identifier, sql_literal


class Relations:
    """Names of tables in one dialect, as of one day, which is the parameter `day` of every statement.

    `parameters` are those that the relations name themselves.
    """

    def __init__(self, project: Project, day: date, dialect: Dialect = "lake") -> None:
        self._project, self._day, self._dialect = project, day, dialect
        self._is_view = dialect == "lake"
        self.parameters: Mapping[str, Any] = {"day": str(day)}

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

    def events(self, table: str, schema: pl.Schema) -> Relation:
        """Return the rows of an event table with the profile that each is of today; rows of nobody are left out.

        Raises SettingsError for messages whose people SQL cannot tell.
        """
        columns = pl.Schema({**schema, "profile_id": pl.String()})
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
            f"(SELECT t.*, u.profile_id FROM {self.table(heap_asset(table))} AS t "
            f"JOIN ({users}) AS u ON u.user_id = t.user_id{own})"
        )
        return Relation(rows, columns)

    def _messages(self, table: str, schema: pl.Schema) -> str:
        """Return messages with their people: by the strongest of their identifiers that somebody has."""
        joins, owner = self._owner(table, self._project.event_sources[event_asset(table)])
        columns = ", ".join(f"t.{sql_identifier(name)}" for name in schema if name != "event_id")
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
        columns = ", ".join(f"t.{sql_identifier(name)}" for name in schema if name not in ("event_id", "time"))
        rows = self.snapshot(table, self._project.lake.newest_partition(table, self._day))
        return (
            f"(SELECT {columns}, CAST({moment} AS TIMESTAMPTZ) AS time, CAST(NULL AS BIGINT) AS event_id, "
            f"{owner} AS profile_id FROM {rows} AS t{joins} WHERE {owner} IS NOT NULL AND {moment} IS NOT NULL)"
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

    def _is_day(self, parameter: str) -> str:
        return f"partition_key = ${parameter}" if self._is_view else f"{DAY_COLUMN} = CAST(${parameter} AS DATE)"
