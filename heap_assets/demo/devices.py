"""Devices and the browsers or apps on them: each gets an anonymous user_id from Heap, and may log in (heap.md 4).

A *client* is one cookie or one app installation. A kiosk's client is one visit, because the kiosk resets after each.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.chance import DAY, NEVER, SECOND, Flags, Ints, choose, daytime, guid, moments, stream
from heap_assets.demo.people import CUSTOMER, VISITOR, People
from heap_assets.demo.plan import GROWTH_DAYS, Plan

OWN, SHARED_LAPTOP, KIOSK = "own", "shared_laptop", "kiosk"
NULL_DEVICE = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Devices:
    """What people use.

    Attributes
    ----------
    devices
        device Int64 (row number); device_id, kind, platform, device_type, library, browser, model String; person Int64,
        the owner (−1 for a kiosk).
    clients
        client Int64 (row number); device, person, identity Int64 (−1: none); anonymous_id Int64 (0: the client never
        was anonymous); born_at, login_at, end_at Int64 microseconds (`NEVER`); visit Boolean (a kiosk's). Clients of a
        person are adjacent, in the order of persons, kiosk visits last.
    reported
        Per client the `device_id` its events carry: null if blocked, zeros in a privacy mode. String.
    """

    devices: pl.DataFrame
    clients: pl.DataFrame
    reported: pl.Series


def make_devices(plan: Plan, people: People) -> Devices:
    """Draw devices and clients for everybody: own ones, laptops shared in pairs, and a few kiosks."""
    own = _own_devices(plan, people)
    clients = pl.concat([_own_clients(plan, people, own), _guest_clients(plan, people, own)])
    shared = clients.filter(pl.col("anonymous_id") == 0)["device"]
    own = own.with_columns(
        kind=pl.when(pl.col("device").is_in(shared.implode())).then(pl.lit(SHARED_LAPTOP)).otherwise("kind")
    )
    kiosks = _kiosks(plan, own.height)
    clients = pl.concat(
        [clients.sort("person", "device", "born_at", maintain_order=True), _kiosk_visits(plan, people, kiosks)]
    )
    clients = clients.with_row_index("client").with_columns(pl.col("client").cast(pl.Int64))
    devices = pl.concat([own, kiosks])
    return Devices(devices, clients, _reported(plan, devices, clients))


def _described(plan: Plan, frame: pl.DataFrame, style: Ints, label: str) -> pl.DataFrame:
    """Add what a device says about itself: style 0 laptop, 1 phone browser, 2 iOS app, 3 Android app, 4 kiosk."""
    rng = stream(plan.seed, "described", label)
    n = frame.height
    desktop = choose(rng, ("Chrome 131", "Safari 18", "Firefox 132", "Edge 131"), n, (6, 2, 1, 2))
    codes = pl.Series(style.astype(np.uint32))
    numbers = frame["device"]
    return frame.with_columns(
        device_id=pl.Series([f"dev-{guid(plan.seed, label, number)[:18]}" for number in numbers]),
        platform=pl.Series(["Mac OS X", "iOS 18", "iOS 18", "Android 15", "Windows 11"]).gather(codes),
        device_type=pl.Series(["Desktop", "Mobile", "Mobile", "Mobile", "Desktop"]).gather(codes),
        library=pl.Series(["web", "web", "ios", "android", "web"]).gather(codes),
        browser=pl.select(
            pl.when(codes.is_in([0, 4])).then(desktop).when(codes == 1).then(pl.lit("Mobile Safari 18"))
        ).to_series(),
        model=pl.Series([None, "iPhone", "iPhone 16", "Pixel 9", None], dtype=pl.String).gather(codes),
    )


def _own_devices(plan: Plan, people: People) -> pl.DataFrame:
    rng = stream(plan.seed, "devices")
    kind = people.persons["kind"]
    count = np.where((kind == CUSTOMER).to_numpy(), rng.choice([1, 2, 3, 4], people.count, p=[0.35, 0.4, 0.2, 0.05]), 0)
    count = np.where((kind == VISITOR).to_numpy(), rng.choice([1, 2], people.count, p=[0.85, 0.15]), count)
    owner = np.repeat(np.arange(people.count), count)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    style = np.where(slot == 0, 0, rng.choice([0, 1, 2, 3], len(owner), p=[0.15, 0.2, 0.35, 0.3]))
    frame = pl.DataFrame({"device": np.arange(len(owner)), "person": owner}).with_columns(kind=pl.lit(OWN))
    return _described(plan, frame, style, "own")


def _own_clients(plan: Plan, people: People, own: pl.DataFrame) -> pl.DataFrame:
    """One client per device, a second browser on some, and a new cookie on some from a later day on."""
    rng = stream(plan.seed, "clients")
    person = own["person"].to_numpy()
    joined = people.persons["born_at"].to_numpy()[person]
    signup = people.persons["signup_at"].to_numpy()[person]
    first = np.r_[True, person[1:] != person[:-1]]
    base = _timeline(rng, joined, signup, first)
    base["device"], base["person"] = np.arange(own.height), person
    second = np.flatnonzero((own["library"] == "web").to_numpy() & (rng.random(own.height) < 0.18))
    extra = _timeline(rng, joined[second], signup[second], np.zeros(len(second), dtype=bool))
    extra["device"], extra["person"] = second, person[second]
    cleared = np.flatnonzero(rng.random(own.height) < 0.10)
    cleared_at = np.maximum(base["born_at"], np.minimum(base["login_at"], NEVER - DAY))[cleared]
    cleared = cleared[cleared_at < NEVER - DAY]
    cleared_at = cleared_at[cleared_at < NEVER - DAY] + rng.integers(3, 60, len(cleared)) * DAY
    reopened = _timeline(rng, cleared_at, np.minimum(signup[cleared], cleared_at), np.zeros(len(cleared), dtype=bool))
    reopened["born_at"] = cleared_at
    reopened["login_at"] = np.where(
        signup[cleared] < NEVER, cleared_at + rng.integers(40, 400, len(cleared)) * SECOND, NEVER
    )
    reopened["device"], reopened["person"] = cleared, person[cleared]
    base["end_at"][cleared] = cleared_at
    together = {name: np.concatenate([base[name], extra[name], reopened[name]]) for name in base}
    return _client_frame(plan, people, together, "own")


def _timeline(rng: np.random.Generator, joined: Ints, signup: Ints, first: Flags) -> dict[str, Ints]:
    """Say when clients first appear and log in; a person's first client signs up on the day the person does."""
    n = len(joined)
    seconds = rng.integers(40, 400, n) * SECOND
    early = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 21, n)) * DAY
    customer = signup < NEVER
    first_born = np.where(customer, signup - seconds - early, joined)
    later_born = joined + rng.integers(-3, 150, n) * DAY + rng.integers(-3, 4, n) * 3600 * SECOND
    born = np.where(first, first_born, later_born)
    delay = np.where(rng.random(n) < 0.5, seconds, rng.integers(1, 7, n) * DAY)
    login = np.where(born < signup, signup + rng.integers(1, 7, n) * DAY, born + delay)
    login = np.where(rng.random(n) < 0.10, NEVER, login)
    login = np.where(first, signup, login)
    return {
        "born_at": born.astype(np.int64),
        "login_at": np.where(customer, login, NEVER).astype(np.int64),
        "end_at": np.full(n, NEVER),
        "anonymous_id": rng.integers(2**45, 2**53, n),
    }


def _client_frame(plan: Plan, people: People, columns: dict[str, Ints], label: str) -> pl.DataFrame:
    """Attach to each client the identity that it logs in with: a doubled person's later clients use the second one."""
    rng = stream(plan.seed, "client identities", label)
    person = columns["person"]
    second = people.second_identity[person]
    use_second = (second >= 0) & (rng.random(len(person)) < 0.6)
    first_of_person = np.unique(person, return_index=True)[1]
    use_second[first_of_person] = False
    identity = np.where(use_second, second, people.first_identity[person])
    frame = pl.DataFrame(columns).with_columns(identity=pl.Series(identity), visit=pl.lit(False))
    return frame.select("device", "person", "identity", "anonymous_id", "born_at", "login_at", "end_at", "visit")


def _guest_clients(plan: Plan, people: People, own: pl.DataFrame) -> pl.DataFrame:
    """Let a second person log in on somebody's laptop, without a cookie of their own (heap.md 4: not merged).

    Both are busy people who signed up long before, so that both are seen on it.
    """
    rng = stream(plan.seed, "guests")
    settled = people.persons.filter(kind=CUSTOMER).filter(pl.col("signup_at") < plan.midnight - 45 * DAY)
    busy = settled.sort("rate", "person", descending=True)["person"].head(max(2, settled.height // 2)).to_numpy()
    pairs = min(max(1, plan.people // 100), len(busy) // 2)
    chosen = rng.permutation(busy)[: 2 * pairs]
    owner, guest = chosen[:pairs], chosen[pairs:]
    laptop = np.searchsorted(own["person"].to_numpy(), owner)
    born = people.persons["signup_at"].to_numpy()[guest] + rng.integers(1, 40, len(guest)) * DAY
    never = np.full(len(guest), NEVER)
    columns = {"device": laptop, "person": guest, "anonymous_id": np.zeros(len(guest), dtype=np.int64)}
    return _client_frame(plan, people, columns | {"born_at": born, "login_at": born, "end_at": never}, "guest")


def _kiosks(plan: Plan, first: int) -> pl.DataFrame:
    count = max(1, plan.people // 650)
    frame = pl.DataFrame({"device": first + np.arange(count), "person": np.full(count, -1)}).with_columns(
        kind=pl.lit(KIOSK)
    )
    return _described(plan, frame, np.full(count, 4), "kiosk")


def _kiosk_visits(plan: Plan, people: People, kiosks: pl.DataFrame) -> pl.DataFrame:
    """Customers use a kiosk for one visit each; two of three log in, the others stay anonymous."""
    rng = stream(plan.seed, "kiosk visits")
    horizon = plan.days + GROWTH_DAYS
    visits = kiosks.height * horizon * 3
    signup = people.persons["signup_at"].to_numpy()
    customers = np.flatnonzero(signup < NEVER)
    person = rng.choice(customers, visits)
    born = moments(plan.midnight, np.sort(rng.integers(-3, horizon, visits)), daytime(rng, visits))
    login = np.where(rng.random(visits) < 0.65, born + rng.integers(40, 200, visits) * SECOND, NEVER)
    columns = {
        "device": rng.choice(kiosks["device"].to_numpy(), visits),
        "person": person,
        "anonymous_id": rng.integers(2**45, 2**53, visits),
        "born_at": born,
        "login_at": login,
        "end_at": np.where(login < NEVER, login, born) + 1800 * SECOND,
    }
    frame = _client_frame(plan, people, columns, "kiosk").with_columns(visit=pl.lit(True))
    return frame.filter(pl.Series(signup[person] < born))


def _reported(plan: Plan, devices: pl.DataFrame, clients: pl.DataFrame) -> pl.Series:
    """The device id that a client's events carry: 7 % block it, 1 % report zeros."""
    luck = stream(plan.seed, "reported").random(clients.height)
    device_ids = devices["device_id"].gather(clients["device"])
    privacy = pl.when(pl.Series(luck) < 0.08).then(pl.lit(NULL_DEVICE)).otherwise(device_ids)
    return pl.select(pl.when(pl.Series(luck) >= 0.07).then(privacy).alias("device_id")).to_series()


def places(plan: Plan, people: People) -> pl.DataFrame:
    """Return per person where they are. country, region, city, ip: String."""
    rng = stream(plan.seed, "places")
    codes = rng.integers(0, len(words.PLACES), people.count).astype(np.uint32)
    parts = [
        pl.Series(name, [place[i] for place in words.PLACES]) for i, name in enumerate(("country", "region", "city"))
    ]
    octets = rng.integers(1, 255, (2, people.count))
    ip = pl.Series("ip", [f"203.0.{a}.{b}" for a, b in zip(octets[0], octets[1], strict=True)])
    return pl.DataFrame([*(part.gather(pl.Series(codes)) for part in parts), ip])
