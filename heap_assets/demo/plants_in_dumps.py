"""The damage that `plants.py` does to a dump: what a release, a script or an export gone wrong would leave in it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.demo.tamper import Dump, Row, Rows, Types

Damage = Callable[[Dump], None]
_NEW_USER = 8_100_000_000_000_000
_TIMES = ("joindate", "last_modified")


def each_row(table: str, change: Callable[[int, Row], Row]) -> Damage:
    """Change every row of a table by its number."""
    return lambda dump: dump.change_rows(table, lambda rows: [change(n, row) for n, row in enumerate(rows)])


def new_table(dump: Dump) -> None:
    """Add an event table that nobody knows."""
    noon = f"{dump.day} 12:00:00.000000"
    row = {"event_id": 77, "user_id": 78, "session_id": 79, "code": "AUTUMN", "time": noon}
    dump.add_table("coupon_redeemed", [row])


def new_column(table: str, column: str) -> Damage:
    """Add a column of text."""

    def add(rows: Rows, types: Types) -> tuple[Rows, Types]:
        return [{**row, column: "AUTUMN"} for row in rows], {**types, column: "string"}

    return lambda dump: dump.rewrite(table, add)


def without_column(table: str, column: str) -> Damage:
    """Leave a column out."""

    def drop(rows: Rows, types: Types) -> tuple[Rows, Types]:
        return rows, {name: kind for name, kind in types.items() if name != column}

    return lambda dump: dump.rewrite(table, drop)


def as_number(table: str, column: str) -> Damage:
    """Write a column of digits as numbers."""

    def retype(rows: Rows, types: Types) -> tuple[Rows, Types]:
        return [{**row, column: int(row[column] or 0)} for row in rows], {**types, column: "long"}

    return lambda dump: dump.rewrite(table, retype)


def mostly_empty(table: str, column: str) -> Damage:
    """Empty a column in two of three rows."""
    return each_row(table, lambda n, row: {**row, column: row[column] if n % 3 == 0 else None})


def ids_through_a_spreadsheet(table: str) -> Damage:
    """Write ids as floating point, as a spreadsheet does, in one of twenty rows."""

    def spoil(rows: Rows, types: Types) -> tuple[Rows, Types]:
        ids = [f"{row['event_id']:.5E}" if n % 20 == 0 else str(row["event_id"]) for n, row in enumerate(rows)]
        return [{**row, "event_id": one} for row, one in zip(rows, ids, strict=True)], {**types, "event_id": "string"}

    return lambda dump: dump.rewrite(table, spoil)


def one_in_ten(table: str) -> Damage:
    """Keep one row in ten."""
    return lambda dump: dump.change_rows(table, lambda rows: rows[::10])


def four_times(table: str) -> Damage:
    """Repeat every row three times, under event ids of their own."""

    def repeat(rows: Rows) -> Rows:
        return [{**row, "event_id": row["event_id"] + times} for row in rows for times in range(4)]

    return lambda dump: dump.change_rows(table, repeat)


def no_rows(table: str) -> Damage:
    """Leave a table without rows."""
    return lambda dump: dump.change_rows(table, lambda rows: [])


def other_sessions(table: str) -> Damage:
    """Name sessions that nobody has exported."""
    return each_row(table, lambda n, row: {**row, "session_id": row["session_id"] + 1})


def other_users(table: str) -> Damage:
    """Name users that nobody has exported, in one row of five."""
    return each_row(table, lambda n, row: {**row, "user_id": _NEW_USER + n if n % 5 == 0 else row["user_id"]})


def text(table: str, column: str, pattern: str) -> Damage:
    """Fill a column by a pattern with `{n}`, the row's number."""
    return each_row(table, lambda n, row: {**row, column: pattern.format(n=n % 250 + 1)})


def cycle(dump: Dump) -> None:
    """Let two users migrate into each other."""
    _migrate(dump, [(_NEW_USER + 1, _NEW_USER + 2), (_NEW_USER + 2, _NEW_USER + 1)])


def chain(dump: Dump) -> None:
    """Let one user migrate eight times."""
    _migrate(dump, [(_NEW_USER + n, _NEW_USER + n + 1) for n in range(8)])


def many_become_one(dump: Dump) -> None:
    """Let 150 anonymous users migrate into one identified user."""
    one = next(row["to_user_id"] for row in dump.rows("user_migrations"))
    _migrate(dump, [(_NEW_USER + n, one) for n in range(150)])


def second_identities(dump: Dump) -> None:
    """Give one in ten identified users a second Heap user, identified by something else and with the same email."""

    def add(rows: Rows) -> Rows:
        with_email = [row for row in _identified_users(dump) if row["email"]][::8]
        return rows + [
            {**row, "user_id": _NEW_USER + n, "identity": f"second-{n}", "last_modified": _moment(dump)}
            for n, row in enumerate(with_email)
        ]

    dump.change_rows("users", add)


def identities_gone(dump: Dump) -> None:
    """Rename the identity of one in thirty users: whom we sent to is not in the export any more."""

    def rename(rows: Rows) -> Rows:
        sampled = _identified_users(dump)[::30]
        return rows + [
            {**row, "identity": f"renamed-{n}", "last_modified": _moment(dump)} for n, row in enumerate(sampled)
        ]

    dump.change_rows("users", rename)


def anonymous_again(dump: Dump) -> None:
    """Let known devices come back under new anonymous users."""
    devices = _devices(dump)

    def add_views(rows: Rows) -> Rows:
        by_device = {row["device_id"]: row for row in rows if row["device_id"] in devices}
        return rows + [
            {**row, "event_id": _NEW_USER + n, "user_id": _NEW_USER + n, "product_user_id": None}
            for n, row in enumerate(by_device.values())
        ]

    count = len({row["device_id"] for row in dump.rows("pageviews") if row["device_id"] in devices})
    dump.change_rows("pageviews", add_views)
    blank: Row = dict.fromkeys(("identity", "handle", "email", "plan", "role", "account_id", "_email", "deal_stage"))
    new = [
        {**blank, "user_id": _NEW_USER + n, "joindate": _moment(dump), "last_modified": _moment(dump)}
        for n in range(count)
    ]
    dump.change_rows("users", lambda rows: rows + new)


def kiosks(dump: Dump) -> None:
    """Put twenty new devices into use by four known people each."""

    def share(rows: Rows) -> Rows:
        identified = [row for row in rows if row["product_user_id"]]
        people = list({row["product_user_id"]: row for row in identified}.values())
        return rows + [
            {**people[(n * 4 + k) % len(people)], "event_id": _NEW_USER + n * 4 + k, "device_id": f"kiosk-{n}"}
            for n in range(20)
            for k in range(4)
        ]

    dump.change_rows("pageviews", share)


def identity_twice(profiles: pl.DataFrame) -> pl.DataFrame:
    """Write the identities of one profile onto the next one that has any."""
    named = profiles.with_row_index().filter(pl.col("heap_identities").list.len() > 0)
    giver, taker = named["index"].head(2).to_list()
    order = [giver if row == taker else row for row in range(len(profiles))]
    return profiles.with_columns(profiles["heap_identities"].gather(order))


def migrated_apart(graph: pl.DataFrame) -> pl.DataFrame:
    """Take one of a person's several Heap users away from five people, and make somebody of it."""
    users = graph.with_row_index().filter(pl.col("identifier_type") == "heap_user_id").drop_nulls("profile_id")
    several = users.filter(pl.len().over("profile_id") > 1).unique("profile_id", maintain_order=True).head(5)["index"]
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    own = pl.format("{}", row.hash(7)).str.pad_start(32, "0")
    return graph.with_columns(profile_id=pl.when(row.is_in(several.implode())).then(own).otherwise("profile_id"))


def _migrate(dump: Dump, pairs: list[tuple[int, int]]) -> None:
    def add(rows: Rows) -> Rows:
        as_text = isinstance(rows[0]["from_user_id"], str)
        kind: Callable[[int], Any] = str if as_text else int
        when = _moment(dump)
        return rows + [{"from_user_id": kind(a), "to_user_id": kind(b), "time": when} for a, b in pairs]

    dump.change_rows("user_migrations", add)


def _identified_users(dump: Dump) -> Rows:
    """Return the identified users of all dumps up to this one, the newest row of each."""
    newest: dict[int, Row] = {}
    for day in dump.company.dump_ids:
        if day <= dump.day:
            newest |= {row["user_id"]: row for row in Dump(dump.company, day).rows("users")}
    columns = dump.rows("users")[0]
    users = [row for row in newest.values() if row["identity"]]
    return [{name: _as_text(row.get(name)) if name in _TIMES else row.get(name) for name in columns} for row in users]


def _as_text(moment: Any) -> Any:
    """Older dumps have moments in microseconds, newer ones as text."""
    if not isinstance(moment, int):
        return moment
    return f"{datetime.fromtimestamp(moment / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f}"


def _devices(dump: Dump) -> set[str]:
    """Return the devices that known people use."""
    return {row["device_id"] for row in dump.rows("pageviews") if row["product_user_id"] and row["device_id"]}


def _moment(dump: Dump) -> str:
    late = datetime.combine(dump.day, datetime.min.time(), UTC) + timedelta(hours=23, minutes=50)
    return f"{late:%Y-%m-%d %H:%M:%S.%f}"
