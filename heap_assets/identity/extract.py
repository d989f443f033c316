"""From rows of a table to links between the identifiers that stand on one record (rule 2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import pairwise
from typing import Final

import polars as pl

from heap_assets.identity.normalise import as_text, composite, normalised, reason
from heap_assets.identity.rules import ColumnMapping, Rules, RulesError, SourceTable
from heap_assets.identity.shapes import ENDS, LINKS, REFUSED, TIME, aggregated
from heap_assets.values import PRIVATE, read_times


@dataclass(frozen=True)
class Found:
    """What a path leads to: an expression of values or, if `many`, of lists of them, and the type of a value."""

    expression: pl.Expr
    dtype: pl.DataType
    many: bool


def resolve_path(path: str, schema: pl.Schema, table: str) -> Found:
    """Find a column path in a schema.

    A column whose name is the whole path wins (BigQuery flattens `address.email` to such names).

    Raises
    ------
    RulesError
        If the path leads nowhere; the message names what is there instead.
    """
    if path in schema:
        return Found(pl.col(path), schema[path], many=False)
    steps = [step for part in path.split(".") for step in _steps(part)]
    root, *rest = steps
    if root not in schema:
        raise RulesError(f"table {table} has no column {root!r} (path {path!r}); it has {', '.join(schema) or 'none'}")
    return _descend(pl.col(root), schema[root], rest, f"table {table}, path {path!r}")


def _steps(part: str) -> list[str]:
    name = part.rstrip("[]")
    return [name] * bool(name) + ["[]"] * part.count("[]")


def _descend(expression: pl.Expr, dtype: pl.DataType, steps: list[str], where: str) -> Found:
    for position, step in enumerate(steps):
        if step == "[]":
            if not isinstance(dtype, pl.List):
                raise RulesError(f"{where}: [] needs a list, found {dtype}")
            return _elements(expression, dtype, steps[position + 1 :], where)
        dtype = _field(dtype, step, where)
        expression = expression.struct.field(step)
    return Found(expression, dtype, many=False)


def _elements(expression: pl.Expr, dtype: pl.List, steps: list[str], where: str) -> Found:
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
    return Found(expression.list.eval(inner), element, many=True)  # type: ignore[arg-type]


def _field(dtype: pl.DataType, name: str, where: str) -> pl.DataType:
    if not isinstance(dtype, pl.Struct):
        raise RulesError(f"{where}: .{name} needs a struct, found {dtype}")
    fields = {item.name: item.dtype for item in dtype.fields}
    if name not in fields:
        raise RulesError(f"{where}: no field {name!r}; found {', '.join(fields)}")
    return fields[name]  # type: ignore[return-value]


MAX_IDENTIFIERS: Final = 200
"""Identifiers on one record; an array with more is no person, and its links would grow with the square."""

TOO_MANY: Final = "too_many"
OWN_IDENTIFY: Final = "own_identify"

_SEEN = ("first_seen", "last_seen", "count")


@dataclass(frozen=True)
class Extraction:
    """What a table says about identities.

    Attributes
    ----------
    links
        Shape of links: one row per link, source is the table. Sightings have a null second end.
    refused
        column, identifier_type, reason: String; rows: Int64. Values that are no identifiers, and why; never the value.
    """

    links: pl.LazyFrame
    refused: pl.LazyFrame


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
        that equals one is an ordinary link of source `own_identify` (rule 3).

    Raises
    ------
    RulesError
        If a mapped column does not exist, has a type that is no identifier, or an identifier type is unknown.
    """
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(table.mappings)]
    if not columns:
        return Extraction(pl.LazyFrame(schema=LINKS), pl.LazyFrame(schema=REFUSED))
    seen, unreadable = _seen(table, schema, day)
    records = (
        rows.select(*(column.raw for column in columns), seen.alias("first_seen"), unreadable.alias("unreadable"))
        .group_by([column.name for column in columns])
        .agg(
            pl.col("first_seen").min(),
            pl.col("first_seen").max().alias("last_seen"),
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("unreadable").sum().cast(pl.Int64),
        )
        .with_columns(part for column in columns for part in column.judged(rules))
    )
    links = _paired(records, columns, table, rules)
    links = links.with_columns(pl.lit(table.name).alias("source"))
    if own_identify is not None:
        links = _without_own(links, own_identify, rules)
    links = aggregated(links).select(pl.col(name).cast(dtype) for name, dtype in LINKS.items())
    return Extraction(links, _refused(records, columns, table))


def own_identify_links(sent: pl.LazyFrame, users: pl.LazyFrame) -> pl.LazyFrame:
    """Turn pairs that were sent through identify into the links by which Heap reports them back.

    Parameters
    ----------
    sent
        user_id: Int64, identity: String, as sent.
    users
        heap/users: user_id: Int64, identity: String. The user_id of an identity is Heap's hash of it, and where the
        migration leads.

    Returns
    -------
    LazyFrame
        type_a, value_a, type_b, value_b: String, for `extract(own_identify=…)`.
    """
    migrated = sent.join(users.select(pl.col("user_id").alias("to_user_id"), "identity"), on="identity")
    kind = pl.lit("heap_user_id").alias("type_a")
    return pl.concat(
        [
            migrated.select(
                kind, pl.col("user_id").cast(pl.String).alias("value_a"),
                pl.lit("heap_user_id").alias("type_b"), pl.col("to_user_id").cast(pl.String).alias("value_b"),
            ),
            sent.select(
                kind, pl.col("user_id").cast(pl.String).alias("value_a"),
                pl.lit("heap_identity").alias("type_b"), pl.col("identity").alias("value_b"),
            ),
        ]
    ).unique()  # fmt: skip


@dataclass(frozen=True)
class MappedColumn:
    """One mapping on its way: raw values, then identifiers under `name` and why a value is none under `why`."""

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
        found = [resolve_path(path, schema, table.name) for path in mapping.columns]
        name = f"{PRIVATE}identifier_{number}"
        where = [f"table {table.name}, column {path!r}" for path in mapping.columns]
        raw, value = found[0].expression, pl.element() if found[0].many else pl.col(name)
        if len(found) == 1:
            value = normalised(as_text(value, found[0].dtype, where[0]), normaliser)
        else:
            raw = composite(
                [
                    normalised(as_text(part.expression, part.dtype, place), normaliser)
                    for part, place in zip(found, where, strict=True)
                ]
            )
        return cls(name, "+".join(mapping.columns), mapping.type, rank, raw.alias(name), value, found[0].many)

    @property
    def why(self) -> str:
        return f"{self.name}_why"

    def judged(self, rules: Rules) -> list[pl.Expr]:
        """Identifiers (or lists of them) and the reasons of the values that are none."""
        why = reason(self.value, rules[self.type], rules)
        kept = pl.when(why.is_null()).then(self.value)
        if not self.many:
            return [kept.alias(self.name), why.alias(self.why)]
        every = pl.col(self.name)
        sized = pl.when(every.list.len() <= MAX_IDENTIFIERS).then(every.list.eval(kept).list.drop_nulls())
        too_many = pl.when(every.list.len() > MAX_IDENTIFIERS).then(pl.lit([TOO_MANY], dtype=pl.List(pl.String)))
        return [sized.alias(self.name), too_many.otherwise(every.list.eval(why).list.drop_nulls()).alias(self.why)]


def _seen(table: SourceTable, schema: pl.Schema, day: date | None) -> tuple[pl.Expr, pl.Expr]:
    """Record time, and whether there is one that cannot be read."""
    if table.time_column is None:
        stood = None if day is None else datetime.combine(day, time(), UTC)
        return pl.lit(stood, TIME), pl.lit(False)
    found = resolve_path(table.time_column, schema, table.name)
    if found.dtype == pl.String:
        read = read_times(found.expression)
        return read, found.expression.is_not_null() & read.is_null()
    if isinstance(found.dtype, pl.Datetime):
        zoned = found.expression.dt.cast_time_unit("us")
        moved = (
            zoned.dt.replace_time_zone("UTC") if found.dtype.time_zone is None else zoned.dt.convert_time_zone("UTC")
        )
        return moved, pl.lit(False)
    if found.dtype in (pl.Date, pl.Null):
        return found.expression.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), pl.lit(False)
    raise RulesError(
        f"table {table.name}: time column {table.time_column!r} is {found.dtype}, expected a timestamp or a date"
    )


def _paired(records: pl.LazyFrame, columns: list[MappedColumn], table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Pair the identifiers of each record as rule 2 says."""
    if any(column.many for column in columns):
        return _paired_lists(records, columns, table, rules)
    slots = _slots(columns)
    shareable = [bool(sharing) for sharing in rules.sharing]
    flat = records.select(*(value.alias(str(number)) for number, (_, value) in enumerate(slots)), *_SEEN)
    present = [pl.col(str(number)).is_not_null() for number in range(len(slots))]
    # an end is an anchor unless an identifier stronger than it is of a type that cannot be shared
    anchored = [
        pl.all_horizontal(True, *(~present[k] for k in range(i) if not shareable[slots[k][0]]))
        for i in range(len(slots))
    ]
    found = [
        flat.filter(present[i] & pl.all_horizontal(True, *(~p for k, p in enumerate(present) if k != i))).select(
            *_end("a", rules.types[rank], i), *_end("b", None, None), pl.lit(False).alias("authoritative"), *_SEEN
        )
        for i, (rank, _) in enumerate(slots)
    ]
    for i, (rank_a, _) in enumerate(slots):
        for j, (rank_b, _) in enumerate(slots[i + 1 :], i + 1):
            type_a, type_b = rules.types[rank_a], rules.types[rank_b]
            decided = table.authoritative is True or frozenset((type_a, type_b)) in table.authoritative_pairs
            linked = present[i] & present[j] & (True if decided else anchored[i])
            ends = (*_end("a", type_a, i), *_end("b", type_b, j))
            found.append(flat.filter(linked).select(*ends, pl.lit(decided).alias("authoritative"), *_SEEN))
    return pl.concat(found)


def _end(end: str, identifier_type: str | None, slot: int | None) -> tuple[pl.Expr, pl.Expr]:
    value = pl.lit(None, pl.String) if slot is None else pl.col(str(slot))
    return pl.lit(identifier_type, pl.String).alias(f"type_{end}"), value.alias(f"value_{end}")


def _slots(columns: list[MappedColumn]) -> list[tuple[int, pl.Expr]]:
    """Rank and value of each place for an identifier, strongest first; several of one type sorted and distinct."""
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

    An identifier travels as two digits of rank and its value: text that sorts by strength, then by value.
    """
    every = pl.concat_list(_tagged(column) for column in columns).list.unique().list.sort()
    fixed = [f"{rank:02d}" for rank, sharing in enumerate(rules.sharing) if not sharing]
    rows = records.select(every.alias("a"), *_SEEN).filter(pl.col("a").list.len() > 0)
    rows = rows.with_columns(
        pl.col("a").alias("b"),
        pl.col("a").list.eval(pl.element().filter(pl.element().str.head(2).is_in(fixed))).list.first().alias("last"),
    )
    alone = rows.filter(pl.col("a").list.len() == 1).explode("a").with_columns(b=pl.lit(None, pl.String))
    pairs = rows.filter(pl.col("a").list.len() > 1).explode("a").explode("b").filter(pl.col("a") < pl.col("b"))
    decided = _decided(table, rules)
    linked = decided | pl.col("last").is_null() | (pl.col("a") <= pl.col("last"))
    columns_of = [part for end in ("a", "b") for part in _untagged(end, rules)]
    return pl.concat(
        [
            alone.select(*columns_of, pl.lit(False).alias("authoritative"), *_SEEN),
            pairs.filter(linked).select(*columns_of, decided.alias("authoritative"), *_SEEN),
        ]
    )


def _tagged(column: MappedColumn) -> pl.Expr:
    tag = f"{column.rank:02d}"
    if column.many:
        return pl.col(column.name).list.eval(pl.lit(tag) + pl.element()).fill_null(pl.lit([], pl.List(pl.String)))
    return pl.concat_list(pl.lit(tag) + pl.col(column.name)).list.drop_nulls()


def _untagged(end: str, rules: Rules) -> tuple[pl.Expr, pl.Expr]:
    names = {f"{rank:02d}": name for rank, name in enumerate(rules.types)}
    kind = pl.col(end).str.head(2).replace_strict(names, return_dtype=pl.String)
    return kind.alias(f"type_{end}"), pl.col(end).str.slice(2).alias(f"value_{end}")


def _decided(table: SourceTable, rules: Rules) -> pl.Expr:
    if table.authoritative is True:
        return pl.lit(True)
    pairs = [sorted(rules.rank(name) for name in (*pair, *pair)) for pair in table.authoritative_pairs]
    tags = [f"{pair[0]:02d}{pair[-1]:02d}" for pair in pairs]
    return (pl.col("a").str.head(2) + pl.col("b").str.head(2)).is_in(tags)


def _without_own(links: pl.LazyFrame, own: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Take authority from links that only say what we said (rule 3)."""
    rank = {name: number for number, name in enumerate(rules.types)}
    a, b = (pl.col(f"type_{end}").replace_strict(rank, return_dtype=pl.UInt8) for end in ("a", "b"))
    known = own.filter(pl.col("type_a").is_in(rules.types) & pl.col("type_b").is_in(rules.types))
    flipped = (a > b) | ((a == b) & (pl.col("value_a") > pl.col("value_b")))
    ends = {"type_a": "type_b", "value_a": "value_b", "type_b": "type_a", "value_b": "value_a"}
    sent = known.select(pl.when(flipped).then(ends[name]).otherwise(name).alias(name) for name in ENDS).unique()
    marked = links.join(sent.with_columns(own=pl.lit(True)), on=list(ENDS), how="left")
    ours = pl.col("own").fill_null(False) & pl.col("authoritative")
    return marked.with_columns(
        source=pl.when(ours).then(pl.lit(OWN_IDENTIFY)).otherwise("source"),
        authoritative=pl.col("authoritative") & ~ours,
    ).drop("own")


def _refused(records: pl.LazyFrame, columns: list[MappedColumn], table: SourceTable) -> pl.LazyFrame:
    """Count what is no identifier, and times and migrations that say nothing."""
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
