"""Plain connected components of the same links by other tools, as a program of their own: `--method`, files in and out.

Runs in an environment that has the peers (`pip install polars duckdb scipy igraph networkx splink`); heap_assets is not
imported. Each reads links as text from Parquet and writes (type, value, component) as Parquet, as the engine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import polars as pl

Encoded = tuple[pl.DataFrame, pl.DataFrame]


def encoded(files: str) -> Encoded:
    """Number identifiers with Polars, exactly (two 64-bit hashes): nodes (type, value, id), edges (a, b)."""
    links = pl.scan_parquet(files)
    ends = []
    for end in ("a", "b"):
        text = pl.concat_str("type", pl.lit("\x1f"), "value")
        ends.append(
            links.select(pl.col(f"type_{end}").alias("type"), pl.col(f"value_{end}").alias("value"))
            .filter(pl.col("type").is_not_null())
            .with_columns(text.hash(1).alias("h1"), text.hash(2).alias("h2"))
        )
    nodes = (
        pl.concat(ends)
        .group_by("h1", "h2")
        .agg(pl.col("type", "value").first())
        .with_row_index("id")
        .collect(engine="streaming")
    )
    keys = nodes.lazy().select("h1", "h2", "id")
    edges = links.filter(pl.col("type_b").is_not_null())
    for end in ("a", "b"):
        text = pl.concat_str(f"type_{end}", pl.lit("\x1f"), f"value_{end}")
        edges = edges.with_columns(text.hash(1).alias("h1"), text.hash(2).alias("h2")).join(keys, on=["h1", "h2"])
        edges = edges.rename({"id": end}).drop("h1", "h2")
    return nodes.select("id", "type", "value"), edges.select("a", "b").collect(engine="streaming")


def write(nodes: pl.DataFrame, labels: pl.Series, out: str) -> None:
    nodes.select("type", "value").with_columns(labels.alias("component")).write_parquet(out)


def scipy(files: str, out: str) -> None:
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes, edges = encoded(files)
    pairs = (np.ones(edges.height, np.int8), (edges["a"].to_numpy(), edges["b"].to_numpy()))
    graph = coo_matrix(pairs, shape=(nodes.height, nodes.height))
    _, labels = connected_components(graph.tocsr(), directed=False)
    write(nodes, pl.Series(labels), out)


def igraph(files: str, out: str) -> None:
    import igraph as ig

    nodes, edges = encoded(files)
    graph = ig.Graph(n=nodes.height, edges=edges.to_numpy())
    write(nodes, pl.Series(graph.connected_components().membership), out)


def networkx(files: str, out: str) -> None:
    import networkx as nx

    links = pl.scan_parquet(files).filter(pl.col("type_b").is_not_null())
    graph: nx.Graph[tuple[str, str]] = nx.Graph()
    rows = links.select("type_a", "value_a", "type_b", "value_b").collect().iter_rows()
    graph.add_edges_from(((a, b), (c, d)) for a, b, c, d in rows)
    seen = pl.scan_parquet(files).select("type_a", "value_a").unique().collect().iter_rows()
    graph.add_nodes_from(seen)
    found = [(*node, number) for number, group in enumerate(nx.connected_components(graph)) for node in group]
    pl.DataFrame(found, schema=["type", "value", "component"], orient="row").write_parquet(out)


def splink(files: str, out: str) -> None:
    import duckdb as db
    from splink import DuckDBAPI
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    con = db.connect()
    _duckdb_encoded(con, files)
    con.execute("create table n as select id as unique_id from nodes")
    con.execute("create table e as select a as unique_id_l, b as unique_id_r from edges")
    api = DuckDBAPI(con)
    found = cluster_pairwise_predictions_at_threshold(
        api.register("n"), api.register("e"), db_api=api, node_id_column_name="unique_id",
        edge_id_column_name_left="unique_id_l", edge_id_column_name_right="unique_id_r",
    )  # fmt: skip
    con.execute(
        f"copy (select type, value, cluster_id as component from nodes join {found.physical_name} on id = unique_id) "
        f"to '{out}' (format parquet)"
    )


def duckdb(files: str, out: str) -> None:
    """Hook to the smallest neighbour, jump pointers, contract; ends when no edge is left."""
    import duckdb as db

    con = db.connect()
    _duckdb_encoded(con, files)
    con.execute("create table label as select id, id as root from nodes")
    con.execute("create table e as select distinct least(a, b) as a, greatest(a, b) as b from edges where a <> b")
    while con.execute("select count(*) from e").fetchone() != (0,):
        con.execute("create or replace table p as select b as id, min(a) as root from e group by b")
        while True:
            con.execute(
                "create or replace table q as select p.id, coalesce(o.root, p.root) as root "
                "from p left join p o on p.root = o.id"
            )
            done = con.execute("select count(*) from p join q using (id) where p.root <> q.root").fetchone() == (0,)
            con.execute("create or replace table p as select * from q")
            if done:
                break
        con.execute(
            "create or replace table label as select l.id, coalesce(p.root, l.root) as root "
            "from label l left join p on l.root = p.id"
        )
        con.execute(
            "create or replace table f as select distinct least(x, y) as a, greatest(x, y) as b from ("
            "select coalesce(p.root, e.a) as x, coalesce(o.root, e.b) as y "
            "from e left join p on e.a = p.id left join p o on e.b = o.id) "
            "where x <> y"
        )
        con.execute("create or replace table e as select * from f")
    con.execute(
        f"copy (select type, value, root as component from nodes join label using (id)) to '{out}' (format parquet)"
    )


def _duckdb_encoded(con: object, files: str) -> None:
    run: Callable[[str], object] = con.execute  # type: ignore[attr-defined]
    run(
        f"create table nodes as select row_number() over () as id, type, value from ("
        f"select type_a as type, value_a as value from '{files}' union select type_b, value_b from '{files}' "
        f"where type_b is not null)"
    )
    run(
        f"create table edges as select x.id as a, y.id as b from '{files}' l "
        "join nodes x on l.type_a = x.type and l.value_a = x.value "
        "join nodes y on l.type_b = y.type and l.value_b = y.value"
    )


METHODS = {"duckdb": duckdb, "scipy": scipy, "igraph": igraph, "networkx": networkx, "splink": splink}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--files", required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    started = time.perf_counter()
    METHODS[given.method](given.files, given.out)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = round(time.process_time(), 2)
    print(json.dumps({"seconds": round(seconds, 2), "peak_mb": round(peak), "cpu_seconds": cpu}))
