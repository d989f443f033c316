"""Questions in SQL to a system that answers them with rows."""

from __future__ import annotations

import json
from typing import Any, Protocol
from urllib.parse import urlencode

import polars as pl

from heap_assets.config import SQL_MARK, HeapQuerySettings
from heap_assets.errors import SourceError
from heap_assets.heap_api.calls import JsonApi, member
from heap_assets.http_client import AllowedHosts

_SECTION = "heap_query"


class QueryClient(Protocol):
    """Answers a statement."""

    def query(self, sql: str) -> pl.DataFrame:
        """Return the rows that a statement asks for.

        Raises HeapAssetsError: the system cannot be reached, or refuses the statement.
        """


class HeapQuery:
    """Heap's own query API, as the settings spell it."""

    def __init__(self, settings: HeapQuerySettings, allowed: AllowedHosts) -> None:
        self._settings, self._allowed = settings, allowed

    def query(self, sql: str) -> pl.DataFrame:
        """Return the rows of one answer; nested values are JSON text, of columns with several types all are text.

        Raises
        ------
        SourceError
            If there is no answer, or one without rows where the settings expect them.
        """
        settings = self._settings
        body = _filled(settings.body, sql)
        header = settings.authorization.replace("{token}", settings.token.get_secret_value())
        with JsonApi(_SECTION, header, self._allowed, settings.timeout_seconds) as api:
            if settings.method == "GET":
                plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
                document = api.call("GET", f"{settings.url}?{urlencode(plain)}")
            else:
                document = api.call("POST", settings.url, body)
        rows = member(document, settings.rows, f"{_SECTION}.rows")
        names = member(document, settings.columns, f"{_SECTION}.columns") if settings.columns else None
        return rows_of_answer(rows, names)


def rows_of_answer(rows: Any, names: Any = None) -> pl.DataFrame:
    """Return rows that are objects, or lists beside the names of their columns, as a frame.

    >>> rows_of_answer([[1, "a"], [2, {"b": 1}]], ["n", {"name": "v"}]).to_dicts()
    [{'n': 1, 'v': 'a'}, {'n': 2, 'v': '{"b": 1}'}]
    """
    if not isinstance(rows, list):
        raise SourceError(f"{_SECTION}.rows leads to {type(rows).__name__}, not to a list of rows")
    if names is not None:
        columns = [str(name.get("name")) if isinstance(name, dict) else str(name) for name in names]
        if any(not isinstance(row, list) or len(row) != len(columns) for row in rows):
            raise SourceError(f"{_SECTION}.columns names {len(columns)} columns; not every row is a list of as many")
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
    else:
        if any(not isinstance(row, dict) for row in rows):
            raise SourceError(f"rows of {_SECTION} are not objects: name their columns by {_SECTION}.columns")
        objects = rows
        columns = list(dict.fromkeys(name for row in objects for name in row))
    return pl.DataFrame([_column(name, [row.get(name) for row in objects]) for name in columns])


def _column(name: str, values: list[Any]) -> pl.Series:
    plain = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds == {int, float}:
        kinds, plain = {float}, [None if value is None else float(value) for value in plain]
    too_large = any(isinstance(value, int) and abs(value) >> 63 for value in plain)
    if len(kinds) > 1 or too_large:
        texts = [value if isinstance(value, str) or value is None else json.dumps(value) for value in plain]
        return pl.Series(name, texts, pl.String())
    return pl.Series(name, plain, None if kinds else pl.String())


def _filled(value: Any, sql: str) -> Any:
    if isinstance(value, str):
        return value.replace(SQL_MARK, sql)
    if isinstance(value, dict):
        return {name: _filled(one, sql) for name, one in value.items()}
    return [_filled(one, sql) for one in value] if isinstance(value, list) else value
