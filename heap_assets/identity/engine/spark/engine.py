"""The engine on Spark: the rows of the native engine, for more links than one machine takes.

Links go to Spark as Parquet. Each identifier is a node, numbered by a hash of its type and value; two identifiers of
one number only put two components together, and the rules decide by type and value, so collisions change no row.
Components of all links are computed by the numbers alone (`components`); then each goes to one executor and is resolved
there (`groups`).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from heap_assets.identity.engine.base import LinksOfDay, Resolution
from heap_assets.identity.engine.native.engine import NativeEngine
from heap_assets.identity.engine.spark.components import component_labels
from heap_assets.identity.engine.spark.groups import ROWS_OF_TABLES, resolve_groups, spark_schema
from heap_assets.identity.engine.spark.results import (
    BETWEEN,
    FOLDER,
    GRAPH,
    RESULT,
    TABLES,
    fits_one_machine,
    notes_of,
    resolution_of,
)
from heap_assets.identity.engine.spark.scratch import Scratch
from heap_assets.identity.engine.spark.session import session
from heap_assets.identity.engine.spark.tuning import HASH_BITS, SparkTuning, check_spark_installed
from heap_assets.identity.rules import LinksError, MemoryLimitError, Rules
from heap_assets.identity.schemas import LINKS, as_links
from heap_assets.storage import Store

_DIGITS: Final = 6
"""Leading hexadecimal digits of a profile id by which the graph is cut into files."""
_LINKS: Final = "links/links.parquet"


class SparkEngine:
    """The engine in `engine/spark`, without state of its own; up to `above_links` rows the native engine stands in."""

    def __init__(self, tuning: SparkTuning) -> None:
        check_spark_installed()
        self.tuning = tuning

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links, see :class:`Engine`. The rows of the result are files that last as long as this process."""
        if fits_one_machine(links, self.tuning):
            return NativeEngine().resolve(links, rules)
        return self._resolved(links, rules)[0]

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Resolve all links as of the day at once; up to `above_links`, as the native engine does."""
        if fits_one_machine(links.links, self.tuning):
            return NativeEngine().advance(store, links, rules)
        return self._resolved(links.links, rules)

    def _resolved(self, links: pl.LazyFrame, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        spark = session(self.tuning)
        parent = Path(self.tuning.work).resolve() if self.tuning.work else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # lazy frames of the result read from it
        between, result = (Scratch(spark, Store(str(folder / name))) for name in (BETWEEN, RESULT))
        between.store.sink(_LINKS, as_links(links))
        rows = spark.read.schema(spark_schema(LINKS)).parquet(between.uri(_LINKS))
        graph = Scratch(spark, result.store.child(GRAPH))
        written = resolve_rows(rows, rules, self.tuning, between, result, graph)
        return resolution_of(result.store, written.profiles, written.identifiers), notes_of(written.rounds)


@dataclass(frozen=True)
class WrittenTables:
    """What one resolution wrote: `rows` by table, and the rounds in which components were found."""

    profiles: int
    identifiers: int
    rounds: int
    rows: dict[str, int]


def resolve_rows(
    rows: DataFrame, rules: Rules, tuning: SparkTuning, between: Scratch, result: Scratch, graph: Scratch
) -> WrittenTables:
    """Resolve rows of links and write the tables, each in its order; `between` is removed.

    `graph` is where that table goes, `result` where the others go.

    Raises
    ------
    LinksError
        As of the other engines.
    MemoryLimitError
        If a component is larger than an executor can take.
    """
    _check(rows, rules)
    labels, rounds = component_labels(_pairs(rows, tuning.hash_bits), between, tuning.pairs_at_once)
    _check_size(labels, tuning)
    node = _node("type_a", "value_a", tuning.hash_bits)
    grouped = (
        rows.withColumn("node", node)
        .join(labels, "node", "left")
        .select(F.coalesce("label", "node").alias("label"), *LINKS.names())
        .repartition(tuning.parts, "label")
        .sortWithinPartitions("label")
        .mapInArrow(resolve_groups(rules, tuning.rows_at_once), ROWS_OF_TABLES)
    )
    resolved = between.stored(grouped, "resolved")
    _write_tables(resolved, rules, tuning.parts, result, graph)
    counts = {row[0]: row[1] for row in resolved.groupBy("table").count().collect()}
    is_graph = F.col("table") == GRAPH
    profiles = resolved.filter(is_graph).agg(F.count_distinct("profile_id")).first()[0]
    between.remove()
    by_table = {table: counts.get(table, 0) for table in TABLES}
    return WrittenTables(profiles, by_table[GRAPH], rounds, by_table)


def _check_size(labels: DataFrame, tuning: SparkTuning) -> None:
    largest = labels.groupBy("label").count().agg(F.max("count")).first()[0] or 0
    if largest >= tuning.largest_component:
        raise MemoryLimitError(
            f"one component has {largest + 1} identifiers, more than identity.engine.spark.largest_component "
            f"({tuning.largest_component}): block the value that holds it together (`heap-assets review`), "
            "or set the number higher if an executor has the memory"
        )


def _write_tables(resolved: DataFrame, rules: Rules, parts: int, result: Scratch, graph: Scratch) -> None:
    """Write each table in its order: files sorted by name have it."""
    tables = {table: resolved.filter(F.col("table") == table).select(*TABLES[table].names()) for table in TABLES}
    # profile ids are uniform, so slices of their range are known without looking at any
    number = F.conv(F.substring("profile_id", 1, _DIGITS), 16, 10).cast("long")
    piece = F.coalesce(F.floor(number * parts / 16**_DIGITS).cast("int"), F.lit(parts))
    order = ["piece", F.col("profile_id").asc_nulls_last(), _rank("identifier_type", rules), "identifier"]
    pieces = tables[GRAPH].withColumn("piece", F.lpad(piece.cast("string"), 10, "0"))
    pieces = pieces.repartition(parts, "piece").sortWithinPartitions(*order)
    pieces.write.partitionBy("piece").option("compression", "zstd").parquet(graph.uri())
    ends = [_rank("type_a", rules), "value_a", _rank("type_b", rules), "value_b"]
    result.stored(tables["conflicts"].orderBy(*ends), "conflicts")
    values = [_rank("identifier_type", rules), "identifier", _rank("stronger_type", rules)]
    result.stored(tables["shared"].orderBy(*values), "shared")


def _node(kind: str, value: str, bits: int) -> Column:
    number = F.xxhash64(kind, value)
    return number if bits == HASH_BITS else number.bitwiseAND(F.lit((1 << bits) - 1))


def _pairs(rows: DataFrame, bits: int) -> DataFrame:
    linked = rows.filter("type_b is not null")
    return linked.select(_node("type_a", "value_a", bits).alias("u"), _node("type_b", "value_b", bits).alias("v"))


def _rank(kind: str, rules: Rules) -> Column:
    return F.array_position(F.array(*map(F.lit, rules.types)), F.col(kind))


def _check(rows: DataFrame, rules: Rules) -> None:
    """Raise LinksError for links that the engines refuse."""
    is_sighting = F.col("type_b").isNull() & F.col("value_b").isNull()
    wrong = F.lit(False)
    kinds = []
    for end in ("a", "b"):
        kind, value = F.col(f"type_{end}"), F.col(f"value_{end}")
        is_empty = F.coalesce(kind == "", F.lit(True)) | F.coalesce(value == "", F.lit(True))
        wrong = wrong | (is_empty if end == "a" else is_empty & ~is_sighting)
        kinds.append(F.min(F.when(~kind.isin(*rules.types) & (kind != ""), kind)))
    unknown_a, unknown_b, empty = rows.agg(*kinds, F.count_if(wrong)).first()
    if unknown := unknown_a or unknown_b:
        raise LinksError(f"links name the type {unknown!r}; the rules know {', '.join(rules.types)}")
    if empty:
        raise LinksError(f"{empty} links have an end that is null or empty; leave such rows out of links")
