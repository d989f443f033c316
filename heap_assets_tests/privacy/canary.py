"""A lake with a planted person whose values nobody else has, and a scan of bytes that knows nothing of the platform."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from heap_assets import clock
from heap_assets_tests.pipelines.delivery_world import (
    BEFORE,
    DAY,
    LONG_AGO,
    NOW,
    World,
    at,
    contacts,
    events,
    orders,
    users,
)
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, land_all, migration, user

ZOE, BOB = "zoe.canary@x.example", "bob@x.example"
USERS = (770_000_001, 770_000_002)
CRM = "c-zoe-canary7"
CANARIES = (ZOE, CRM, "canary-plan", "o-canary-1", *map(str, USERS))
DAYS = (LONG_AGO, BEFORE, DAY)


def with_zoe(day: date) -> dict[str, pl.DataFrame]:
    """Return the tables of a day with a person in each, and with rows of others that name her."""
    first = day.toordinal() * 10
    signup = events(day, "signup", (first + 1, 1), (first + 2, USERS[0]), (first + 3, 2), (first + 4, USERS[1]))
    signup = signup.with_columns(
        contact_mail=pl.Series([None, ZOE, f"invited by <{ZOE.upper()}>", None], dtype=pl.String),
        plan=pl.Series(["pro", "canary-plan", "pro", "canary-plan"]),
    )
    views = events(day, "pageviews", (first + 5, USERS[0]), (first + 6, 2), path="/")
    views = views.with_columns(path=pl.Series(["/canary-plan", f"/invite?from={ZOE.replace('@', '%40')}&x=1"]))
    people = contacts()
    zoe = people.head(1).with_columns(
        contact_id=pl.lit(CRM), email=pl.lit(ZOE), plan=pl.lit("canary-plan"), visitor=pl.lit(str(USERS[1]))
    )
    return {
        "signup": signup,
        "pageviews": views,
        "contacts": pl.concat([people, zoe]),
        "orders": orders(("o-1", "ann@x.example", at(BEFORE)), ("o-2", BOB, at(DAY)), ("o-canary-1", ZOE, at(BEFORE))),
    }


def make_canary(folder: Path) -> World:
    """Return a world of three resolved days, with landed dumps and rows that were set aside."""
    world = World(folder, "{}")
    for day in DAYS:
        tables = with_zoe(day)
        world.write_day(day, users(*((one, ZOE) for one in USERS)), **tables)
        world.resolve(day)
    bucket = Bucket(folder / "bucket")  # after that: identity would wait until what landed is built
    for number, day in enumerate(DAYS, 1):
        rows = [
            event(number * 100 + 1, f"{day} 10:00:00", USERS[0], plan="canary-plan", contact_mail=ZOE),
            event(number * 100 + 2, f"{day} 11:00:00", 2, plan="pro", contact_mail=f"{ZOE};{BOB}"),
            event(number * 100 + 3, "no time", USERS[1], plan="canary-plan"),
            event(number * 100 + 4, "no time", 2, plan="bobs"),
        ]
        people = [user(2, identity=BOB), *(user(one, identity=ZOE) for one in USERS)]
        stamp = f"{date.fromordinal(day.toordinal() + 1)}T02:00:00"
        bucket.dump(number, stamp, signup=rows, users=people, user_migrations=[migration(USERS[1], USERS[0])])
    land_all(world.project.landing, bucket)
    return world


@pytest.fixture(scope="session")
def canary_base(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        return make_canary(tmp_path_factory.mktemp("canary"))


def copied(base: World, folder: Path, syncs: str = "{}", heap: str = "http://127.0.0.1:9", more: str = "") -> World:
    """Return a lake of its own of the same files: links, because a copied file is another version to the lake."""
    shutil.copytree(base.folder / "lake", folder / "lake", copy_function=os.link)
    shutil.copytree(base.folder / "bucket", folder / "bucket")
    return World(folder, syncs, heap, more=more)


def places_of(folder: Path, *values: str) -> dict[str, list[str]]:
    """Return, for each value, the files below a folder that hold it: as bytes, or as a value of a table."""
    hits: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = b"".join(_readable(path)).lower()
        for value in values:
            if value.lower().encode() in content:
                hits.setdefault(value, []).append(str(path.relative_to(folder)))
    return hits


def _readable(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if data[:4] == b"PAR1":
        frame = pl.read_parquet(io.BytesIO(data))
        yield frame.select(~pl.selectors.binary()).write_ndjson().encode()
        for column in frame.select(pl.selectors.binary()):
            yield b" ".join(column.drop_nulls().to_list())
        yield " ".join(str(pl.read_parquet_metadata(io.BytesIO(data)).get("heap_assets"))).encode()
