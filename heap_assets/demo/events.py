"""The event tables of Heap, each with custom properties of its own (heap.md 2.4, 2.7).

Tables that follow from pageviews are made per day of use; `sign_up`, `plan_upgraded` and `ticket_opened` follow from
people's timelines and are made for a range of days of arrival, because servers send some of them days late.
"""

import numpy as np
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.behaviour import BUILT_IN, DayOfUse, login_session_ids
from heap_assets.demo.business import MONTHLY
from heap_assets.demo.chance import DAY, SECOND, Ints, choose, pick, row_ids, stream
from heap_assets.demo.world import World

SENT_BY = "heap_assets"
RETROACTIVE_DAYS = 30
"""A newly synced event table reaches back, so its first dump has rows older than the company's first day."""

COMMON = ("event_id", "user_id", "session_id", "type", "library", *BUILT_IN)
INTERNAL = ("time", "arrival", "client", "person")


def events_of_use(world: World, use: DayOfUse) -> dict[str, pl.DataFrame]:
    """Return the event tables that follow from a day's pageviews.

    Returns
    -------
    dict
        Table name → frame with Heap's common columns, the table's own ones (String), and the internal ones.
    """
    views = use.pageviews
    app, web = views.filter("identified"), views.filter(pl.col("library") == "web")
    return {
        "feature_used": _feature_used(world, use.day, app),
        "invite_teammate": _invite_teammate(world, use.day, app),
        "_key_events__export_data_": _export_data(world, use.day, app),
        "checkout_complete": _checkout_complete(world, use.day, app),
        "click_on_anything": _click_on_anything(world, use.day, web),
    }


def _after_views(rng: np.random.Generator, views: pl.DataFrame, share: float, kind: str | None = None) -> pl.DataFrame:
    """Start an event table: some of the pageviews, each followed by the event some seconds later."""
    rows = views.filter(pl.Series(rng.random(views.height) < share))
    return rows.with_columns(
        event_id=pl.Series(rng.integers(2**40, 2**53, rows.height)),
        time=pl.col("time") + pl.Series(rng.integers(1, 25 * SECOND, rows.height)),
        type=pl.lit(kind, pl.String),
    )


def _shaped(rows: pl.DataFrame, *custom: str) -> pl.DataFrame:
    return rows.select(*COMMON, *custom, *INTERNAL)


def _feature_used(world: World, day: int, app: pl.DataFrame) -> pl.DataFrame:
    rng = stream(world.plan.seed, "feature_used", day)
    rows = _after_views(rng, app, 0.45)
    rows = rows.with_columns(
        feature=choose(rng, words.FEATURES, rows.height),
        duration_ms=pl.Series(rng.integers(80, 60_000, rows.height)).cast(pl.String),
    )
    return _shaped(rows, "feature", "duration_ms", "device_id", "product_user_id", "account_id")


def _invite_teammate(world: World, day: int, app: pl.DataFrame) -> pl.DataFrame:
    rng = stream(world.plan.seed, "invite_teammate", day)
    rows = _after_views(rng, app, 0.03)
    rows = rows.with_columns(
        invited_role=choose(rng, ("viewer", "editor", "admin"), rows.height),
        message=choose(rng, ("Please join our board", "Have a look at this report", None), rows.height),
    )
    return _shaped(rows, "invited_role", "message", "device_id", "product_user_id", "account_id")


def _export_data(world: World, day: int, app: pl.DataFrame) -> pl.DataFrame:
    rng = stream(world.plan.seed, "export_data", day)
    rows = _after_views(rng, app, 0.04)
    rows = rows.with_columns(
        format=choose(rng, ("csv", "xlsx", "parquet"), rows.height, (6, 3, 1)),
        exported_rows=pl.Series(rng.integers(1, 200_000, rows.height)).cast(pl.String),
    )
    return _shaped(rows, "format", "exported_rows", "device_id", "product_user_id")


def _checkout_complete(world: World, day: int, app: pl.DataFrame) -> pl.DataFrame:
    """Orders; people type whichever email comes to mind. One in twelve is sent by a server, up to three days late."""
    rng = stream(world.plan.seed, "checkout_complete", day)
    rows = _after_views(rng, app, 0.025)
    n = rows.height
    order = pl.Series(rng.integers(10_000_000, 99_999_999, n)).cast(pl.String)
    server = pl.Series(rng.random(n) < 0.08)
    rows = rows.with_columns(
        order_id=pl.lit("ord_") + order,
        amount=pl.Series([f"{cents / 100:.2f}" for cents in rng.integers(500, 40_000, n)], dtype=pl.String),
        currency=choose(rng, ("USD", "EUR", "GBP"), n, (5, 3, 1)),
        email=typed_emails(world, rng, rows["person"].to_numpy(), rows["time"].to_numpy()),
        library=pl.when(server).then(pl.lit("server")).otherwise("library"),
        arrival=pl.col("arrival") + pl.when(server).then(pl.Series(rng.integers(0, 4, n))).otherwise(0),
    )
    blank = [
        pl.when(server).then(None).otherwise(pl.col(name)).alias(name)
        for name in (*BUILT_IN, "session_id", "device_id")
    ]
    return _shaped(rows.with_columns(blank), "order_id", "amount", "currency", "email", "device_id", "product_user_id")


def _click_on_anything(world: World, day: int, web: pl.DataFrame) -> pl.DataFrame:
    rng = stream(world.plan.seed, "click_on_anything", day)
    rows = _after_views(rng, web, 0.15, "click")
    n = rows.height
    rows = rows.with_columns(
        href=choose(rng, words.APP_PATHS, n),
        target_text=choose(rng, ("Save", "Next", "Open", "Sign up", "Learn more"), n),
        target_tag=choose(rng, ("button", "a", "div"), n),
    )
    return _shaped(rows, "href", "target_text", "target_tag", "path", "device_id")


def typed_emails(world: World, rng: np.random.Generator, person: Ints, at: Ints) -> pl.Series:
    """Return an email of each person as typed at a moment: mostly the first, some with capitals or blanks around."""
    persons = world.people.persons[person]
    luck = pl.Series(rng.random(len(person)))
    current = pl.when(pl.col("email_changed_at") <= pl.Series(at)).then("changed_email").otherwise("email")
    other = pl.coalesce(pl.when(luck < 0.25).then("second_email"), pl.when(luck < 0.4).then("third_email"), current)
    return persons.select(as_typed(other, rng, len(person)).alias("email")).to_series()


def as_typed(email: pl.Expr, rng: np.random.Generator, count: int) -> pl.Expr:
    """Add what people do to an email when they type it: capitals in 8 %, a blank before or after in 4 %."""
    luck = pl.Series(rng.random(count))
    return (
        pl.when(luck < 0.05).then(email.str.to_titlecase())
        .when(luck < 0.08).then(email.str.to_uppercase())
        .when(luck < 0.10).then(pl.lit(" ") + email)
        .when(luck < 0.12).then(email + pl.lit("  "))
        .otherwise(email)
    )  # fmt: skip


def sign_ups(world: World, first_arrival: int, last_arrival: int) -> pl.DataFrame:
    """Return the `sign_up` rows of a range of days; the very first dump also has those of the 30 days before."""
    clients = world.devices.clients
    signup_at = world.people.persons["signup_at"].gather(clients["person"])
    start = world.plan.midnight + first_arrival * DAY
    end = world.plan.midnight + (last_arrival + 1) * DAY
    chosen = clients.filter(
        (pl.col("login_at") == signup_at) & pl.col("login_at").is_between(start, end, closed="left")
    )
    client, person = chosen["client"].to_numpy(), chosen["person"].to_numpy()
    at = chosen["login_at"].to_numpy() + SECOND
    event_id = row_ids(world.plan.seed, "sign_up", client)
    shouts = pl.when(pl.Series(event_id % 11 == 0)).then(pl.col("email").str.to_uppercase()).otherwise("email")
    rows = world.client_facts[client].with_columns(
        event_id=pl.Series(event_id),
        session_id=pl.Series(login_session_ids(world, client)),
        user_id=pl.Series(world.user_ids(client, at)),
        type=pl.lit("submit"),
        time=pl.Series(at),
        arrival=pl.Series((at - world.plan.midnight) // DAY),
        client=pl.Series(client),
        person=pl.Series(person),
        method=pick(("email", "google", "sso"), event_id % 3),
        plan_choice=pick(words.PLANS, event_id % 4),
        email=world.people.persons[person].select(shouts).to_series(),
    )
    return _shaped(rows, "method", "plan_choice", "email", "device_id", "product_user_id", "account_id")


def plan_upgrades(world: World, first_arrival: int, last_arrival: int) -> pl.DataFrame:
    """Return `plan_upgraded` rows by day of arrival: billing reports them from a server, up to 12 days after the fact.

    Every tenth is followed by one that we sent ourselves an hour later (`sent_by`), on somebody whom we then took for
    the payer: it names the payer's billing id and must not become a link.
    """
    upgrades = world.business.upgrades
    number = np.arange(upgrades.height)
    late = np.where(number % 4 == 0, number % 13, 0)
    arrival = (upgrades["at"].to_numpy() - world.plan.midnight) // DAY + late
    rows = upgrades.with_columns(
        number=pl.Series(number),
        arrival=pl.Series(arrival),
        payer=pl.col("person"),
        sent_by=pl.lit(None, pl.String),
    )
    sent_back = rows.filter(pl.col("number") % 10 == 0).with_columns(
        number=pl.col("number") + upgrades.height,
        at=pl.col("at") + 3600 * SECOND,
        person=_somebody_else(world, pl.col("person")),
        sent_by=pl.lit(SENT_BY),
    )
    rows = pl.concat([rows, sent_back]).filter(pl.col("arrival").is_between(first_arrival, last_arrival))
    custom = {
        "customer_id": world.people.persons["billing_id"].gather(rows["payer"]),
        "from_plan": pick(words.PLANS, rows["from_plan"].to_numpy()),
        "to_plan": pick(words.PLANS, rows["to_plan"].to_numpy()),
        "mrr": pick([f"{price:.2f}" for price in MONTHLY], rows["to_plan"].to_numpy()),
        "sent_by": rows["sent_by"],
    }
    return _server_rows(world, "plan_upgraded", rows, custom)


def tickets_opened(world: World, first_arrival: int, last_arrival: int) -> pl.DataFrame:
    """Return `ticket_opened` rows: all sent by ourselves, every twentieth to somebody else than the requester."""
    arrival = (pl.col("at") - world.plan.midnight) // DAY
    rows = world.business.tickets.with_columns(
        number=pl.int_range(pl.len()), arrival=arrival, requester=pl.col("person")
    )
    rows = rows.filter(pl.col("arrival").is_between(first_arrival, last_arrival))
    wrong = pl.col("number") % 20 == 0
    rows = rows.with_columns(person=pl.when(wrong).then(_somebody_else(world, pl.col("person"))).otherwise("person"))
    custom = {
        "ticket_id": rows["ticket_id"],
        "priority": rows["priority"],
        "requester_email": world.people.persons["email"].gather(rows["requester"]),
        "sent_by": pl.Series([SENT_BY] * rows.height, dtype=pl.String),
    }
    return _server_rows(world, "ticket_opened", rows, custom)


def _somebody_else(world: World, person: pl.Expr) -> pl.Expr:
    """The next customer in the list."""
    customers = np.flatnonzero(world.people.first_identity >= 0)
    following = dict(zip(customers.tolist(), np.roll(customers, -1).tolist(), strict=True))
    return person.replace_strict(following, return_dtype=pl.Int64)


def _server_rows(world: World, table: str, rows: pl.DataFrame, custom: dict[str, pl.Series]) -> pl.DataFrame:
    """Make rows of events that a server sends: an identified user, no session, no browser (heap.md 2.7)."""
    person, at = rows["person"].to_numpy(), rows["at"].to_numpy()
    identity = world.people.first_identity[person]
    users = world.people.identities
    merged = users["merged_at"].to_numpy()[identity] <= at
    user = np.where(merged, users["merged_into"].to_numpy()[identity], users["heap_user_id"].to_numpy()[identity])
    server_rows = rows.select(
        pl.Series("event_id", row_ids(world.plan.seed, table, rows["number"].to_numpy())),
        pl.Series("user_id", user.astype(np.int64)),
        pl.lit(None, pl.Int64).alias("session_id"),
        *(pl.lit(None, pl.String).alias(name) for name in ("type", *BUILT_IN)),
        pl.lit("server").alias("library"),
        *(series.alias(name) for name, series in custom.items()),
        world.people.persons["product_id"].gather(rows["person"]).alias("product_user_id"),
        pl.col("at").alias("time"),
        pl.col("arrival").cast(pl.Int64),
        pl.lit(-1, pl.Int64).alias("client"),
        "person",
    )
    return _shaped(server_rows, *custom, "product_user_id")
