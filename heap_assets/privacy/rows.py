"""Rows of people in a table: whose a row is, which cells of others' rows name them, and the table without both.

The first identifier that a row has, in the order of its table (a Heap table: `user_id`; a warehouse table: its key,
then the strongest type), says whose it is. Rows of the people go. In rows of others, cells that name one of them are
blanked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import polars as pl

from heap_assets.identity import MappedColumn, Rules, RulesError, SourceTable, normalised
from heap_assets.privacy.people import People
from heap_assets.privacy.texts import Texts, has_text
from heap_assets.values import json_or_exact

PAIRS: Final = (
    ("identifier_type", "identifier"),
    ("type_a", "value_a"),
    ("type_b", "value_b"),
)
PROFILE_COLUMNS: Final = ("profile_id", "old_profile_id", "new_profile_id", "profile_a", "profile_b")
"""Columns of our own tables that name people: pairs of type and value, and ids of the day's profiles."""

CONTENT: Final = "content"
"""The column of rows that were set aside: the row as JSON."""


@dataclass(frozen=True)
class Shape:
    """How the rows of a table name people.

    Attributes
    ----------
    table
        Its mapping of columns to identifier types; None of our own tables, whose columns say it by their names.
    owner
        Column that says whose a row is before all others.
    profiles
        Request by profile id, of the table's day.
    any_names
        A row that names a person anywhere goes.
    set_aside
        The rows are JSON in :data:`CONTENT`; one that names a person goes.
    """

    table: SourceTable | None = None
    owner: str | None = None
    profiles: Mapping[str, str] = field(default_factory=dict)
    any_names: bool = False
    set_aside: bool = False


@dataclass(frozen=True)
class Cell:
    """An identifier of a row: `hit`, whether it is one of the people's; `request`, whose; `blanks`, its columns."""

    present: pl.Expr
    hit: pl.Expr
    request: pl.Expr
    blanks: tuple[str, ...]
    removes: bool = False
    """A hit removes the row, whatever else it has."""


@dataclass(frozen=True)
class Erased:
    """A table without people: its rows, and how many rows and cells went, by request."""

    frame: pl.LazyFrame
    rows: Mapping[str, int]
    cells: Mapping[str, int]


class Eraser:
    """Finds and removes the rows of people; made once for all tables."""

    def __init__(self, people: People, rules: Rules) -> None:
        self.rules = rules
        self.texts = Texts.of({value: request for (_, value), request in people.identifiers.items()})
        self._by_type: dict[str, dict[str, str]] = {}
        self._of_numbers: dict[tuple[str, str], pl.Series] = {}
        for (kind, value), request in people.identifiers.items():
            self._by_type.setdefault(kind, {})[value] = request

    def touches(self, rows: pl.LazyFrame, shape: Shape, *, small: bool = False) -> bool:
        """Return whether any row or cell may have to go; every column that may name people is read once.

        `small`: the rows fit into memory: patterns are then made ready once for all of them.
        """
        marked, cells = self._marked(rows, shape)
        texts = [self._may_hold(n, t) for n, t in rows.collect_schema().items() if self.texts.requests and has_text(t)]
        for tests in ([cell.hit for cell in cells], texts):  # ids first: they are read much faster than text
            hit = marked.select(pl.any_horizontal(tests).any()) if tests else None
            if hit is not None and hit.collect(engine="in-memory" if small else "streaming").item():
                return True
        return False

    def erased(self, rows: pl.LazyFrame, shape: Shape) -> Erased:
        """Return the table without the people, columns and their order as they are."""
        schema = rows.collect_schema()
        marked, cells = self._marked(rows, shape)
        texts = [name for name, dtype in schema.items() if has_text(dtype)] if self.texts.requests else []
        owned_rows = _is_theirs(cells)
        if shape.set_aside:
            owned_rows = owned_rows | (self._first_request(shape) != "")
        requests = [*(cell.request for cell in cells), self._first_request(shape), pl.lit("")]
        # of literals alone, `select` would make a row of none
        counted = marked.filter(owned_rows).with_columns(request=pl.coalesce(*requests)).select("request")
        removed = counted.group_by("request").len().collect(engine="streaming")
        rows_by_request = {str(request): int(count) for request, count in removed.sort("request").iter_rows()}
        others_rows = marked.filter(~owned_rows)
        named = pl.any_horizontal(
            False, *(c.hit for c in cells if c.blanks), *(self._may_hold(n, schema[n]) for n in texts)
        )
        naming = others_rows.filter(named).collect(engine="streaming")
        if naming.is_empty():
            return Erased(others_rows.select(*schema), rows_by_request, {})
        cell_counts = self._cells(naming.lazy(), cells, texts, schema)
        blanked = others_rows.with_columns(_without_hits(cells, schema)).with_columns(
            self._without_texts(name, schema[name]) for name in texts
        )
        return Erased(blanked.select(*schema), rows_by_request, cell_counts)

    def owned(self, rows: pl.LazyFrame, shape: Shape) -> pl.LazyFrame:
        """Return the rows of the people, in the columns of the table."""
        marked, cells = self._marked(rows, shape)
        return marked.filter(_is_theirs(cells)).select(*rows.collect_schema())

    def _marked(self, rows: pl.LazyFrame, shape: Shape) -> tuple[pl.LazyFrame, list[Cell]]:
        schema = rows.collect_schema()
        if shape.set_aside:
            return rows, list(self._of_content(shape.table)) if shape.table else []
        if shape.table is None:
            return rows, [*self._of_pairs(schema), *self._of_profiles(schema, shape.profiles)]
        columns = mapped_columns(shape.table, self.rules, schema, shape.owner)
        # an identifier of a type that none of the people has still says that the row is somebody else's
        cells = [self._of_column(column, schema) for column in columns]
        if shape.any_names:
            cells = [replace(cell, blanks=(), removes=True) for cell in cells]
        return rows.with_columns(column.raw for column in columns), cells

    def _of_column(self, column: MappedColumn, schema: pl.Schema) -> Cell:
        requests = self._by_type.get(column.type, {})
        blanks = tuple(dict.fromkeys(path.split(".")[0].split("[")[0] for path in column.label.split("+")))
        dtype = schema.get(column.label)
        name = pl.col(column.name)
        if column.many:
            hit = name.list.eval(_is_in(column.value, requests)).list.any()
            request = name.list.eval(_request(column.value, requests)).list.drop_nulls().list.first()
            return Cell(name.list.len() > 0, hit.fill_null(value=False), request, blanks)
        if dtype is not None and dtype.is_integer():
            numbers = self._numbers(column.type, dtype)
            hit = name.is_in(pl.lit(numbers.implode())) if len(numbers) else pl.lit(value=False)
            return Cell(
                name.is_not_null(), hit.fill_null(value=False), _request(name.cast(pl.String), requests), blanks
            )
        return Cell(name.is_not_null(), _is_in(column.value, requests), _request(column.value, requests), blanks)

    def _numbers(self, kind: str, dtype: pl.DataType) -> pl.Series:
        """Return the values of a type that a column of whole numbers can hold; found once for each kind of column."""
        key = kind, str(dtype)
        if key not in self._of_numbers:
            texts = pl.Series("v", list(self._by_type.get(kind, {})), pl.String)
            numbers = texts.cast(dtype, strict=False)
            self._of_numbers[key] = numbers.filter((numbers.cast(pl.String) == texts).fill_null(value=False))
        return self._of_numbers[key]

    def _of_pairs(self, schema: pl.Schema) -> Iterator[Cell]:
        for kind, value in PAIRS:
            if kind in schema and value in schema:
                for type_name, requests in self._by_type.items():
                    of_type = pl.col(kind) == type_name
                    hit = (of_type & _is_in(pl.col(value), requests)).fill_null(value=False)
                    request = pl.when(hit).then(_request(pl.col(value), requests))
                    yield Cell(hit, hit, request, (), removes=True)

    def _of_profiles(self, schema: pl.Schema, profiles: Mapping[str, str]) -> Iterator[Cell]:
        for name in PROFILE_COLUMNS if profiles and "identifier" not in schema else ():
            if schema.get(name) == pl.String:
                hit = _is_in(pl.col(name), profiles)
                yield Cell(hit, hit, _request(pl.col(name), profiles), (), removes=True)

    def _of_content(self, table: SourceTable) -> Iterator[Cell]:
        for mapping in table.mappings:
            requests = self._by_type.get(mapping.type)
            if requests and len(mapping.columns) == 1:
                text = pl.col(CONTENT).str.json_path_match(f"$['{mapping.columns[0]}']")
                value = normalised(text, self.rules[mapping.type].normaliser)
                yield Cell(text.is_not_null(), _is_in(value, requests), _request(value, requests), (), removes=True)

    def _may_hold(self, name: str, dtype: pl.DataType) -> pl.Expr:
        if not self.texts.requests or not has_text(dtype):
            return pl.lit(value=False)
        if dtype == pl.String:
            return self.texts.in_column(pl.col(name))
        text = json_or_exact(pl.col(name), dtype) if dtype.is_nested() else pl.col(name).cast(pl.String)
        return self.texts.in_column(text)

    def _first_request(self, shape: Shape) -> pl.Expr:
        """Return whose a row is that was set aside and that only its text tells."""

        def of_text(texts: pl.Series) -> pl.Series:
            may_hold = texts.to_frame("t").select(self.texts.in_column(pl.col("t"))).to_series()
            owners = [
                next(iter(self.texts.blanked(text)[1]), "") if held else ""
                for text, held in zip(texts.to_list(), may_hold.to_list(), strict=True)
            ]
            return pl.Series(texts.name, owners, pl.String)

        if not shape.set_aside:
            return pl.lit(None, pl.String)
        return pl.col(CONTENT).map_batches(of_text, return_dtype=pl.String, is_elementwise=True)

    def _without_texts(self, name: str, dtype: pl.DataType) -> pl.Expr:
        hit = self._may_hold(name, dtype)

        def blanked(parts: pl.Series) -> pl.Series:
            values, hits = parts.struct.field("v"), parts.struct.field("h").arg_true()
            if not len(hits):
                return values
            changed = [self.texts.blanked_value(value)[0] for value in values.gather(hits).to_list()]
            if dtype.is_nested():
                every = values.to_list()
                for index, value in zip(hits, changed, strict=True):
                    every[index] = value
                return pl.Series(name, every, dtype)
            if dtype != pl.String:  # a category that is written anew would be another one
                changed = [None] * len(changed)
            return values.scatter(hits, pl.Series(changed, dtype=dtype))

        both = pl.struct(pl.col(name).alias("v"), hit.alias("h"))
        return both.map_batches(blanked, return_dtype=dtype, is_elementwise=True).alias(name)

    def _cells(
        self, rows: pl.LazyFrame, cells: Sequence[Cell], texts: Sequence[str], schema: pl.Schema
    ) -> dict[str, int]:
        counts: Counter[str] = Counter()
        blanking = [cell for cell in cells if cell.blanks]
        roots = {name for cell in blanking for name in cell.blanks}
        marks = [pl.when(cell.hit).then(cell.request).alias(f"r{number}") for number, cell in enumerate(blanking)]
        columns = [pl.col(name) for name in texts if name not in roots]
        named_rows = rows.select(*marks, *columns).collect(engine="streaming")
        for number in range(len(blanking)):
            counts.update(named_rows[f"r{number}"].drop_nulls().to_list())
        for name in (name for name in texts if name not in roots):
            hits = named_rows.select(pl.col(name).filter(self._may_hold(name, schema[name])))[name]
            for value in hits.to_list():
                counts.update(self.texts.blanked_value(value)[1])
        return dict(sorted(counts.items()))


def _is_theirs(cells: Sequence[Cell]) -> pl.Expr:
    removing = [cell.hit for cell in cells if cell.removes]
    owning = [pl.when(cell.present).then(cell.hit) for cell in cells if not cell.removes]
    owned = pl.coalesce(*owning, pl.lit(value=False)) if owning else pl.lit(value=False)
    return pl.any_horizontal(owned, *removing).fill_null(value=False)


def _without_hits(cells: Sequence[Cell], schema: pl.Schema) -> list[pl.Expr]:
    hits: dict[str, list[pl.Expr]] = {}
    for cell in cells:
        for name in cell.blanks:
            hits.setdefault(name, []).append(cell.hit)
    return [
        pl.when(~pl.any_horizontal(tests)).then(pl.col(name)).cast(schema[name]).alias(name)
        for name, tests in hits.items()
        if name in schema
    ]


def mapped_columns(table: SourceTable, rules: Rules, schema: pl.Schema, owner: str | None = None) -> list[MappedColumn]:
    """Return the mapped columns that the rows have, that of the owner first, then the strongest."""
    columns = []
    for number, mapping in enumerate(table.mappings):
        try:
            columns.append(MappedColumn.of(mapping, number, table, rules, schema))
        except RulesError:  # a day from before the table had the column
            continue
    return sorted(columns, key=lambda column: (column.label != owner, column.rank))


def _is_in(value: pl.Expr, requests: Mapping[Any, str]) -> pl.Expr:
    if not requests:
        return pl.lit(value=False)
    return value.is_in(pl.lit(pl.Series(list(requests), dtype=pl.String).implode())).fill_null(value=False)


def _request(value: pl.Expr, requests: Mapping[Any, str]) -> pl.Expr:
    if not requests:
        return pl.lit(None, pl.String)
    return value.replace_strict(list(requests), list(requests.values()), default=None, return_dtype=pl.String)
