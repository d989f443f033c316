"""Whose values are to be erased: the identifiers of people by the graphs of every day, and what is left to others.

A wrong merge must not erase a neighbour. A value that is on another profile today, although it was on the person's
once, is conflicting; a value that several people have is shared. Both are listed and left unless they are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import Rules, normalised
from heap_assets.storage import Lake
from heap_assets.tables import CONFLICTS, GRAPH, LINKS

Pair = tuple[str, str]
"""Identifier type and value."""

SHARED, CONFLICTING, REFUSED = "shared", "conflicting", "refused_link"
"""Why a value is left: several people have it; it is another profile's today; a rule refused its link to the person."""

_KEY = ("identifier_type", "identifier")
_SEEDS = pl.Schema({"request": pl.String(), "identifier_type": pl.String(), "identifier": pl.String()})


@dataclass(frozen=True)
class Left:
    """A value that stays, and why: one of :data:`SHARED`, :data:`CONFLICTING`, :data:`REFUSED`."""

    identifier_type: str
    identifier: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What would be erased for one request: `identifiers`, sorted, and what is `left`."""

    identifiers: tuple[Pair, ...]
    left: tuple[Left, ...] = ()
    days: int = 0
    """Number of days whose graph was read."""


@dataclass(frozen=True)
class Named:
    """The identifiers that a request names: of the person, and those to erase although they would be left."""

    person: tuple[Pair, ...]
    also: tuple[Pair, ...] = ()


def spelled(pairs: Iterable[Pair], rules: Rules) -> tuple[Pair, ...]:
    """Return identifiers as the rules spell them, sorted, each once.

    Raises
    ------
    SettingsError
        A type is not declared, or a value is empty. The message names the type and no value.
    """
    values: set[Pair] = set()
    by_type: dict[str, list[str]] = {}
    for kind, value in pairs:
        by_type.setdefault(kind, []).append(value)
    for kind, raw in by_type.items():
        if kind not in rules.types:
            raise SettingsError(f"there is no identifier type {kind!r}. Declared: {', '.join(rules.types)}")
        column = pl.Series("v", raw, pl.String).to_frame()
        texts = column.select(normalised(pl.col("v"), rules[kind].normaliser))["v"].to_list()
        if not all(texts):
            raise SettingsError(f"an identifier of type {kind} is empty: expected type:value")
        values |= {(kind, text) for text in texts}
    return tuple(sorted(values))


def plans(lake: Lake, named: Mapping[str, Named], up_to: date) -> dict[str, Plan]:
    """Return what each request would erase, from the graphs of all days that the lake has; each is read once.

    `named`: by request, spelled as the rules do.
    """
    seeds = _pairs((request, *pair) for request, one in named.items() for pair in (*one.person, *one.also))
    graph_days = [day for day in lake.partitions(GRAPH) if day <= str(up_to)]
    members, own_now = [seeds.select("request", *_KEY).with_columns(shared=pl.lit(value=False))], _no_profiles()
    people = _pairs((request, *pair) for request, one in named.items() for pair in one.person)
    for day in graph_days:
        graph = lake.scan(GRAPH, day)
        own = graph.join(people.lazy(), on=list(_KEY)).select("request", "profile_id").drop_nulls().unique().collect()
        if day == graph_days[-1]:
            own_now = own
        on_day = graph.join(own.lazy(), on="profile_id").select("request", *_KEY, "shared").collect()
        members.append(on_day.with_columns(pl.col("shared").fill_null(value=False)))
    every = pl.concat(members).group_by("request", *_KEY).agg(pl.col("shared").any())
    judged = _judged(lake, every, own_now, graph_days[-1]) if graph_days else every.with_columns(why=_nothing())
    neighbours = _neighbours(lake, judged, graph_days[-1]) if graph_days else judged.clear()
    of_request, beside = _by_request(judged), _by_request(neighbours)
    return {
        request: _plan(one, of_request.get(request, []), beside.get(request, []), len(graph_days))
        for request, one in sorted(named.items())
    }


def _by_request(rows: pl.DataFrame) -> dict[str, list[tuple[str, str, str | None]]]:
    grouped: dict[str, list[tuple[str, str, str | None]]] = {}
    for request, kind, value, why in rows.select("request", *_KEY, "why").iter_rows():
        grouped.setdefault(request, []).append((kind, value, why))
    return grouped


def _plan(
    named: Named, rows: Sequence[tuple[str, str, str | None]], beside: Sequence[tuple[str, str, str | None]], days: int
) -> Plan:
    chosen = {*named.person, *named.also}
    identifiers = {(kind, value) for kind, value, why in rows if why is None} | chosen
    left = {(kind, value): why for kind, value, why in (*beside, *rows) if why is not None}
    stays = {pair: why for pair, why in left.items() if pair not in identifiers}
    return Plan(tuple(sorted(identifiers)), tuple(Left(*pair, why) for pair, why in sorted(stays.items())), days)


def _judged(lake: Lake, every: pl.DataFrame, own_now: pl.DataFrame, newest: str) -> pl.DataFrame:
    graph = lake.scan(GRAPH, newest).select(*_KEY, "profile_id", is_shared=pl.col("shared").fill_null(value=False))
    now = graph.join(every.select(*_KEY).unique().lazy(), on=list(_KEY)).collect()
    own = own_now.with_columns(own=pl.lit(value=True))
    joined = every.join(now, on=list(_KEY), how="left").join(own, on=["request", "profile_id"], how="left")
    elsewhere = pl.col("profile_id").is_not_null() & pl.col("own").is_null()
    why = (
        pl.when(pl.coalesce("is_shared", "shared"))
        .then(pl.lit(SHARED))
        .when(elsewhere)
        .then(pl.lit(CONFLICTING))
        .otherwise(None)
    )
    return joined.with_columns(why=why).select("request", *_KEY, "why")


def _neighbours(lake: Lake, judged: pl.DataFrame, newest: str) -> pl.DataFrame:
    """Return the other ends of the person's links on the newest day: shared values, and those that a rule refused."""
    own_values = judged.filter(pl.col("why").is_null()).select("request", *_KEY)
    shared = lake.scan(GRAPH, newest).filter(pl.col("shared")).select(*_KEY)
    ends = [judged.select("request", *_KEY, "why").clear()]
    for table, why in ((LINKS, SHARED), (CONFLICTS, REFUSED)):
        if newest not in lake.partitions(table):
            continue
        for near, far in (("a", "b"), ("b", "a")):
            other = {_KEY[0]: pl.col(f"type_{far}"), _KEY[1]: pl.col(f"value_{far}")}
            links = lake.scan(table, newest).join(
                own_values.lazy(), left_on=[f"type_{near}", f"value_{near}"], right_on=list(_KEY)
            )
            other_ends = links.select("request", **other).drop_nulls().unique()
            if table == LINKS:
                other_ends = other_ends.join(shared, on=list(_KEY), how="semi")
            ends.append(other_ends.with_columns(why=pl.lit(why)).collect())
    return pl.concat(ends).sort("request", *_KEY, "why").unique(["request", *_KEY], keep="last")


def _pairs(rows: Iterable[tuple[str, str, str]]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]  # by columns: a million rows take seconds otherwise
    return pl.DataFrame(
        [pl.Series(name, values, pl.String) for name, values in zip(_SEEDS, columns, strict=True)]
    ).unique(maintain_order=True)


def _no_profiles() -> pl.DataFrame:
    return pl.DataFrame(schema={"request": pl.String, "profile_id": pl.String})


def _nothing() -> pl.Expr:
    return pl.lit(None, pl.String)


@dataclass(frozen=True)
class People:
    """The values of all people of one erasure.

    Attributes
    ----------
    identifiers
        Request by type and value, spelled as the rules do.
    profiles
        Request by profile id, by day: ids are those of the day's graph.
    """

    identifiers: Mapping[Pair, str]
    profiles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def requests(self) -> Sequence[str]:
        """The requests, sorted."""
        return sorted(set(self.identifiers.values()))


def requests_of_pairs(identifiers: Mapping[str, Iterable[Pair]]) -> dict[Pair, str]:
    """Return the request of each identifier: the first, of one that several name."""
    by_pair: dict[Pair, str] = {}
    for request in sorted(identifiers):
        for pair in identifiers[request]:
            by_pair.setdefault(pair, request)
    return by_pair


def people_of(lake: Lake, identifiers: Mapping[str, Sequence[Pair]]) -> People:
    """Return the people of requests with the profiles that any of their identifiers was on, on each day."""
    by_pair = requests_of_pairs(identifiers)
    values_of_people = _pairs((request, *pair) for pair, request in by_pair.items())
    profiles = {}
    for day in lake.partitions(GRAPH):
        graph = lake.scan(GRAPH, day).filter(pl.col("profile_id").is_not_null())
        on_day = graph.join(values_of_people.lazy(), on=list(_KEY)).select("profile_id", "request").collect()
        if on_day.height:
            profiles[day] = dict(on_day.sort("request", descending=True).iter_rows())
    return People(by_pair, profiles)
