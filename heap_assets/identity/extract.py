"""Extraction of links between the identifiers of one record, from the rows of a table (rule 2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import pairwise
from typing import Final

import polars as pl

from heap_assets.identity.normalise import as_text, composite, normalised, reason
from heap_assets.identity.rules import HEAP_IDENTITY, HEAP_USER_ID, ColumnMapping, Rules, RulesError, SourceTable
from heap_assets.identity.schemas import ENDS, EXCLUDED, LINKS, REFUSED, aggregated
from heap_assets.values import PRIVATE, TIME, in_zone, read_times


@dataclass(frozen=True)
class ResolvedPath:
    """The values at a column path, or lists of them if `many`, and the type of a value."""

    expression: pl.Expr
    dtype: pl.DataType
    many: bool


def resolve_path(path: str, schema: pl.Schema, table: str) -> ResolvedPath:
    """Find a column path in a schema.

    A column whose name is the whole path wins (BigQuery flattens `address.email` to such names).

    Raises RulesError if there is no such column or field; the message lists those there are.
    """
    if path in schema:
        return ResolvedPath(pl.col(path), schema[path], many=False)
    steps: list[str] = []
    for part in path.split("."):
        name = part.rstrip("[]")
        steps += [name] * bool(name) + ["[]"] * part.count("[]")
    root, *inner = steps
    if root not in schema:
        raise RulesError(f"table {table} has no column {root!r} (path {path!r}); it has {', '.join(schema) or 'none'}")
    return _descend(pl.col(root), schema[root], inner, f"table {table}, path {path!r}")


def _descend(expression: pl.Expr, dtype: pl.DataType, steps: list[str], where: str) -> ResolvedPath:
    for position, step in enumerate(steps):
        if step == "[]":
            if not isinstance(dtype, pl.List):
                raise RulesError(f"{where}: [] needs a list, found {dtype}")
            return _elements(expression, dtype, steps[position + 1 :], where)
        dtype = _field(dtype, step, where)
        expression = expression.struct.field(step)
    return ResolvedPath(expression, dtype, many=False)


def _elements(expression: pl.Expr, dtype: pl.List, steps: list[str], where: str) -> ResolvedPath:
    inner: pl.Expr = pl.element()
    element = pl.DataType.from_python(dtype.inner) if isinstance(dtype.inner, type) else dtype.inner
    for step in steps:
        if step == "[]":
            if not isinstance(element, pl.List):
                raise RulesError(f"{where}: [] needs a list, found {element}")
            inner, element = inner.explode(), element.inner
        else:
            element = _field(element, step, where)  # type: ignore[arg-type]
            inner = inner.struct.field(step)
    return ResolvedPath(expression.list.eval(inner), element, many=True)  # type: ignore[arg-type]


def _field(dtype: pl.DataType, name: str, where: str) -> pl.DataType:
    if not isinstance(dtype, pl.Struct):
        raise RulesError(f"{where}: .{name} needs a struct, found {dtype}")
    fields = {item.name: item.dtype for item in dtype.fields}
    if name not in fields:
        raise RulesError(f"{where}: no field {name!r}; found {', '.join(fields)}")
    return fields[name]  # type: ignore[return-value]


MAX_IDENTIFIERS: Final = 200
"""Most identifiers on one record: an array with more is no person, and its links would grow with the square."""

TOO_MANY: Final = "too_many"
OWN_IDENTIFY: Final = "own_identify"

_SPAN = ("first_seen", "last_seen", "count")


@dataclass(frozen=True)
class Extraction:
    """The links of a table, and the values that are no identifiers.

    Attributes
    ----------
    links
        Schema of links: one row per link, source is the table. Sightings have a null second end.
    refused
        column, identifier_type, reason: String; rows: Int64. Counts of values that are no identifiers, without values.
    excluded
        identifier_type, identifier: String. The values that are nobody's by decision, each once.
    """

    links: pl.LazyFrame
    refused: pl.LazyFrame
    excluded: pl.LazyFrame


def extract(
    rows: pl.LazyFrame,
    table: SourceTable,
    rules: Rules,
    day: date | None = None,
    own_identify: pl.LazyFrame | None = None,
) -> Extraction:
    """Extract links and sightings from the rows of a table.

    Parameters
    ----------
    rows
        Rows with at least the columns that `table` maps.
    day
        The partition's day: the time of records if the table has no time column.
    own_identify
        type_a, value_a, type_b, value_b of pairs that we have sent to Heap through identify: an authoritative link
        that equals one of them is an ordinary link of source `own_identify` (rule 3).

    Raises RulesError if a mapped column does not exist, has a type that is no identifier, or an identifier type is
    unknown.
    """
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(table.mappings)]
    if not columns:
        return Extraction(pl.LazyFrame(schema=LINKS), pl.LazyFrame(schema=REFUSED), pl.LazyFrame(schema=EXCLUDED))
    moment, unreadable = _record_time(table, schema, day)
    records = (
        rows.select(*(column.raw for column in columns), moment.alias("first_seen"), unreadable.alias("unreadable"))
        .group_by([column.name for column in columns])
        .agg(
            pl.col("first_seen").min(),
            pl.col("first_seen").max().alias("last_seen"),
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("unreadable").sum().cast(pl.Int64),
        )
        .with_columns(part for column in columns for part in column.checked(rules))
    )
    links = _paired(records, columns, table, rules).with_columns(pl.lit(table.name).alias("source"))
    if own_identify is not None:
        links = _without_own(links, own_identify, rules)
    links = aggregated(links).select(pl.col(name).cast(dtype) for name, dtype in LINKS.items())
    return Extraction(links, _refused(records, columns, table), _excluded(rows, columns, rules))


def own_identify_links(sent: pl.LazyFrame, users: pl.LazyFrame) -> pl.LazyFrame:
    """Return the links by which Heap reports back pairs that were sent through identify.

    Parameters
    ----------
    sent
        user_id: Int64, identity: String, as sent.
    users
        heap/users: user_id: Int64, identity: String. The user_id of an identity is Heap's hash of it, and where the
        migration leads.

    Returns type_a, value_a, type_b, value_b: String, for `extract(own_identify=…)`.
    """
    migrated = sent.join(users.select(pl.col("user_id").alias("to_user_id"), "identity"), on="identity")
    ends = ((migrated, HEAP_USER_ID, pl.col("to_user_id").cast(pl.String)), (sent, HEAP_IDENTITY, pl.col("identity")))
    own = {"type_a": pl.lit(HEAP_USER_ID), "value_a": pl.col("user_id").cast(pl.String)}
    return pl.concat([pairs.select(**own, type_b=pl.lit(kind), value_b=value) for pairs, kind, value in ends]).unique()


@dataclass(frozen=True)
class MappedColumn:
    """The columns of one mapping: raw values, then identifiers as `name` and reasons of refused values as `why`."""

    name: str
    label: str
    type: str
    rank: int
    raw: pl.Expr
    value: pl.Expr
    many: bool

    @classmethod
    def of(
        cls, mapping: ColumnMapping, number: int, table: SourceTable, rules: Rules, schema: pl.Schema
    ) -> MappedColumn:
        rank = rules.rank(mapping.type)
        normaliser = rules[mapping.type].normaliser
        parts = [resolve_path(path, schema, table.name) for path in mapping.columns]
        name = f"{PRIVATE}identifier_{number}"
        where = [f"table {table.name}, column {path!r}" for path in mapping.columns]
        raw, value = parts[0].expression, pl.element() if parts[0].many else pl.col(name)
        if len(parts) == 1:
            value = normalised(as_text(value, parts[0].dtype, where[0]), normaliser)
        else:
            texts = [as_text(part.expression, part.dtype, place) for part, place in zip(parts, where, strict=True)]
            raw = composite([normalised(text, normaliser) for text in texts])
        return cls(name, "+".join(mapping.columns), mapping.type, rank, raw.alias(name), value, parts[0].many)

    @property
    def why(self) -> str:
        return f"{self.name}_why"

    def checked(self, rules: Rules) -> list[pl.Expr]:
        """Identifiers (or lists of them), and the reasons why values are none."""
        why = reason(self.value, rules[self.type], rules)
        valid = pl.when(why.is_null()).then(self.value)
        if not self.many:
            return [valid.alias(self.name), why.alias(self.why)]
        every = pl.col(self.name)
        sized = pl.when(every.list.len() <= MAX_IDENTIFIERS).then(every.list.eval(valid).list.drop_nulls())
        too_many = pl.when(every.list.len() > MAX_IDENTIFIERS).then(pl.lit([TOO_MANY], dtype=pl.List(pl.String)))
        return [sized.alias(self.name), too_many.otherwise(every.list.eval(why).list.drop_nulls()).alias(self.why)]


def _record_time(table: SourceTable, schema: pl.Schema, day: date | None) -> tuple[pl.Expr, pl.Expr]:
    """Return the time of a record, and whether it cannot be read."""
    if table.time_column is None:
        return pl.lit(None if day is None else datetime.combine(day, time(), UTC), TIME), pl.lit(False)
    column = resolve_path(table.time_column, schema, table.name)
    value, dtype = column.expression, column.dtype
    if dtype == pl.String:
        read = read_times(value)
        return read, value.is_not_null() & read.is_null()
    if isinstance(dtype, pl.Datetime) or dtype in (pl.Date, pl.Null):
        return in_zone(value, dtype, "UTC").dt.cast_time_unit("us"), pl.lit(False)
    raise RulesError(
        f"table {table.name}: time column {table.time_column!r} is {dtype}, expected a timestamp or a date"
    )


def _paired(records: pl.LazyFrame, columns: list[MappedColumn], table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Pair the identifiers of each record as rule 2 says."""
    if any(column.many for column in columns):
        return _paired_lists(records, columns, table, rules)
    slots = _slots(columns)
    shareable = [bool(sharing) for sharing in rules.sharing]
    flat = records.select(*(value.alias(str(number)) for number, (_, value) in enumerate(slots)), *_SPAN)
    present = [pl.col(str(number)).is_not_null() for number in range(len(slots))]
    # an end is an anchor unless an identifier stronger than it is of a type that cannot be shared
    anchored = [
        pl.all_horizontal(True, *(~present[k] for k in range(i) if not shareable[slots[k][0]]))
        for i in range(len(slots))
    ]
    links = [
        flat.filter(present[i] & pl.all_horizontal(True, *(~p for k, p in enumerate(present) if k != i))).select(
            *_end("a", rules.types[rank], i),
            *_end("b", None, None),
            pl.lit(False).alias("authoritative"),
            *_SPAN,
        )
        for i, (rank, _) in enumerate(slots)
    ]
    for i, (rank_a, _) in enumerate(slots):
        for j, (rank_b, _) in enumerate(slots[i + 1 :], i + 1):
            type_a, type_b = rules.types[rank_a], rules.types[rank_b]
            decided = table.authoritative is True or frozenset((type_a, type_b)) in table.authoritative_pairs
            linked = present[i] & present[j] & (True if decided else anchored[i])
            ends = (*_end("a", type_a, i), *_end("b", type_b, j))
            links.append(flat.filter(linked).select(*ends, pl.lit(decided).alias("authoritative"), *_SPAN))
    return pl.concat(links)


def _end(end: str, identifier_type: str | None, slot: int | None) -> tuple[pl.Expr, pl.Expr]:
    value = pl.lit(None, pl.String) if slot is None else pl.col(str(slot))
    return pl.lit(identifier_type, pl.String).alias(f"type_{end}"), value.alias(f"value_{end}")


def _slots(columns: list[MappedColumn]) -> list[tuple[int, pl.Expr]]:
    """Return rank and value of a record's identifiers, strongest first; several of one type sorted and distinct."""
    slots: list[tuple[int, pl.Expr]] = []
    for rank in sorted({column.rank for column in columns}):
        names = [column.name for column in columns if column.rank == rank]
        if len(names) == 1:
            slots.append((rank, pl.col(names[0])))
            continue
        values = pl.concat_list(names).list.drop_nulls().list.unique().list.sort()
        slots.extend((rank, values.list.get(position, null_on_oob=True)) for position in range(len(names)))
    return slots


def _paired_lists(records: pl.LazyFrame, columns: list[MappedColumn], table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Pair identifiers of which some come in arrays.

    An identifier is written as two digits of rank and its value: text that sorts by strength, then by value.
    """

    def tagged(column: MappedColumn) -> pl.Expr:
        tag = pl.lit(f"{column.rank:02d}")
        if column.many:
            return pl.col(column.name).list.eval(tag + pl.element()).fill_null(pl.lit([], pl.List(pl.String)))
        return pl.concat_list(tag + pl.col(column.name)).list.drop_nulls()

    every = pl.concat_list(map(tagged, columns)).list.unique().list.sort()
    fixed = [f"{rank:02d}" for rank, sharing in enumerate(rules.sharing) if not sharing]
    rows = records.select(every.alias("a"), *_SPAN).filter(pl.col("a").list.len() > 0)
    rows = rows.with_columns(
        pl.col("a").alias("b"),
        pl.col("a").list.eval(pl.element().filter(pl.element().str.head(2).is_in(fixed))).list.first().alias("last"),
    )
    alone = rows.filter(pl.col("a").list.len() == 1).explode("a").with_columns(b=pl.lit(None, pl.String))
    pairs = rows.filter(pl.col("a").list.len() > 1).explode("a").explode("b").filter(pl.col("a") < pl.col("b"))
    decided = _decided(table, rules)
    linked = decided | pl.col("last").is_null() | (pl.col("a") <= pl.col("last"))
    names = {f"{rank:02d}": name for rank, name in enumerate(rules.types)}
    ends: dict[str, pl.Expr] = {}
    for end in ("a", "b"):
        ends[f"type_{end}"] = pl.col(end).str.head(2).replace_strict(names, return_dtype=pl.String)
        ends[f"value_{end}"] = pl.col(end).str.slice(2)
    return pl.concat(
        [
            alone.select(*_SPAN, **ends, authoritative=pl.lit(False)).select(*ends, "authoritative", *_SPAN),
            pairs.filter(linked).select(*_SPAN, **ends, authoritative=decided).select(*ends, "authoritative", *_SPAN),
        ]
    )


def _decided(table: SourceTable, rules: Rules) -> pl.Expr:
    if table.authoritative is True:
        return pl.lit(True)
    pairs = [sorted(rules.rank(name) for name in (*pair, *pair)) for pair in table.authoritative_pairs]
    tags = [f"{pair[0]:02d}{pair[-1]:02d}" for pair in pairs]
    return (pl.col("a").str.head(2) + pl.col("b").str.head(2)).is_in(tags)


def _without_own(links: pl.LazyFrame, own: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Make links that only report pairs sent by us ordinary ones (rule 3)."""
    rank = {name: number for number, name in enumerate(rules.types)}
    a, b = (pl.col(f"type_{end}").replace_strict(rank, return_dtype=pl.UInt8) for end in ("a", "b"))
    mapped = own.filter(pl.col("type_a").is_in(rules.types) & pl.col("type_b").is_in(rules.types))
    flipped = (a > b) | ((a == b) & (pl.col("value_a") > pl.col("value_b")))
    ends = {"type_a": "type_b", "value_a": "value_b", "type_b": "type_a", "value_b": "value_a"}
    sent = mapped.select(pl.when(flipped).then(ends[name]).otherwise(name).alias(name) for name in ENDS).unique()
    marked = links.join(sent.with_columns(own=pl.lit(True)), on=list(ENDS), how="left")
    is_authoritative = pl.col("own").fill_null(False) & pl.col("authoritative")
    return marked.with_columns(
        source=pl.when(is_authoritative).then(pl.lit(OWN_IDENTIFY)).otherwise("source"),
        authoritative=pl.col("authoritative") & ~is_authoritative,
    ).drop("own")


def _refused(records: pl.LazyFrame, columns: list[MappedColumn], table: SourceTable) -> pl.LazyFrame:
    """Count values that are no identifiers, unreadable times, and migrations of a user to itself."""
    parts = []
    for column in columns:
        whys = records.select(pl.col(column.why).alias("reason"), "count")
        if column.many:
            whys = whys.explode("reason")
        parts.append(_counted(whys.filter(pl.col("reason").is_not_null()), column.label, column.type))
    if table.time_column is not None:
        bad = records.filter(pl.col("unreadable") > 0)
        bad = bad.select(pl.lit("unreadable_time").alias("reason"), pl.col("unreadable").alias("count"))
        parts.append(_counted(bad, table.time_column, None))
    if table.authoritative is True:
        for first, second in pairwise(columns):
            if first.type == second.type and not (first.many or second.many):
                same = records.filter(pl.col(first.name) == pl.col(second.name))
                same = same.select(pl.lit("self_link").alias("reason"), "count")
                parts.append(_counted(same, f"{first.label}+{second.label}", first.type))
    return pl.concat(parts).sort("column", "identifier_type", "reason")


def _excluded(rows: pl.LazyFrame, columns: list[MappedColumn], rules: Rules) -> pl.LazyFrame:
    """Return the values of some rows that are nobody's by decision."""
    parts = [pl.LazyFrame(schema=EXCLUDED)]
    for column in columns:
        values = [value for kind, value in rules.excluded if kind == column.type]
        if values:
            value = pl.col(column.name).list.eval(column.value) if column.many else column.value
            read = rows.select(column.raw).select(value.alias("identifier"))
            read = read.explode("identifier") if column.many else read
            met = read.filter(pl.col("identifier").is_in(values)).unique()
            parts.append(met.select(pl.lit(column.type).alias("identifier_type"), "identifier"))
    return pl.concat(parts).unique()


def _counted(whys: pl.LazyFrame, column: str, identifier_type: str | None) -> pl.LazyFrame:
    return (
        whys.group_by("reason")
        .agg(pl.col("count").sum().alias("rows"))
        .select(
            pl.lit(column).alias("column"),
            pl.lit(identifier_type, pl.String).alias("identifier_type"),
            "reason",
            pl.col("rows").cast(pl.Int64),
        )
    )
