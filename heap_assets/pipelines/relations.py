"""The lake's tables as statements read them: views of `heap-assets sql` in DuckDB, published tables in BigQuery."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import polars as pl

from heap_assets.analytics import Dialect, Relation
from heap_assets.identity import HEAP_USER_ID
from heap_assets.project import Project
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE
from heap_assets.sources.warehouse import DAY_COLUMN, table_names
from heap_assets.storage import view_name
from heap_assets.tables import GRAPH, PROFILES, heap_asset
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
        """Return the rows of an event table with the profile that each is of today; rows of nobody are left out."""
        users = (
            f"SELECT CAST(identifier AS BIGINT) AS user_id, profile_id FROM {self.snapshot(GRAPH)} AS g "
            f"WHERE identifier_type = {sql_literal(HEAP_USER_ID)} AND NOT shared AND profile_id IS NOT NULL"
        )
        own = f" WHERE {OWN_MARK} IS NULL OR {OWN_MARK} <> {sql_literal(OWN_VALUE)}" if OWN_MARK in schema else ""
        rows = (
            f"(SELECT t.*, u.profile_id FROM {self.table(heap_asset(table))} AS t "
            f"JOIN ({users}) AS u ON u.user_id = t.user_id{own})"
        )
        return Relation(rows, pl.Schema({**schema, "profile_id": pl.String()}))

    def days_between(self, first: str, last: str) -> str:
        """Return the condition that a row is of a day between two parameters, both included."""
        if self._is_view:
            return f"partition_key >= ${first} AND partition_key <= ${last}"
        return f"{DAY_COLUMN} >= CAST(${first} AS DATE) AND {DAY_COLUMN} <= CAST(${last} AS DATE)"

    def _is_day(self, parameter: str) -> str:
        return f"partition_key = ${parameter}" if self._is_view else f"{DAY_COLUMN} = CAST(${parameter} AS DATE)"
