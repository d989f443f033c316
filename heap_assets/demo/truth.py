"""Who is who: the true person of every identifier. Kept aside to score the result against; no asset reads it."""

from pathlib import Path

import numpy as np
import polars as pl

from heap_assets.demo.chance import DAY, NEVER
from heap_assets.demo.devices import KIOSK, OWN, SHARED_LAPTOP
from heap_assets.demo.files import unfinished_name
from heap_assets.demo.world import World

IDENTIFIERS = "identifiers.parquet"
AHEAD = 40 * DAY
"""The CRM may know a person, and that person's private address, before the product does."""

OWN_COLUMNS = {
    "email": "email",
    "changed_email": "email",
    "second_email": "email",
    "third_email": "email",
    "product_id": "product_id",
    "crm_id": "crm_id",
    "twin_crm_id": "crm_id",
    "billing_id": "billing_id",
}
"""Columns of `People.persons` that hold identifiers, and their types."""


def true_identifiers(world: World, day: int) -> pl.DataFrame:
    """Return whom each identifier belongs to at the end of a day.

    Returns
    -------
    DataFrame
        identifier_type, identifier String (emails trimmed and in lower case, everything else as in the data);
        person String, null for a value that several people share; shared Boolean; kind String (for devices:
        own, shared_laptop, kiosk; for emails: mailbox if shared; else null). One row per identifier.
    """
    end = world.plan.midnight + (day + 1) * DAY
    names = world.people.persons["person_id"]
    persons = world.people.persons.filter(pl.col("born_at") < end + AHEAD)
    owned = [_owned(kind, persons[column], persons["person_id"]) for column, kind in OWN_COLUMNS.items()]
    identities = world.people.identities
    owners = names.gather(identities["person"])
    owned.append(_owned("heap_identity", identities["value"], owners))
    owned.append(_owned("heap_user_id", identities["heap_user_id"], owners))
    clients = world.devices.clients.filter((pl.col("anonymous_id") != 0) & (pl.col("born_at") < end))
    owned.append(_owned("heap_user_id", clients["anonymous_id"], names.gather(clients["person"])))
    rows = pl.concat([*owned, _devices(world), _mailboxes(world)])
    return rows.filter(pl.col("identifier").is_not_null()).unique().sort("identifier_type", "identifier")


def _owned(kind: str, identifier: pl.Series, person: pl.Series) -> pl.DataFrame:
    """Identifiers of one person each."""
    columns = {"identifier_type": [kind] * len(person), "identifier": identifier.cast(pl.String), "person": person}
    return pl.DataFrame(columns).with_columns(shared=pl.lit(False), kind=pl.lit(None, pl.String))


def _devices(world: World) -> pl.DataFrame:
    devices = world.devices.devices
    owner = world.people.persons["person_id"].gather(devices["person"].clip(0))
    return devices.select(
        identifier_type=pl.lit("device_id"),
        identifier="device_id",
        person=pl.when(pl.col("kind") == OWN).then(owner),
        shared=pl.col("kind").is_in([KIOSK, SHARED_LAPTOP]),
        kind="kind",
    )


def _mailboxes(world: World) -> pl.DataFrame:
    return world.people.accounts.select(
        identifier_type=pl.lit("email"),
        identifier="mailbox",
        person=pl.lit(None, pl.String),
        shared=pl.lit(True),
        kind=pl.lit("mailbox"),
    )


def write_truth(folder: Path, world: World, day: int) -> None:
    """Write who is who as Parquet: all in `identifiers.parquet`, each type in a file of its own, and `persons`."""
    folder.mkdir(parents=True, exist_ok=True)
    identifiers = true_identifiers(world, day)
    _write(identifiers, folder / IDENTIFIERS)
    for (kind,), rows in identifiers.group_by("identifier_type", maintain_order=True):
        _write(rows.drop("identifier_type").rename({"identifier": str(kind)}), folder / f"{kind}.parquet")
    doubled = np.zeros(world.people.count, dtype=bool)
    doubled[world.people.duplicates] = True
    persons = world.people.persons.with_columns(two_identities=pl.Series(doubled), signs_up=pl.col("signup_at") < NEVER)
    _write(
        persons.select(pl.col("person_id").alias("person"), "kind", "signs_up", "two_identities"),
        folder / "persons.parquet",
    )


def _write(rows: pl.DataFrame, path: Path) -> None:
    unfinished = unfinished_name(path)
    rows.write_parquet(unfinished)
    unfinished.replace(path)
