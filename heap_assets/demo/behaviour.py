"""What people do on one day: sessions and pageviews. A day is made from the seed and its number alone.

Frames are internal: `time` is Int64 microseconds, `arrival` the number of the day whose dump first carries the row, and
`client`, `person`, `identified` say who did it; `events.py` and `dumps.py` build Heap's columns from them.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.chance import DAY, SECOND, Flags, Ints, choose, daytime, pick, row_ids, stream
from heap_assets.demo.world import World

BUILT_IN = ("platform", "device_type", "country", "region", "city", "ip")
MAX_LATE_DAYS = 3


@dataclass(frozen=True)
class DayOfUse:
    """Sessions and pageviews that began on one day, in the order they happened within a client."""

    day: int
    sessions: pl.DataFrame
    pageviews: pl.DataFrame


def day_of_use(world: World, day: int) -> DayOfUse:
    """Return what everybody did on a day.

    Parameters
    ----------
    world
        The company.
    day
        Number of the day, 0 for the first.

    Returns
    -------
    DayOfUse
        sessions, one row each, and pageviews: event_id, user_id, session_id, client, person, time, arrival Int64;
        identified Boolean; Heap's built-in columns String; pageviews also device_id, product_user_id, account_id.
    """
    rng = stream(world.plan.seed, "use", day)
    client, start, login_at, login_session = _sessions_of(world, day, rng)
    n = len(client)
    views = np.minimum(rng.geometric(0.2, n), 40)
    views = np.where(login_at > 0, views + 3, views)
    session = np.repeat(np.arange(n), views)
    first = np.r_[0, np.cumsum(views)[:-1]].astype(np.int64) if n else np.zeros(0, dtype=np.int64)
    at = _view_times(rng, start, session, first, views, login_at)
    arrival = _arrivals(world, rng, client, day)
    skew = _clock_skew(world, rng, client)
    event_id = rng.integers(2**40, 2**53, len(session))
    event_id[first] = np.where(login_session > 0, login_session, event_id[first])
    session_id = event_id[first]
    visit = _visit_columns(rng, n)
    sessions = _common(world, client, start, skew, arrival).with_columns(
        event_id=pl.Series(rng.integers(2**40, 2**53, n)), session_id=pl.Series(session_id), **visit
    )
    views_frame = _common(world, client[session], at, skew[session], arrival[session]).with_columns(
        event_id=pl.Series(event_id),
        session_id=pl.Series(session_id[session]),
        **{name: column.gather(pl.Series(session)) for name, column in visit.items()},
    )
    return DayOfUse(day, sessions, _with_pages(rng, views_frame, session))


def _sessions_of(world: World, day: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints]:
    """Return client, start, moment of login (0: none in this session) and id (0: any) of the day's sessions.

    Clients that first appear or log in on this day have a session for it; the others come as people's rates have it.
    """
    arrays = world.arrays
    midnight = world.plan.midnight + day * DAY
    born_today = (arrays["born_at"] >= midnight) & (arrays["born_at"] < midnight + DAY)
    login_today = (arrays["login_at"] >= midnight) & (arrays["login_at"] < midnight + DAY)
    same_session = born_today & login_today
    born, logins = np.flatnonzero(born_today), np.flatnonzero(login_today & ~born_today)
    logins = logins[~world.devices.clients["visit"].to_numpy()[logins]]
    usual = _usual_clients(world, day, rng, born_today | login_today)
    client = np.concatenate([born, logins, usual]).astype(np.int64)
    starts = (
        arrays["born_at"][born],
        arrays["login_at"][logins] - 90 * SECOND,
        midnight + daytime(rng, len(usual)) * SECOND,
    )
    login_at = np.where(same_session[born], arrays["login_at"][born], 0)
    logs_in = np.concatenate([login_at, arrays["login_at"][logins], np.zeros(len(usual))]).astype(np.int64)
    start = np.concatenate(starts) + np.r_[np.zeros(len(born) + len(logins)), rng.integers(0, SECOND, len(usual))]
    login_session = np.where(logs_in > 0, login_session_ids(world, client), 0)
    return client, start.astype(np.int64), logs_in, login_session


def login_session_ids(world: World, client: Ints) -> Ints:
    """Return the id of the session in which a client logs in, so that other tables can name it."""
    return row_ids(world.plan.seed, "login session", client)


def _usual_clients(world: World, day: int, rng: np.random.Generator, busy: Flags) -> Ints:
    """Draw the clients of ordinary sessions: people by their rate, fewer on weekends, on any of their own clients."""
    arrays = world.arrays
    own = ~world.devices.clients["visit"].to_numpy()
    weekend = world.plan.date_of(day).weekday() >= 5
    rate = world.people.persons["rate"].to_numpy() * (0.4 if weekend else 1.2)
    person = np.repeat(np.arange(world.people.count), rng.poisson(rate))
    per_person = np.bincount(arrays["person"][own], minlength=world.people.count)
    offset = np.cumsum(per_person) - per_person
    favourite = rng.random(len(person)) ** 2
    client = offset[person] + (favourite * per_person[person]).astype(np.int64)
    client = client[per_person[person] > 0]
    midnight = world.plan.midnight + day * DAY
    is_present = (arrays["born_at"][client] < midnight) & (arrays["end_at"][client] > midnight + DAY) & ~busy[client]
    return np.asarray(client[is_present])


def _view_times(rng: np.random.Generator, start: Ints, session: Ints, first: Ints, views: Ints, login_at: Ints) -> Ints:
    """Return when pages were viewed; a session with a login has its last page after it."""
    gaps = ((3 + rng.exponential(35, len(session))) * SECOND).astype(np.int64)
    if not len(gaps):
        return gaps
    gaps[first] = 0
    elapsed = np.cumsum(gaps)
    at = start[session] + elapsed - elapsed[first][session]
    last = first + views - 1
    at[last] = np.maximum(at[last], np.where(login_at > 0, login_at + 7 * SECOND, 0))
    return at


def _arrivals(world: World, rng: np.random.Generator, client: Ints, day: int) -> Ints:
    """Say which day's dump carries a session: phones that were offline deliver up to three days late."""
    app = world.client_facts["library"].is_in(["ios", "android"]).to_numpy()[client]
    late = app & (rng.random(len(client)) < 0.05)
    return np.where(late, day + rng.integers(1, MAX_LATE_DAYS + 1, len(client)), day).astype(np.int64)


def _clock_skew(world: World, rng: np.random.Generator, client: Ints) -> Ints:
    """A few Android phones have a clock that is 20 hours ahead."""
    android = (world.client_facts["library"] == "android").to_numpy()[client]
    return np.where(android & (rng.random(len(client)) < 0.004), 20 * 3600 * SECOND, 0).astype(np.int64)


def _common(world: World, client: Ints, at: Ints, skew: Ints, arrival: Ints) -> pl.DataFrame:
    """Start the rows: who, when, and what a client says about itself."""
    identified = world.identified(client, at)
    return world.client_facts[client].with_columns(
        product_user_id=pl.when(pl.Series(identified)).then("product_user_id"),
        account_id=pl.when(pl.Series(identified)).then("account_id"),
        user_id=pl.Series(world.user_ids(client, at)),
        client=pl.Series(client),
        person=pl.Series(world.arrays["person"][client]),
        identified=pl.Series(identified),
        time=pl.Series(at + skew),
        arrival=pl.Series(arrival),
        app_name=pl.when(pl.col("library").is_in(["ios", "android"])).then(pl.lit("Sample App")),
    )


def _visit_columns(rng: np.random.Generator, n: int) -> dict[str, pl.Series]:
    source = rng.choice(5, n, p=[0.55, 0.2, 0.1, 0.1, 0.05])
    return {
        "referrer": pick(
            (None, "https://search.example/", "https://news.example/item", None, "https://partner.example/"), source
        ),
        "utm_source": pick((None, None, None, "newsletter", "partner"), source),
        "utm_medium": pick((None, None, None, "email", "referral"), source),
        "utm_campaign": pick((None, None, None, "autumn", "launch"), source),
        "landing_page": choose(rng, words.VISIT_PATHS, n),
    }


def _with_pages(rng: np.random.Generator, views: pl.DataFrame, session: Ints) -> pl.DataFrame:
    """Add pages; an anonymous page sometimes carries the junk that a tag sends for a missing id."""
    n = views.height
    app_path, visit_path = choose(rng, words.APP_PATHS, n), choose(rng, words.VISIT_PATHS, n)
    junk = choose(rng, (None, "undefined"), n, (99, 1))
    views = views.with_columns(
        path=pl.when("identified").then(app_path).otherwise(visit_path),
        domain=pl.when("identified").then(pl.lit("app.sample.example")).otherwise(pl.lit("www.sample.example")),
        product_user_id=pl.when("identified").then("product_user_id").otherwise(junk),
    )
    in_app = pl.col("library").is_in(["ios", "android"])
    previous = pl.col("path").shift(1).over(pl.Series("session", session))
    return views.with_columns(
        title=pl.format("Sample {}", pl.col("path").str.strip_chars("/").str.replace_all("/", " · ")),
        heap_previous_page=previous,
        view_controller=pl.when(in_app).then(pl.lit("MainViewController")),
    ).with_columns(pl.when(in_app).then(None).otherwise(pl.col(name)).alias(name) for name in ("path", "domain"))
