"""Heap's snapshot tables: `users`, where whoever changed appears again, and `user_migrations`, always whole."""

import numpy as np
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.chance import DAY, NEVER, Ints, pick
from heap_assets.demo.world import World

PUSHED_AFTER = 2 * DAY
"""What the company pushes into Heap (`plan`, `deal_stage`) is two days old when it arrives there."""

REWRITTEN_EVERY = 2
"""When Heap merges two identities, every second migration to the first one is rewritten, the others stay a chain."""


def users_of(world: World, first: int, last: int, activity: pl.DataFrame) -> pl.DataFrame:
    """Return the `users` rows that the dump of a day carries.

    Parameters
    ----------
    world
        The company.
    first, last
        Days that the dump covers; values are as of the end of `last`.
    seen
        user_id, person, last_seen Int64: who was active in those days.

    Returns
    -------
    DataFrame
        user_id Int64; identity, handle, email, plan, role, account_id, _email, deal_stage String; joindate,
        last_modified Int64 microseconds. One row per user that appeared, was active or changed in those days.
    """
    start = world.plan.midnight + first * DAY
    end = world.plan.midnight + (last + 1) * DAY
    everyone = pl.concat([_anonymous(world), _identified(world, end)]).filter(pl.col("joindate") < end)
    active = activity.group_by("user_id").agg(pl.col("last_seen").max())
    rows = everyone.join(active, on="user_id", how="left", maintain_order="left")
    rows = rows.with_columns(last_modified=pl.max_horizontal("joindate", "changed_at", "last_seen"))
    if first > 0:
        rows = rows.filter(pl.col("last_modified") >= start)
    return _described(world, rows, end).sort("joindate", "user_id")


def _anonymous(world: World) -> pl.DataFrame:
    """One user per client that was ever anonymous."""
    clients = world.devices.clients.filter(pl.col("anonymous_id") != 0)
    return clients.select(
        pl.col("anonymous_id").alias("user_id"),
        "person",
        pl.lit(-1, pl.Int64).alias("identity"),
        pl.col("born_at").alias("joindate"),
        pl.lit(None, pl.Int64).alias("changed_at"),
    )


def _identified(world: World, end: int) -> pl.DataFrame:
    """One user per identity that has logged in somewhere, or that another identity was merged into."""
    identities = world.people.identities
    first_login = (
        world.devices.clients.filter(pl.col("login_at") < NEVER).group_by("identity").agg(pl.col("login_at").min())
    )
    merges = identities.filter(pl.col("merged_at") < end).select(
        pl.col("merged_into").alias("heap_user_id"), pl.col("merged_at").alias("since")
    )
    rows = identities.join(first_login, on="identity", how="left", maintain_order="left")
    rows = rows.join(merges, on="heap_user_id", how="left", maintain_order="left")
    changed = _changes(world, end)[rows["person"].to_numpy()]
    return rows.select(
        pl.col("heap_user_id").alias("user_id"), "person", "identity",
        pl.min_horizontal("login_at", "since").alias("joindate"),
        pl.when(pl.Series(changed) > 0).then(pl.Series(changed)).alias("changed_at"),
    ).filter(pl.col("joindate").is_not_null())  # fmt: skip


def _changes(world: World, end: int) -> Ints:
    """Return per person when a user property last changed before a moment (0: never): plan, email or deal stage."""
    changed = np.zeros(world.people.count, dtype=np.int64)
    upgrades = world.business.upgrades.filter(pl.col("at") < end - PUSHED_AFTER)
    np.maximum.at(changed, upgrades["person"].to_numpy(), upgrades["at"].to_numpy() + PUSHED_AFTER)
    email_at = world.people.persons["email_changed_at"].to_numpy()
    reached = world.business.stage_at
    stages = np.where(reached < end - PUSHED_AFTER, reached + PUSHED_AFTER, 0).max(axis=1)
    return np.asarray(np.maximum.reduce([changed, np.where(email_at < end, email_at, 0), stages]), dtype=np.int64)


def _described(world: World, rows: pl.DataFrame, end: int) -> pl.DataFrame:
    """Add what Heap knows about a user; `plan` and `deal_stage` are what was pushed to Heap two days before."""
    person = rows["person"].to_numpy()
    persons = world.people.persons[person]
    pushed_until = end - PUSHED_AFTER - 1
    plans = pick(words.PLANS, world.business.plan_as_of(world.people.count, pushed_until)[person])
    is_identified = pl.col("identity") >= 0
    value = world.people.identities["value"].gather(rows["identity"].clip(0))
    email = persons.select(
        pl.when(pl.col("email_changed_at") < end).then("changed_email").otherwise("email")
    ).to_series()
    typed = pl.when(pl.col("person") % 17 == 0).then(email.str.to_titlecase()).otherwise(email)
    described = rows.with_columns(
        email=typed, _email=email.str.to_uppercase(), handle=pl.when(pl.col("person") % 3 == 0).then(persons["handle"]),
        plan=plans, deal_stage=world.business.stage_as_of(pushed_until).gather(pl.Series(person)),
        account_id=world.people.accounts["account_id"].gather(persons["account"]),
        role=pick(("viewer", "editor", "admin"), person % 3),
    )  # fmt: skip
    named = [
        pl.when(is_identified).then(pl.col(name)).alias(name)
        for name in ("handle", "email", "_email", "plan", "deal_stage", "account_id", "role")
    ]
    return described.with_columns(pl.when(is_identified).then(value).alias("identity"), *named).select(
        "user_id",
        "identity",
        "handle",
        "email",
        "joindate",
        "last_modified",
        "plan",
        "role",
        "account_id",
        "_email",
        "deal_stage",
    )


def migrations_of(world: World, last: int) -> pl.DataFrame:
    """Return `user_migrations` as of the end of a day: from_user_id, to_user_id, time Int64 (microseconds), by time.

    Anonymous users lead to the hash of their identity (heap.md 2.6). Where Heap merged two identities, half of the
    migrations form a chain of two; one planted person has a cycle.
    """
    end = world.plan.midnight + (last + 1) * DAY
    identities = world.people.identities
    clients = world.devices.clients.filter((pl.col("login_at") < end) & (pl.col("anonymous_id") != 0))
    target = identities[clients["identity"].to_numpy()].select("heap_user_id", "merged_at", "merged_into")
    rewritten = (target["merged_at"] < end) & (clients["client"] % REWRITTEN_EVERY == 0)
    first = clients.select(pl.col("anonymous_id").alias("from_user_id"), pl.col("login_at").alias("time")).with_columns(
        to_user_id=pl.select(
            pl.when(rewritten).then(target["merged_into"]).otherwise(target["heap_user_id"])
        ).to_series()
    )
    merged = identities.filter(pl.col("merged_at") < end).select(
        pl.col("heap_user_id").alias("from_user_id"),
        pl.col("merged_at").alias("time"),
        pl.col("merged_into").alias("to_user_id"),
    )
    circle = merged.filter(pl.col("from_user_id").is_in(_cycle_ids(world).implode())).select(
        pl.col("to_user_id").alias("from_user_id"), pl.col("time") + DAY, pl.col("from_user_id").alias("to_user_id")
    )
    rows = pl.concat([first, merged, circle], how="diagonal").select("from_user_id", "to_user_id", "time")
    return rows.sort("time", "from_user_id")


def _cycle_ids(world: World) -> pl.Series:
    identity = world.people.first_identity[world.people.cycle]
    return world.people.identities["heap_user_id"].gather(pl.Series(identity))
