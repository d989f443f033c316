"""Rows of people in a table: whose a row is, which cells of others' rows name them, and the table without both.

The first identifier that a row has, in the order of its table (a Heap table: `user_id`; a warehouse table: its key,
then the strongest type), says whose it is. Rows of the people go. In rows of others, cells that name one of them are
blanked.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import polars as pl

from heap_assets.identity import MappedColumn, Rules, RulesError, SourceTable, normalised
from heap_assets.privacy.dictionaries import decoded, values_of, with_dictionaries
from heap_assets.privacy.people import People
from heap_assets.privacy.texts import Texts, has_text
from heap_assets.values import PRIVATE, json_or_exact

PAIRS: Final = (
    ("identifier_type", "identifier"),
    ("type_a", "value_a"),
    ("type_b", "value_b"),
)
PROFILE_COLUMNS: Final = ("profile_id", "old_profile_id", "new_profile_id", "profile_a", "profile_b")
"""Columns of our own tables that name people: pairs of type and value, and ids of the day's profiles."""

Engine = Literal["in-memory", "streaming"]

_IS_THEIRS: Final = f"{PRIVATE}is_theirs"
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
    numbers: tuple[str, pl.Series] | None = None
    """Of a column of whole numbers: its name, and those of the people."""

    @property
    def is_never(self) -> bool:
        """Whether none of the people has an identifier of its type."""
        return self.hit.meta.is_literal()


@dataclass(frozen=True)
class Erased:
    """A table without people: its rows, and how many rows and cells went, by request.

    `is_clean`: the rows were searched as they stand in `frame`, and hold nothing of the people.
    """

    frame: pl.LazyFrame
    rows: Mapping[str, int]
    cells: Mapping[str, int]
    is_clean: bool = False


class Eraser:
    """Finds and removes the rows of people; made once for all tables."""

    def __init__(self, people: People, rules: Rules) -> None:
        self.rules = rules
        self.texts = Texts.of({value: request for (_, value), request in people.identifiers.items()})
        self._by_type: dict[str, dict[str, str]] = {}
        self._values: dict[str, pl.Series] = {}
        self._of_numbers: dict[tuple[str, str], pl.Series] = {}
        self._parts: tuple[pl.Schema, Shape, tuple[list[pl.Expr], list[Cell]]] | None = None
        for (kind, value), request in people.identifiers.items():
            self._by_type.setdefault(kind, {})[value] = request

    def touches(self, rows: pl.LazyFrame, shape: Shape) -> bool:
        """Return whether any row or cell may have to go; every column that may name people is read once."""
        raws, cells = self._cells_of(rows.collect_schema(), shape)
        texts = [_may_hold(self.texts, name, dtype) for name, dtype in self._text_columns(rows.collect_schema())]
        for tests in ([cell.hit for cell in cells if not cell.is_never], texts):  # ids first: they are read much faster
            hit = rows.with_columns(raws).select(pl.any_horizontal(tests).any()) if tests else None
            if hit is not None and hit.collect(engine="streaming").item():
                return True
        return False

    def file_touches(self, content: bytes, shape: Shape) -> bool:
        """Return :meth:`touches` of a Parquet file; of a column that has a dictionary only that is searched."""
        file, schema = with_dictionaries(content), pl.Schema(pl.read_parquet_schema(io.BytesIO(content)))
        raws, cells = self._cells_of(schema, shape)
        numbers = [cell.numbers for cell in cells if cell.numbers is not None]
        hits = [cell.hit for cell in cells if cell.numbers is None and not cell.is_never]
        raws = _used(raws, hits)
        texts = self._text_columns(schema)
        plain = [name for name, dtype in texts if dtype == pl.String]
        nested = {name: dtype for name, dtype in texts if dtype != pl.String}
        needed = {name for expr in (*hits, *raws) for name in expr.meta.root_names() if name in schema}
        tests = [*hits, *(_may_hold(self.texts, name, dtype) for name, dtype in nested.items())]
        for group in range(file.num_row_groups):
            # first: few bytes, and most hits
            ids = file.read_row_group(group, [name for name, _ in numbers], use_threads=False)
            if any(pl.Series(pl.from_arrow(ids[name])).is_in(of.implode()).any() for name, of in numbers):
                return True
            columns = file.read_row_group(group, list({*plain, *needed, *nested}), use_threads=False)
            if tests:
                frame = pl.DataFrame(pl.from_arrow(decoded(columns.select(list({*needed, *nested})))))
                if frame.with_columns(raws).select(pl.any_horizontal(tests).any()).item():
                    return True
            if plain and self.texts.may_be_in([values_of(chunk) for name in plain for chunk in columns[name].chunks]):
                return True
        return False

    def _text_columns(self, schema: pl.Schema) -> list[tuple[str, pl.DataType]]:
        return [(name, dtype) for name, dtype in schema.items() if has_text(dtype)] if self.texts.requests else []

    def erased(self, rows: pl.LazyFrame | pl.DataFrame, shape: Shape) -> Erased:
        """Return the table without the people, columns and their order as they are; a lazy frame is streamed."""
        small = isinstance(rows, pl.DataFrame)
        schema, engine = rows.collect_schema(), _engine(small=small)
        raws, cells = self._cells_of(schema, shape)
        marked, owned_rows = rows.with_columns(raws), _is_theirs(cells)
        if shape.set_aside:
            owned_rows = owned_rows | (self._first_request(shape) != "")
        if small:  # once for what follows
            marked, owned_rows = marked.with_columns(owned_rows.alias(_IS_THEIRS)), pl.col(_IS_THEIRS)
        requests = [*(cell.request for cell in cells), self._first_request(shape), pl.lit("")]
        # as a column of the rows: of literals alone, `select` would make a row of none
        own = marked.filter(owned_rows).with_columns(request=pl.coalesce(*requests))
        rows_by_request = _counted(own.select("request"))
        others_rows = marked.filter(~owned_rows) if rows_by_request else marked
        names = [name for name, _ in self._text_columns(schema)]
        texts = self.texts
        if isinstance(others_rows, pl.DataFrame):
            texts = texts.within([as_text(others_rows, name, schema[name]) for name in names])
        others_rows = others_rows.lazy()
        names = names if texts.requests else []
        tests = [cell.hit for cell in _left_to_others(cells) if cell.blanks and not cell.is_never]
        tests += [_may_hold(texts, name, schema[name]) for name in names]
        naming = others_rows.filter(pl.any_horizontal(tests)).collect(engine=engine) if tests else None
        if naming is None or naming.is_empty():
            return Erased(others_rows.select(*schema), rows_by_request, {}, is_clean=small)
        cell_counts = self._cells(naming, cells, texts if names else Texts({}), schema)
        blanked = others_rows.with_columns(_without_hits(cells, schema)).with_columns(
            _without_texts(texts, name, schema[name]) for name in names
        )
        return Erased(blanked.select(*schema), rows_by_request, cell_counts)

    def owned(self, rows: pl.LazyFrame, shape: Shape) -> pl.LazyFrame:
        """Return the rows of the people, in the columns of the table."""
        schema = rows.collect_schema()
        raws, cells = self._cells_of(schema, shape)
        return rows.with_columns(raws).filter(_is_theirs(cells)).select(*schema)

    def _cells_of(self, schema: pl.Schema, shape: Shape) -> tuple[list[pl.Expr], list[Cell]]:
        """Return the identifiers of a row, and the columns that their tests need besides those of the table."""
        last = self._parts  # the days of a table come one after the other
        if last is None or last[0] != schema or last[1] != shape:
            self._parts = last = (schema, shape, self._new_cells_of(schema, shape))
        return last[2]

    def _new_cells_of(self, schema: pl.Schema, shape: Shape) -> tuple[list[pl.Expr], list[Cell]]:
        if shape.set_aside:
            return [], list(self._of_content(shape.table)) if shape.table else []
        if shape.table is None:
            return [], [*self._of_pairs(schema), *self._of_profiles(schema, shape.profiles)]
        columns = mapped_columns(shape.table, self.rules, schema, shape.owner)
        # an identifier of a type that none of the people has still says that the row is somebody else's
        cells = [self._of_column(column, schema) for column in columns]
        if shape.any_names:
            cells = [replace(cell, blanks=(), removes=True) for cell in cells]
        return [column.raw for column in columns], cells

    def _of_column(self, column: MappedColumn, schema: pl.Schema) -> Cell:
        requests = self._by_type.get(column.type, {})
        blanks = tuple(dict.fromkeys(path.split(".")[0].split("[")[0] for path in column.label.split("+")))
        dtype = schema.get(column.label)
        name = pl.col(column.name)
        if column.many:
            hit = (
                name.list.eval(_is_in(column.value, self._texts_of(column.type))).list.any()
                if requests
                else pl.lit(value=False)
            )
            request = name.list.eval(_request(column.value, requests)).list.drop_nulls().list.first()
            return Cell(name.list.len() > 0, hit.fill_null(value=False), request, blanks)
        if dtype is not None and dtype.is_integer():
            numbers = self._numbers(column.type, dtype)
            if numbers.is_empty():
                return Cell(name.is_not_null(), pl.lit(value=False), _request(name.cast(pl.String), {}), blanks)
            hit = name.is_in(pl.lit(numbers.implode())).fill_null(value=False)
            request = _request(name.cast(pl.String), requests)
            return Cell(name.is_not_null(), hit, request, blanks, numbers=(column.label, numbers))
        return Cell(
            name.is_not_null(),
            _is_in(column.value, self._texts_of(column.type)),
            _request(column.value, requests),
            blanks,
        )

    def _texts_of(self, kind: str) -> pl.Series:
        if kind not in self._values:
            self._values[kind] = pl.Series(list(self._by_type.get(kind, {})), dtype=pl.String)
        return self._values[kind]

    def _numbers(self, kind: str, dtype: pl.DataType) -> pl.Series:
        """Return the values of a type that a column of whole numbers can hold; found once for each kind of column."""
        key = kind, str(dtype)
        if key not in self._of_numbers:
            texts = self._texts_of(kind)
            numbers = texts.cast(dtype, strict=False)
            self._of_numbers[key] = numbers.filter((numbers.cast(pl.String) == texts).fill_null(value=False))
        return self._of_numbers[key]

    def _of_pairs(self, schema: pl.Schema) -> Iterator[Cell]:
        for kind, value in PAIRS:
            if kind in schema and value in schema:
                for type_name, requests in self._by_type.items():
                    of_type = pl.col(kind) == type_name
                    hit = (of_type & _is_in(pl.col(value), self._texts_of(type_name))).fill_null(value=False)
                    request = pl.when(hit).then(_request(pl.col(value), requests))
                    yield Cell(hit, hit, request, (), removes=True)

    def _of_profiles(self, schema: pl.Schema, profiles: Mapping[str, str]) -> Iterator[Cell]:
        for name in PROFILE_COLUMNS if profiles and "identifier" not in schema else ():
            if schema.get(name) == pl.String:
                hit = _is_in(pl.col(name), pl.Series(list(profiles), dtype=pl.String))
                yield Cell(hit, hit, _request(pl.col(name), profiles), (), removes=True)

    def _of_content(self, table: SourceTable) -> Iterator[Cell]:
        for mapping in table.mappings:
            requests = self._by_type.get(mapping.type)
            if requests and len(mapping.columns) == 1:
                text = pl.col(CONTENT).str.json_path_match(f"$['{mapping.columns[0]}']")
                value = normalised(text, self.rules[mapping.type].normaliser)
                yield Cell(
                    text.is_not_null(),
                    _is_in(value, self._texts_of(mapping.type)),
                    _request(value, requests),
                    (),
                    removes=True,
                )

    def _first_request(self, shape: Shape) -> pl.Expr:
        """Return whose a row is that was set aside and that only its text tells."""

        def of_text(texts: pl.Series) -> pl.Series:
            narrow = self.texts.within([texts])
            may_hold = texts.to_frame("t").with_columns(held=narrow.in_column(pl.col("t")))["held"]
            owners = [
                next(iter(narrow.blanked(text)[1]), "") if held else ""
                for text, held in zip(texts.to_list(), may_hold.to_list(), strict=True)
            ]
            return pl.Series(texts.name, owners, pl.String)

        if not shape.set_aside:
            return pl.lit(None, pl.String)
        return pl.col(CONTENT).map_batches(of_text, return_dtype=pl.String, is_elementwise=True)

    def _cells(self, rows: pl.DataFrame, cells: Sequence[Cell], texts: Texts, schema: pl.Schema) -> dict[str, int]:
        counts: Counter[str] = Counter()
        blanking = [cell for cell in cells if cell.blanks]
        roots = {name for cell in blanking for name in cell.blanks}
        for cell in blanking:
            marks = rows.with_columns(request=pl.when(cell.hit).then(cell.request))["request"]
            counts.update(marks.drop_nulls().to_list())
        for name, dtype in schema.items():
            if texts.requests and has_text(dtype) and name not in roots:
                hits = rows.select(pl.col(name).filter(_may_hold(texts, name, dtype)))[name]
                for value in hits.to_list():
                    counts.update(texts.blanked_value(value)[1])
        return dict(sorted(counts.items()))


def _counted(requests: pl.LazyFrame | pl.DataFrame) -> dict[str, int]:
    if isinstance(requests, pl.DataFrame):  # few: a query would take longer
        return dict(sorted(Counter(requests["request"].to_list()).items()))
    counted = requests.group_by("request").len().collect(engine="streaming").sort("request")
    return {str(request): int(count) for request, count in counted.iter_rows()}


def _engine(*, small: bool) -> Engine:
    return "in-memory" if small else "streaming"


def _used(raws: Sequence[pl.Expr], tests: Sequence[pl.Expr]) -> list[pl.Expr]:
    names = {name for test in tests for name in test.meta.root_names()}
    return [raw for raw in raws if raw.meta.output_name() in names]


def _expression(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return pl.col(name)
    return json_or_exact(pl.col(name), dtype) if dtype.is_nested() else pl.col(name).cast(pl.String)


def as_text(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Series:
    """Return a column as the text in which values are looked for: JSON of what is nested."""
    return frame[name] if dtype == pl.String else frame.select(_expression(name, dtype).alias(name)).to_series()


def _may_hold(texts: Texts, name: str, dtype: pl.DataType) -> pl.Expr:
    return texts.in_column(_expression(name, dtype))


def _without_texts(texts: Texts, name: str, dtype: pl.DataType) -> pl.Expr:
    hit = _may_hold(texts, name, dtype)

    def blanked(parts: pl.Series) -> pl.Series:
        values, hits = parts.struct.field("v"), parts.struct.field("h").arg_true()
        if not len(hits):
            return values
        changed = [texts.blanked_value(value)[0] for value in values.gather(hits).to_list()]
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


def _is_theirs(cells: Sequence[Cell]) -> pl.Expr:
    removing = [cell.hit for cell in cells if cell.removes]
    owning = [pl.when(cell.present).then(cell.hit) for cell in cells if not cell.removes]
    owned = pl.coalesce(*owning, pl.lit(value=False)) if owning else pl.lit(value=False)
    return pl.any_horizontal(owned, *removing).fill_null(value=False)


def _left_to_others(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Return the identifiers that may still be the people's in rows of others: the first of a row says whose it is."""
    first = next((number for number, cell in enumerate(cells) if not cell.removes), None)
    return [cell for number, cell in enumerate(cells) if number != first]


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


def _is_in(value: pl.Expr, texts: pl.Series) -> pl.Expr:
    return value.is_in(pl.lit(texts.implode())).fill_null(value=False) if len(texts) else pl.lit(value=False)


def _request(value: pl.Expr, request_of: Mapping[str, str]) -> pl.Expr:
    """Return whose a value is; the dictionary is asked for those that are there, of which a hit has few."""
    if not request_of:
        return pl.lit(None, pl.String)

    def of_values(values: pl.Series) -> pl.Series:
        return pl.Series(values.name, [request_of.get(value) for value in values.to_list()], pl.String)

    return value.cast(pl.String).map_batches(of_values, return_dtype=pl.String, is_elementwise=True)
