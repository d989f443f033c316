"""Who is who: the true person of every identifier. Kept aside to score the result against; no asset reads it."""

from pathlib import Path

import numpy as np
import polars as pl

from heap_assets.demo.chance import DAY, NEVER
from heap_assets.demo.devices import KIOSK, OWN, SHARED_LAPTOP
from heap_assets.demo.world import World

IDENTIFIERS = "identifiers.parquet"


def true_identifiers(world: World, day: int) -> pl.DataFrame:
    """Return whom each identifier belongs to at the end of a day.

    Returns
    -------
    DataFrame
        identifier_type, identifier String (emails trimmed and in lower case, everything else as in the data);
        person_id String, null for a value that several people share; shared Boolean; kind String (for devices:
        own, shared_laptop, kiosk; for emails: mailbox if shared; else null). One row per identifier.
    """
    end = world.plan.midnight + (day + 1) * DAY
    persons = world.people.persons.filter(pl.col("born_at") < end + 40 * DAY)
    person_id = world.people.persons["person_id"]
    owned = [
        persons.select(identifier=pl.col(column), person_id=pl.col("person_id"), identifier_type=pl.lit(kind))
        for column, kind in (
            ("email", "email"), ("changed_email", "email"), ("second_email", "email"), ("third_email", "email"),
            ("product_id", "product_id"), ("crm_id", "crm_id"), ("twin_crm_id", "crm_id"), ("billing_id", "billing_id"),
        )
    ]  # fmt: skip
    identities = world.people.identities.with_columns(person_id=person_id.gather(world.people.identities["person"]))
    owned.append(identities.select(identifier="value", person_id="person_id", identifier_type=pl.lit("heap_identity")))
    users = identities.select(identifier=pl.col("heap_user_id").cast(pl.String), person_id="person_id")
    clients = world.devices.clients.with_columns(person_id=person_id.gather(world.devices.clients["person"]))
    clients = clients.filter((pl.col("anonymous_id") != 0) & (pl.col("born_at") < end))
    anonymous = clients.select(identifier=pl.col("anonymous_id").cast(pl.String), person_id="person_id")
    owned.append(pl.concat([users, anonymous]).with_columns(identifier_type=pl.lit("heap_user_id")))
    rows = pl.concat([part.select("identifier_type", "identifier", "person_id") for part in owned])
    rows = rows.filter(pl.col("identifier").is_not_null()).with_columns(
        shared=pl.lit(False), kind=pl.lit(None, pl.String)
    )
    return pl.concat([rows, _devices(world), _mailboxes(world)]).unique().sort("identifier_type", "identifier")


def _devices(world: World) -> pl.DataFrame:
    person_id = world.people.persons["person_id"]
    devices = world.devices.devices
    owner = person_id.gather(devices["person"].clip(0))
    shared = pl.col("kind").is_in([KIOSK, SHARED_LAPTOP])
    return devices.select(
        identifier_type=pl.lit("device_id"), identifier="device_id",
        person_id=pl.when(pl.col("kind") == OWN).then(owner), shared=shared, kind="kind",
    )  # fmt: skip


def _mailboxes(world: World) -> pl.DataFrame:
    return world.people.accounts.select(
        identifier_type=pl.lit("email"),
        identifier="mailbox",
        person_id=pl.lit(None, pl.String),
        shared=pl.lit(True),
        kind=pl.lit("mailbox"),
    )


def write_truth(folder: Path, world: World, day: int) -> None:
    """Write who is who as Parquet: all in `identifiers.parquet`, each type in a file of its own, and `persons.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    identifiers = true_identifiers(world, day)
    _write(identifiers, folder / IDENTIFIERS)
    for (kind,), rows in identifiers.group_by("identifier_type", maintain_order=True):
        _write(rows.drop("identifier_type").rename({"identifier": str(kind)}), folder / f"{kind}.parquet")
    doubled = np.zeros(world.people.count, dtype=bool)
    doubled[world.people.duplicates] = True
    persons = world.people.persons.with_columns(two_identities=pl.Series(doubled), signs_up=pl.col("signup_at") < NEVER)
    _write(persons.select("person_id", "kind", "signs_up", "two_identities"), folder / "persons.parquet")


def _write(rows: pl.DataFrame, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    rows.write_parquet(unfinished)
    unfinished.replace(path)
