"""What a job on a cluster does: reads the links that it was told, resolves them, and says what it has written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import SparkSession

from heap_assets.identity.engine.spark.engine import resolve_rows
from heap_assets.identity.engine.spark.groups import spark_schema
from heap_assets.identity.engine.spark.orders import JobOrders
from heap_assets.identity.engine.spark.results import BETWEEN, GRAPH, RESULT
from heap_assets.identity.engine.spark.scratch import Scratch, spark_uri
from heap_assets.identity.engine.spark.session import session, with_settings
from heap_assets.identity.schemas import LINKS


def run_job(values: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve as told by the values of :class:`JobOrders`; return what was written, as the run expects to hear it.

    Raises
    ------
    SparkJobError
        If the orders are those of another version.
    LinksError, MemoryLimitError
        As of the other engines.
    """
    orders = JobOrders.of_values(values)
    spark = session(orders.tuning) if orders.is_local else _of_cluster(orders)
    store = orders.store
    between = Scratch(spark, store.child(BETWEEN))
    result = Scratch(spark, store.child(RESULT))
    uris = [spark_uri(link) for link in orders.links]
    rows = spark.read.schema(spark_schema(LINKS)).parquet(*uris)
    graph = Scratch(spark, orders.graph_store or result.store.child(GRAPH))
    written = resolve_rows(rows, orders.rules, orders.tuning, between, result, graph)
    return {
        "profiles": written.profiles,
        "identifiers": written.identifiers,
        "rounds": written.rounds,
        "rows": written.rows,
        "files": {table: len(graph.files() if table == GRAPH else result.files(table)) for table in written.rows},
        "digest": orders.rules.digest,
    }


def _of_cluster(orders: JobOrders) -> SparkSession:
    return with_settings(SparkSession.getActiveSession() or SparkSession.builder.getOrCreate(), orders.tuning)
