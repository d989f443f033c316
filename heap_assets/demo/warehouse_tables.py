"""The company's warehouse, a DuckDB file: CRM, billing, product and support, each keyed its own way, as of a day."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from heap_assets.demo import faults, words
from heap_assets.demo.business import MONTHLY
from heap_assets.demo.chance import DAY, NEVER, Flags, Ints, choose, pick, stream
from heap_assets.demo.events import as_typed
from heap_assets.demo.files import unfinished_name
from heap_assets.demo.people import CUSTOMER
from heap_assets.demo.world import World

SELLERS = ("sam", "lee", "kim", "alex")


def warehouse_tables(world: World, day: int) -> dict[str, pl.DataFrame]:
    """Return every warehouse table as it stands at the end of a day.

    Returns
    -------
    dict
        Relation → frame; times Datetime("us", "UTC"), amounts Decimal(10, 2), keys String.
    """
    end = world.plan.midnight + (day + 1) * DAY
    relations = {
        "crm.contacts": _contacts(world, end),
        "crm.accounts": _crm_accounts(world, end),
        "billing.customers": _customers(world, end),
        "product.accounts": _product_accounts(world, end),
        "product.users": _product_users(world, end),
        "support.tickets": _tickets(world, end),
    }
    return {relation: faults.spoil_relation(world.plan, relation, day, rows) for relation, rows in relations.items()}


def write_warehouse(path: Path, world: World, day: int) -> None:
    """Write the warehouse as of a day into one DuckDB file, replacing the file in place as a whole."""
    unfinished = unfinished_name(path)
    unfinished.unlink(missing_ok=True)
    with duckdb.connect(str(unfinished)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for relation, rows in warehouse_tables(world, day).items():
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {relation.partition('.')[0]}")
            connection.register("rows_to_write", rows.to_arrow())
            connection.execute(f"CREATE TABLE {relation} AS SELECT * FROM rows_to_write")
            connection.unregister("rows_to_write")
    unfinished.replace(path)


def _moment(values: Ints) -> pl.Series:
    """Microseconds since 1970 as UTC timestamps; moments that never come are null."""
    series = pl.Series(values)
    return pl.select(pl.when(series < NEVER // 2).then(series).cast(pl.Datetime("us", "UTC"))).to_series()


def _latest(end: int, *moments: Ints) -> Ints:
    """Return the latest of some moments that is before `end`."""
    return np.asarray(np.maximum.reduce([np.where(moment < end, moment, 0) for moment in moments]), dtype=np.int64)


def _contacts(world: World, end: int) -> pl.DataFrame:
    """CRM contacts: half have the email of today, others an old or private one; 3 % have none, some have junk."""
    rng = stream(world.plan.seed, "contacts")
    persons, business = world.people.persons, world.business
    n = persons.height
    private = pl.Series(rng.random(n) < 0.2)
    follows = pl.Series(rng.random(n) < 0.5) & (pl.col("email_changed_at") < end)
    now = pl.when(follows).then("changed_email").otherwise("email")
    own = pl.when(private).then(pl.coalesce("second_email", now)).otherwise(now)
    typed = as_typed(own, rng, n)
    junk = choose(rng, (None, "n/a", "test@example.com", ""), n, (30, 5, 5, 5))
    reached = [business.stage_at[:, number] for number in range(business.stage_at.shape[1])]
    rows = persons.with_columns(
        email=pl.when(pl.Series(rng.random(n) < 0.045)).then(junk).otherwise(typed),
        name=pl.format("{} {}", "given", "surname"),
        account_id=world.people.accounts["crm_account_id"].gather(persons["account"]),
        stage=business.stage_as_of(end - 1),
        owner=pick(SELLERS, persons["account"].to_numpy() % 4),
        created_at=_moment(business.in_crm_at),
        updated_at=_moment(_latest(end, business.in_crm_at, *reached)),
    )
    in_crm = rows.filter(pl.Series(business.in_crm_at < end))
    columns = ("email", "name", "account_id", "stage", "owner", "created_at", "updated_at")
    twins = in_crm.filter(pl.col("twin_crm_id").is_not_null()).with_columns(crm_id="twin_crm_id")
    return pl.concat([in_crm, twins]).select(pl.col("crm_id").alias("contact_id"), *columns).sort("contact_id")


def _account_born(world: World) -> Ints:
    """Per account, when the first of its people joined."""
    accounts, persons = world.people.accounts, world.people.persons
    born = np.full(accounts.height, NEVER)
    np.minimum.at(born, persons["account"].to_numpy(), persons["born_at"].to_numpy())
    return born


def _crm_accounts(world: World, end: int) -> pl.DataFrame:
    born = _account_born(world)
    number = np.arange(len(born))
    week = end // (7 * DAY)
    rows = world.people.accounts.with_columns(
        owner=pick(SELLERS, number % 4),
        health=pick(("green", "green", "yellow", "red"), (number * 7 + week) % 4),
        created_at=_moment(born - 5 * DAY),
        updated_at=_moment(np.full(len(born), end - DAY // 3)),
        product_account_id=pl.col("account_id"),
        account_id=pl.col("crm_account_id"),
    )
    columns = ("account_id", "name", "domain", "industry", "employees", "owner", "health")
    return rows.filter(pl.Series(born < end)).select(*columns, "product_account_id", "created_at", "updated_at")


def _customers(world: World, end: int) -> pl.DataFrame:
    """Billing customers: some bill to the company's shared mailbox, two of five carry the CRM's contact id."""
    rng = stream(world.plan.seed, "customers")
    persons, business = world.people.persons, world.business
    n = persons.height
    mailbox = world.people.accounts["mailbox"].gather(persons["account"])
    private = pl.when(pl.Series(rng.random(n) < 0.35)).then(pl.coalesce("second_email", "email")).otherwise("email")
    email = pl.when(pl.Series(rng.random(n) < 0.05)).then(mailbox).otherwise(private)
    plans = business.plan_as_of(n, end - 1)
    upgrades = business.upgrades.filter(pl.col("at") < end)
    upgraded_at = np.zeros(n, dtype=np.int64)
    np.maximum.at(upgraded_at, upgrades["person"].to_numpy(), upgrades["at"].to_numpy())
    rows = persons.with_columns(
        customer_id="billing_id",
        email=as_typed(email, rng, n),
        crm_contact_id=pl.when(pl.Series(rng.random(n) < 0.4)).then("crm_id"),
        plan=pick(words.PLANS, plans),
        mrr=pick([f"{price:.2f}" for price in MONTHLY], plans).cast(pl.Decimal(10, 2)),
        currency=pick(("USD", "EUR"), np.arange(n) % 2),
        status=choose(rng, ("active", "past_due"), n, (94, 6)),
        created_at=_moment(business.in_billing_at),
        updated_at=_moment(_latest(end, business.in_billing_at, upgraded_at)),
    )
    columns = (
        "customer_id",
        "email",
        "crm_contact_id",
        "plan",
        "mrr",
        "currency",
        "status",
        "created_at",
        "updated_at",
    )
    return rows.filter(pl.Series(business.in_billing_at < end)).select(*columns).sort("customer_id")


def _product_accounts(world: World, end: int) -> pl.DataFrame:
    persons = world.people.persons
    joined = persons["signup_at"].to_numpy() < end
    seats = np.bincount(persons["account"].to_numpy()[joined], minlength=world.people.accounts.height)
    plans = np.zeros(len(seats), dtype=np.int64)
    np.maximum.at(plans, persons["account"].to_numpy(), world.business.plan_as_of(persons.height, end - 1))
    rows = world.people.accounts.with_columns(
        seats=pl.Series(seats), plan=pick(words.PLANS, plans), created_at=_moment(_account_born(world)),
        updated_at=_moment(np.full(len(seats), end - DAY // 4)),
    )  # fmt: skip
    rows = rows.filter(pl.col("seats") > 0)
    return rows.select("account_id", "crm_account_id", "name", "plan", "seats", "created_at", "updated_at")


def _product_users(world: World, end: int) -> pl.DataFrame:
    """The product's own users; four of five rows say which identity Heap was given, half which user_id."""
    rng = stream(world.plan.seed, "product users")
    persons, identities = world.people.persons, world.people.identities
    n = persons.height
    first = np.maximum(world.people.first_identity, 0)
    knows_identity, knows_user = rng.random(n) < 0.8, rng.random(n) < 0.5
    changed = pl.col("email_changed_at") < end
    rows = persons.with_columns(
        email=as_typed(pl.when(changed).then("changed_email").otherwise("email"), rng, n),
        account_id=world.people.accounts["account_id"].gather(persons["account"]),
        heap_identity=pl.when(pl.Series(knows_identity)).then(identities["value"].gather(first)),
        heap_user_id=pl.when(pl.Series(knows_user)).then(identities["heap_user_id"].gather(first)),
        role=pick(("viewer", "editor", "admin"), np.arange(n) % 3),
        created_at=_moment(persons["signup_at"].to_numpy()),
        last_login_at=_moment(_latest(end, *_logins(world))),
    )  # fmt: skip
    rows = rows.filter((pl.col("kind") == CUSTOMER) & (pl.col("signup_at") < end))
    columns = ("account_id", "email", "heap_identity", "heap_user_id", "role", "created_at", "last_login_at")
    return rows.select(pl.col("product_id").alias("user_id"), *columns).sort("user_id")


def _logins(world: World) -> list[Ints]:
    """Per person, moments of logging in: the sign-up, and the first time on each further client."""
    clients = world.devices.clients
    moments = [world.people.persons["signup_at"].to_numpy()]
    nth = clients.select(pl.int_range(pl.len()).over("person")).to_series().to_numpy()
    for number in range(1, min(int(nth.max()) + 1, 6)):
        at = np.full(world.people.count, NEVER)
        chosen: Flags = nth == number
        at[clients["person"].to_numpy()[chosen]] = clients["login_at"].to_numpy()[chosen]
        moments.append(at)
    return moments


def _tickets(world: World, end: int) -> pl.DataFrame:
    """Support tickets: requesters write from any of their addresses; a few come from machines."""
    rng = stream(world.plan.seed, "ticket emails")
    tickets = world.business.tickets
    n = tickets.height
    persons = world.people.persons[tickets["person"].to_numpy()]
    second = pl.coalesce("second_email", "email")
    written_from = [pl.col("email"), pl.coalesce("third_email", second), second]
    own = pl.when(tickets["email_choice"] == 0).then(written_from[0])
    own_or_other = own.when(tickets["email_choice"] == 1).then(written_from[1]).otherwise(written_from[2])
    luck = pl.Series(rng.random(n))
    machine = pl.lit("noreply@") + world.people.accounts["domain"].gather(persons["account"])
    typed = as_typed(own_or_other, rng, n)
    linked = pl.Series(rng.random(n) < 0.6) & (luck >= 0.03)
    requester = persons.select(
        pl.when(luck < 0.02)
        .then(machine)
        .when(luck < 0.03)
        .then(pl.lit("N/A"))
        .otherwise(typed)
        .alias("requester_email"),
        pl.when(linked).then("product_id").alias("product_user_id"),
    )
    solved_at = pl.col("at") + pl.col("solved_after")
    solved = solved_at < end
    rows = tickets.with_columns(requester).with_columns(
        status=pl.when(solved).then(pl.lit("solved")).otherwise(pl.lit("open")),
        created_at=pl.col("at").cast(pl.Datetime("us", "UTC")),
        updated_at=pl.when(solved).then(solved_at).otherwise("at").cast(pl.Datetime("us", "UTC")),
    )
    columns = ("ticket_id", "requester_email", "product_user_id", "subject", "priority", "status")
    return rows.filter(pl.col("at") < end).select(*columns, "created_at", "updated_at")
