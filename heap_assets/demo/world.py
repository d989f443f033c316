"""Everything about the company that does not depend on the day being written, made once per call."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from heap_assets.demo.business import Business, make_business
from heap_assets.demo.chance import NEVER, Ints
from heap_assets.demo.devices import Devices, make_devices, places
from heap_assets.demo.people import People, make_people
from heap_assets.demo.plan import Plan


@dataclass(frozen=True)
class World:
    """The company: its plan, its people, and what they use."""

    plan: Plan
    people: People
    devices: Devices
    business: Business

    @cached_property
    def client_facts(self) -> pl.DataFrame:
        """Return what every event of a client says, one row per client, all String."""
        clients = self.devices.clients
        device = self.devices.devices.select(
            "platform", "device_type", "library", "browser", pl.col("model").alias("device")
        )
        persons = self.people.persons
        account = self.people.accounts["account_id"].gather(persons["account"])
        owner = places(self.plan, self.people).with_columns(persons["product_id"].alias("product_user_id"), account)
        facts = pl.concat([device[clients["device"]], owner[clients["person"]]], how="horizontal")
        return facts.with_columns(device_id=self.devices.reported)

    @cached_property
    def arrays(self) -> dict[str, Ints]:
        """Return the numeric columns of `devices.clients` as arrays."""
        numeric = self.devices.clients.drop("visit")
        return {name: numeric[name].to_numpy() for name in numeric.columns}

    def user_ids(self, client: Ints, at: Ints) -> Ints:
        """Return the user_id that Heap records for a client at a moment.

        Anonymous before the login; then the hash of the identity; then, if Heap merged that identity, the id it
        was merged into.
        """
        identity = self.arrays["identity"][client]
        identities = self.people.identities
        own = identities["heap_user_id"].to_numpy()[identity]
        merged_at = identities["merged_at"].to_numpy()[identity]
        into = identities["merged_into"].to_numpy()[identity]
        logged_in_as = np.where(at < merged_at, own, into)
        return np.where(at < self.arrays["login_at"][client], self.arrays["anonymous_id"][client], logged_in_as).astype(
            np.int64
        )

    def identified(self, client: Ints, at: Ints) -> npt.NDArray[np.bool_]:
        """Tell whether the client is logged in at a moment."""
        return np.asarray((at >= self.arrays["login_at"][client]) & (self.arrays["login_at"][client] < NEVER))


def make_world(plan: Plan) -> World:
    """Make the company that follows from a plan."""
    people = make_people(plan)
    return World(plan, people, make_devices(plan, people), make_business(plan, people))
