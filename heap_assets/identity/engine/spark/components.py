"""Connected components of pairs of nodes.

Each round renames every node to the least of itself and its neighbours, in both ends of all pairs. Two nodes of one new
name are connected through the node whose name it is, so components stay what they were; the greatest node of a
component is no node's least, so each round has fewer nodes. Once the pairs fit this process, union-find ends it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from heap_assets.identity.engine.native import kernel
from heap_assets.identity.engine.native.shared import labelled
from heap_assets.identity.engine.spark.scratch import Scratch

_PAIRS: Final = pl.Schema({"u": pl.Int64(), "v": pl.Int64()})


def component_labels(pairs: DataFrame, scratch: Scratch, pairs_at_once: int) -> tuple[DataFrame, int]:
    """Find the component of each node.

    Parameters
    ----------
    pairs
        u, v: long; repeated and reversed pairs and loops are allowed.
    pairs_at_once
        Distinct pairs that this process unites by itself.

    Returns node and label of all nodes but the least of each component, which is its label; and the rounds of Spark.
    """
    remaining = scratch.stored(_distinct(pairs), "pairs-0")
    labels: DataFrame | None = None
    rounds = 0
    while remaining.count() > pairs_at_once:
        both = remaining.unionAll(remaining.select(F.col("v").alias("u"), F.col("u").alias("v")))
        least = both.groupBy(F.col("u").alias("node")).agg(F.min("v").alias("label")).filter("label < node")
        rounds += 1
        names = scratch.stored(least, f"names-{rounds}")
        labels = names if labels is None else scratch.stored(_followed(labels, names), f"labels-{rounds}")
        renamed = _renamed(_renamed(remaining, "u", names), "v", names)
        remaining = scratch.stored(_distinct(renamed), f"pairs-{rounds}")
    last = scratch.taken(_united(scratch.scan(f"pairs-{rounds}", _PAIRS).collect()), "names-last")
    return last if labels is None else scratch.stored(_followed(labels, last), "labels-last"), rounds


def _distinct(pairs: DataFrame) -> DataFrame:
    least, greatest = F.least("u", "v").alias("u"), F.greatest("u", "v").alias("v")
    return pairs.filter("u <> v").select(least, greatest).distinct()


def _renamed(frame: DataFrame, column: str, names: DataFrame) -> DataFrame:
    """Replace the nodes of a column by their names."""
    named = names.select(F.col("node").alias(column), F.col("label").alias("name"))
    return frame.join(named, column, "left").withColumn(column, F.coalesce("name", column)).drop("name")


def _followed(labels: DataFrame, names: DataFrame) -> DataFrame:
    """Rename labels, and add the nodes that are renamed for the first time."""
    return (
        _renamed(labels, "label", names)
        .select("node", "label")
        .unionAll(names.join(labels.select("node"), "node", "left_anti").select("node", "label"))
    )


def _united(pairs: pl.DataFrame) -> pl.DataFrame:
    schema = {"node": pl.Int64, "label": pl.Int64}
    if pairs.is_empty():
        return pl.DataFrame(schema=schema)
    nodes, dense = np.unique(pairs.select("u", "v").to_numpy(), return_inverse=True)
    ends = np.ascontiguousarray(dense.reshape(-1, 2).T.astype(np.uint32))
    parent = np.arange(nodes.size, dtype=np.uint32)
    kernel.union(parent, ends[0], ends[1], np.zeros(nodes.size, np.uint8))
    labelled(parent, np.empty(nodes.size, np.uint32))  # leaves in `parent` the least of each component
    return pl.DataFrame({"node": nodes, "label": nodes[parent]}, schema=schema).filter(
        pl.col("node") != pl.col("label")
    )
