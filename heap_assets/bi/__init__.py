"""Files that tell BI tools and dbt of the published tables: what they mean and how they join."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from heap_assets.bi import dbt, lookml, metabase, superset, tableau
from heap_assets.bi.layer import Column, Exposure, Join, Kind, Layer, Table

TOOLS: Mapping[str, Callable[[Layer], Iterator[tuple[str, str]]]] = {
    "lookml": lookml.files,
    "metabase": metabase.files,
    "tableau": tableau.files,
    "superset": superset.files,
    "dbt": dbt.files,
}
"""Tool to what writes its files: path below the folder, and text."""

__all__ = ["TOOLS", "Column", "Exposure", "Join", "Kind", "Layer", "Table"]
