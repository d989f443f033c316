"""Firings of signals on a day: who meets the rule, less whoever has fired already.

A firing is kept once it was computed. So rebuilding a day, events that land late and profiles that merge change none of
those that there are: they only add what is missing, outside of the cool-down of the person that has fired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from heap_assets.profiles import Facts, chains, holds, meeting, members, rows_of, with_account, within_span
from heap_assets.signals.rules import Signal
from heap_assets.values import TIME

FIRINGS = pl.Schema(
    {
        "firing_id": pl.String(),
        "signal": pl.String(),
        "event": pl.String(),
        "time": TIME,
        "profile_id": pl.String(),
        "identifier_type": pl.String(),
        "identifier": pl.String(),
        "heap_identity": pl.String(),
        "user_id": pl.Int64(),
        "step": pl.String(),
        "status": pl.String(),
        "observed_at": TIME,
        "live": pl.Boolean(),
    }
)
"""Columns of every firing, before those of its properties. `identifier`: the person's strongest one, by which a firing
finds its profile after merges. `status`: fired, or cancelled. `live`: computed soon after its time."""
FIRED, CANCELLED = "fired", "cancelled"
_CANDIDATES = pl.Schema(
    {"profile_id": pl.String(), "time": TIME, "anchor": pl.String(), "step": pl.String(), "user_id": pl.Int64()}
)
_LATE = timedelta(days=2)
"""A firing that is computed later than this after its time is not live: a backfill, or data that came late."""


@dataclass(frozen=True)
class SignalDay:
    """What a signal is evaluated on.

    Attributes
    ----------
    profiles
        Of the day, with the columns of audiences.
    facts
        Events as far back as the rule reads, by today's profile ids.
    before
        The profiles of the day before, under today's ids (one row for each that became one); None: there are none.
    """

    profiles: pl.LazyFrame
    facts: Facts
    before: pl.LazyFrame | None

    @property
    def begin(self) -> datetime:
        """Midnight at the begin of the day."""
        return self.facts.as_of - timedelta(days=1)


def candidates(signal: Signal, day: SignalDay) -> pl.DataFrame:
    """Return who meets the rule on the day, whether or not the person has fired before.

    Returns profile_id, time, anchor (what makes this firing another one than the next), step, user_id.
    """
    if signal.sequence is not None:
        rows = _ended_chains(signal, day)
    elif signal.anchored is not None:
        rows = due_steps(signal, day).filter(~pl.col("stopped")).select(*_CANDIDATES)
    else:
        rows = _transitions(signal, day)
    if signal.where is not None:
        inside = members(signal.where, day.profiles, day.facts.events, day.facts.as_of, day.facts.accounts)
        rows = rows.join(inside, on="profile_id", how="semi")
    return rows.select(pl.col(name).cast(dtype) for name, dtype in _CANDIDATES.items()).collect()


def new_firings(
    signal: Signal, rows: pl.DataFrame, fired: pl.DataFrame, profiles: pl.LazyFrame, observed_at: datetime
) -> pl.DataFrame:
    """Return the firings of candidates that may fire.

    Parameters
    ----------
    rows
        The candidates of a day.
    fired
        All firings that there are, of any day, under today's profile ids: firing_id, profile_id, time, step.
    profiles
        Of the day: identifiers and the traits that `properties` names.
    observed_at
        Now.
    """
    rows = rows.with_columns(
        firing_id=pl.concat_str(
            pl.lit(f"{signal.name}\x1f"), "anchor", pl.lit("\x1f"), pl.col("step").fill_null("")
        ).map_batches(_digests, return_dtype=pl.String)
    )
    rows = rows.unique("firing_id", keep="first", maintain_order=True)
    rows = rows.join(fired, on="firing_id", how="anti")
    firing = _outside_cool_down(rows.sort("time", "firing_id"), fired, signal.cool_down_days)
    strongest = pl.col("identifiers").list.first().struct
    columns = profiles.collect_schema()
    people = profiles.select(
        "profile_id",
        "heap_identity",
        identifier_type=strongest.field("type"),
        identifier=strongest.field("value"),
        own_user=pl.col("heap_user_ids").list.first(),
        **{
            name: pl.col(trait) if trait in columns else pl.lit(None, pl.String)
            for name, trait in signal.properties.items()
        },
    )
    late = observed_at - pl.col("time") > _LATE
    return (
        firing.lazy()
        .join(people, on="profile_id")
        .with_columns(
            signal=pl.lit(signal.name),
            event=pl.lit(signal.event),
            user_id=pl.coalesce("user_id", "own_user"),
            status=pl.lit(FIRED),
            observed_at=pl.lit(observed_at).cast(TIME),
            live=~late | signal.backfill,
        )
        .select(*FIRINGS, *signal.properties)
        .sort("time", "firing_id")
        .collect()
    )


def due_steps(signal: Signal, day: SignalDay) -> pl.LazyFrame:
    """Return the steps of an anchored rule that are due on the day, and whether the attempt was stopped.

    An event that stops it counts until the end of the day, later than the step was due, too.
    """
    rule, facts = signal.anchored, day.facts
    assert rule is not None
    starts = _rows(rule.anchor, facts).sort("profile_id", "time", "event_id")
    stops = [_rows(stop, facts).select("profile_id", stop_time="time") for stop in rule.stops]
    none = pl.LazyFrame(schema={"profile_id": pl.String, "stop_time": TIME})
    stop_times = pl.concat([none, *stops]).sort("stop_time")
    window = timedelta(days=rule.window_days)
    before = pl.col("time").shift(1).over("profile_id")
    attempts = (
        starts.with_columns(before=before)
        .sort("time")
        .join_asof(stop_times, left_on="time", right_on="stop_time", by="profile_id", check_sortedness=False)
        .rename({"stop_time": "stopped_before"})
        .filter(
            pl.col("before").is_null()
            | (pl.col("time") - pl.col("before") >= window)
            | (pl.col("stopped_before") > pl.col("before")).fill_null(value=False)
        )
        .join_asof(
            stop_times,
            left_on="time",
            right_on="stop_time",
            by="profile_id",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .with_columns(stopped=pl.col("stop_time").is_not_null())
    )
    steps = [
        attempts.with_columns(
            anchor=pl.col("event_id").cast(pl.String),
            step=pl.lit(step.name),
            time=pl.col("time") + timedelta(days=step.after_days),
        )
        for step in rule.steps
    ]
    return (
        pl.concat(steps)
        .filter((pl.col("time") >= day.begin) & (pl.col("time") < facts.as_of))
        .select(*_CANDIDATES, "stopped")
    )


def _ended_chains(signal: Signal, day: SignalDay) -> pl.LazyFrame:
    sequence = signal.sequence
    assert sequence is not None
    ends = within_span(chains(sequence.steps, partial(rows_of, facts=day.facts)), sequence.span_days)
    ends = ends.filter(pl.col("time") >= day.begin).sort("profile_id", maintain_order=True)
    return ends.with_columns(
        anchor=pl.concat_str(pl.col("event_id").cast(pl.String).fill_null(pl.col("time").cast(pl.String))),
        step=pl.lit(None, pl.String),
    )


def _transitions(signal: Signal, day: SignalDay) -> pl.LazyFrame:
    """Return who meets a definition and did not the day before; nobody without a day before."""
    if day.before is None:
        return pl.LazyFrame(schema=_CANDIDATES)
    if signal.changed is not None:
        inside = _changed(signal, day, day.before)
    else:
        assert signal.becomes is not None
        inside = members(signal.becomes, day.profiles, day.facts.events, day.facts.as_of, day.facts.accounts)
        past = Facts(day.facts.events, day.begin, day.facts.accounts)
        already = meeting(signal.becomes, with_account(day.before, past, signal.becomes), past)
        inside = inside.join(already, on="profile_id", how="anti")
    return inside.select(
        "profile_id",
        time=pl.lit(day.facts.as_of - timedelta(microseconds=1)),
        anchor=pl.concat_str("profile_id", pl.lit(f" {day.begin:%Y-%m-%d}")),
        step=pl.lit(None, pl.String),
        user_id=pl.lit(None, pl.Int64),
    )


def _changed(signal: Signal, day: SignalDay, before: pl.LazyFrame) -> pl.LazyFrame:
    """Return whose trait is another one than the day before; of people who became one, of each of them."""
    rule = signal.changed
    assert rule is not None
    empty = day.profiles.select(pl.lit(None, pl.String).alias("profile_id")).head(0)
    if rule.trait not in (now := day.profiles.collect_schema()) or rule.trait not in (past := before.collect_schema()):
        return empty
    value = pl.col(rule.trait)
    after = pl.all_horizontal([holds(one, value, now[rule.trait], day.facts.as_of) for one in rule.after])
    was = pl.all_horizontal([holds(one, value, past[rule.trait], day.begin) for one in rule.before] or [pl.lit(True)])
    arrived = pl.all_horizontal([holds(one, value, past[rule.trait], day.begin) for one in rule.after])
    left = before.group_by("profile_id").agg(from_it=(was & ~arrived).all()).filter("from_it")
    return day.profiles.filter(after).select("profile_id").join(left, on="profile_id", how="semi")


def _rows(criterion: object, facts: Facts) -> pl.LazyFrame:
    _, rows, meets = rows_of(criterion, facts)  # type: ignore[arg-type]
    schema = rows.collect_schema()
    columns = [
        (pl.col(name) if name in schema else pl.lit(None)).cast(pl.Int64, strict=False).alias(name)
        for name in ("event_id", "user_id")
    ]
    return rows.filter(meets).select("profile_id", "time", *columns)


def _outside_cool_down(rows: pl.DataFrame, fired: pl.DataFrame, days: float | None) -> pl.DataFrame:
    """Return the candidates that fire, the earliest first, each outside of the cool-down of all firings before."""
    on = ["profile_id", "step"]
    chosen: list[pl.DataFrame] = []
    earlier: Sequence[pl.DataFrame] = [fired.select(*on, fired_at="time")]
    while rows.height:
        firings = earlier[-1]
        close = rows.join(firings, on=on, nulls_equal=True)
        if days is not None:
            close = close.filter((pl.col("time") - pl.col("fired_at")).abs() < timedelta(days=days))
        rows = rows.join(close, on="firing_id", how="anti", maintain_order="left")
        firing = rows.unique(on, keep="first", maintain_order=True)
        chosen.append(firing)
        rows = rows.join(firing, on="firing_id", how="anti", maintain_order="left")
        earlier = [firing.select(*on, fired_at="time")]
    return pl.concat(chosen) if chosen else rows


def _digests(texts: pl.Series) -> pl.Series:
    import hashlib

    return pl.Series([hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts], dtype=pl.String)
