"""Suppressed people among Heap's users: nothing of theirs is sent, by whatever key."""

from __future__ import annotations

import polars as pl

from heap_assets import clock
from heap_assets.identity import only_suppressed
from heap_assets.pipelines.golden import standing_partition
from heap_assets.project import Project
from heap_assets.tables import MIGRATIONS, USERS


def suppressed_users(project: Project) -> pl.DataFrame:
    """Return the Heap users that are suppressed people: `user_id` Int64, `identity` String (null for anonymous ones).

    A user is one whose row names a suppressed identifier, and whoever has become, or has been, such a user.
    """
    nobody = pl.DataFrame(schema={"user_id": pl.Int64(), "identity": pl.String()})
    if not project.rules.suppressed:
        return nobody
    users = _newest(project, USERS)
    if users is None:
        return nobody
    named = only_suppressed(users, project.snapshot_sources[USERS], project.rules)
    ids = set(named.select("user_id").collect()["user_id"].drop_nulls())
    migrations = _newest(project, MIGRATIONS)
    if migrations is not None:
        moved = migrations.select("from_user_id", "resolved_to").drop_nulls().collect()
        ends = set(moved.filter(pl.col("from_user_id").is_in(list(ids)))["resolved_to"]) | ids
        ids = ends | set(moved.filter(pl.col("resolved_to").is_in(list(ends)))["from_user_id"])
    known = users.filter(pl.col("user_id").is_in(list(ids))).select("user_id", "identity").collect()
    others = pl.DataFrame({"user_id": sorted(ids - {*known["user_id"]})}, schema={"user_id": pl.Int64()})
    return pl.concat([known, others], how="diagonal")


def _newest(project: Project, asset: str) -> pl.LazyFrame | None:
    day = standing_partition(project.lake, asset, clock.today())
    return project.lake.scan(asset, str(day)) if day else None
