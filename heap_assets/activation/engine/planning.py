"""Plans a run: the rows to send, the rows set aside with reasons, and concerns that need confirmation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.activation.engine.aside import SetAside
from heap_assets.activation.engine.batches import batches
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.difference import Plan, plan_insert, plan_upsert, respelled
from heap_assets.activation.engine.guard import concerns, resent
from heap_assets.activation.engine.hashing import UNKNOWN, hashed_keys
from heap_assets.activation.engine.log import FIELD, Snapshot
from heap_assets.activation.engine.parts import PART_ROWS, LedgerParts
from heap_assets.activation.engine.prepare import Prepared, Unprepared, prepare, prepared
from heap_assets.activation.engine.report import SyncReport
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.activation.engine.spill import PLACE, PlannedRows, Spill
from heap_assets.activation.engine.tables import SET_ASIDE_SCHEMA, usual_runs
from heap_assets.activation.engine.two_way import Merged, load_settled, merged
from heap_assets.storage import Store

HELD = "_held"
"""Column that planned rows have if some wait after all: the reason, null for those that are sent."""
TWIN = "_twin"
"""Column that planned rows have if some keys are withdrawn while another one is sent that is the same number."""
_AT_WORK = "the destination is still working on it"
_DECIMAL_PLACES = 9


@dataclass(frozen=True)
class SyncPlan:
    """The changes to send, with the rows set aside and the concerns.

    `rows`: what is sent; `changes.send` has them only if they were planned at once. `recovered`: keys of which nobody
    knew whether they had arrived.
    """

    changes: Plan
    rows: PlannedRows
    set_aside: SetAside
    concerns: list[str]
    addressing: dict[str, int]
    no_consent: int
    respelt: int
    recovered: int
    merge: Merged | None = None
    """Of a sync whose records are read back."""


@dataclass(frozen=True)
class Part:
    """The plan of all rows, or of those of some keys, with what has to be known of them to judge it.

    `respelt`: keys that are withdrawn because they are spelled otherwise now. `valued`: property to the number of keys
    that have a value of it at the destination. `in_ledger`: properties of which the ledger has something.
    """

    plan: Plan
    no_consent: int
    respelt: int
    valued: Mapping[str, int]
    in_ledger: frozenset[str]
    recovered: int


@dataclass(frozen=True)
class Comparison:
    """Compares rows with the ledger; reads, and writes nothing.

    Attributes
    ----------
    salt
        Keys all hashes.
    forgotten
        Keyed hashes of the keys that must never be sent again.
    still_open
        Keys that the destination is working on since an earlier run.
    scratch
        A folder for what does not fit into memory; nothing leaves it without one.
    """

    spec: SyncSpec
    destination: Destination
    addressed: Addressed
    store: Store
    salt: bytes
    day: date
    fence: int
    force: bool
    forgotten: pl.Series
    still_open: pl.Series | None = None
    scratch: Path | None = None

    def at_once(self, rows: Prepared, ledger: pl.DataFrame) -> SyncPlan:
        """Plan all rows at once."""
        spec, destination = self.spec, self.destination
        rows, forgotten = self._without_forgotten(rows)
        merge: Merged | None = None
        if self.addressed.read_back is not None and destination.mode is Mode.UPSERT:
            merge = merged(
                *(self.addressed.read_back, rows, ledger, self.addressed.rows, load_settled(self.store, spec.folder)),
                spec=spec,
                destination=destination,
                salt=self.salt,
            )
            rows, ledger = merge.prepared, merge.ledger
        aside = SetAside(None if self.scratch is None else self.scratch / "aside")
        ledger_keys = ledger.select("key")
        untouchable = _together_in(ledger_keys, self._untouchable(aside))
        writable = None if self.addressed.writable is None else _together_in(ledger_keys, self._writable())
        part = self._part(rows, forgotten, ledger, untouchable, writable, aside)
        plan = self._judged(part, PlannedRows.of(part.plan.send), aside, merge)
        sent = part.plan.send
        if HELD in sent.columns:
            sent = sent.filter(pl.col(HELD).is_null()).drop(HELD)
            plan = replace(plan, rows=PlannedRows.of(sent))
        return replace(plan, changes=replace(plan.changes, send=sent))

    def in_parts(self, rows: Spill, unprepared: Unprepared, ledger: LedgerParts, scratch: Path) -> SyncPlan:
        """Plan rows part by part; what is planned is put aside in the folder `scratch`."""
        plan = self._planned(rows, unprepared, ledger, scratch, by_number=None)
        if plan is None:  # some keys of events are no numbers, though all those of a part are
            plan = self._planned(rows, unprepared, ledger, scratch, by_number=False)
        assert plan is not None
        return plan

    def _untouchable(self, aside: SetAside) -> Iterator[pl.Series]:
        """Put the rows aside that wait or are invalid as they are addressed.

        Yields their keys: nothing is sent for them, not even a withdrawal.
        """
        for frame, kind in ((self.addressed.invalid, "invalid"), (self.addressed.held, "held")):
            for batch in batches(frame, PART_ROWS) if frame is not no_addresses() else ():
                aside.add(self._aside(batch, kind))
                yield batch["key"].drop_nulls()

    def _writable(self) -> Iterator[pl.Series]:
        """Yield the only keys that may be withdrawn."""
        assert self.addressed.writable is not None
        return (batch["key"] for batch in batches(self.addressed.writable, PART_ROWS))

    def _planned(
        self, rows: Spill, unprepared: Unprepared, ledger: LedgerParts, scratch: Path, *, by_number: bool | None
    ) -> SyncPlan | None:
        """Plan all parts; None if they differ in whether keys of events are compared as numbers."""
        parts, cuts = ledger.division.parts, ledger.cuts()
        aside = SetAside(scratch / f"aside-{by_number}")
        untouchable = ledger.divided(self._untouchable(aside), scratch / "untouchable")
        may_be_withdrawn: Spill | None = None
        if self.addressed.writable is not None:
            may_be_withdrawn = ledger.divided(self._writable(), scratch / "writable")
        window = -(-max(rows.rows, 1) // parts)
        moving, leaving = (Spill(scratch / f"{name}-{by_number}", pl.DataFrame()) for name in ("moving", "leaving"))
        judged = []
        for number in range(parts):
            read = prepared(self.destination, unprepared, rows.read(number), self.salt)
            part = self._part(
                *self._without_forgotten(read),
                ledger.read(number),
                untouchable.read(number)["key"],
                None if may_be_withdrawn is None else may_be_withdrawn.read(number)["key"],
                aside,
                by_number=by_number,
            )
            leaves = part.plan.send["op"] == "withdraw"
            moves, withdrawn = part.plan.send.filter(~leaves), part.plan.send.filter(leaves)
            moving.add(moves, moves[PLACE] // window)
            leaving.add(withdrawn, cuts.search_sorted(withdrawn["key"], side="right"))
            judged.append(replace(part, plan=replace(part.plan, send=part.plan.send.clear())))
        empty = pl.concat([moving.empty, leaving.empty], how="diagonal_relaxed")

        def frames() -> Iterator[pl.DataFrame]:
            ordered = (moving.read(number).sort(PLACE) for number in range(parts))
            withdrawn = (leaving.read(number).sort("key") for number in range(len(cuts) + 1))
            for frame in chain(ordered, withdrawn):
                if len(frame):
                    yield pl.concat([empty, frame], how="diagonal_relaxed")

        planned_rows = PlannedRows(moving.rows + leaving.rows, frames)
        if by_number is None and len({part.plan.by_number for part in judged} - {None}) > 1:
            return None
        return self._judged(_together(judged, unprepared.names, empty), planned_rows, aside, None)

    def _part(
        self,
        rows: Prepared,
        forgotten: pl.DataFrame,
        ledger: pl.DataFrame,
        untouchable: pl.Series,
        writable: pl.Series | None,
        set_aside: SetAside,
        *,
        by_number: bool | None = None,
    ) -> Part:
        """Plan rows; those of them that are not sent are put aside."""
        spec, destination = self.spec, self.destination
        if destination.mode is Mode.INSERT:
            plan = plan_insert(rows, ledger, self.fence, spec, destination.dedupe, by_number=by_number)
        else:
            withdraws = destination.mode is Mode.SET or spec.clears_without_consent
            plan = plan_upsert(
                rows,
                ledger,
                spec,
                day=self.day,
                mapping=spec.mapping_version(destination.target),
                fence=self.fence,
                dedupe=destination.dedupe,
                untouchable=untouchable if withdraws else pl.concat([untouchable, rows.no_consent.drop_nulls()]),
                writable=writable,
                force=self.force,
                replaces=destination.replaces,
            )
        send = plan.send
        before, after = respelled(send)
        if len(before):
            twins = pl.concat([before["key"], after["key"]])
            send = send.with_columns(pl.col("key").is_in(twins.implode()).alias(TWIN))
        reasons = destination.held_rows(send, ledger)
        if self.still_open is not None and len(self.still_open):
            reasons = reasons.set(send["key"].is_in(self.still_open.implode()) & reasons.is_null(), _AT_WORK)
        aside = [(rows.invalid, "invalid"), (forgotten, "held")]
        if reasons.null_count() < len(reasons):
            send = send.with_columns(reasons.alias(HELD))
            aside.append((send.filter(pl.col(HELD).is_not_null()).with_columns(reason=HELD), "held"))
        for frame, kind in aside:
            if len(frame):
                set_aside.add(self._aside(frame, kind))
        columns = {name: ledger[FIELD + name] for name in rows.names if FIELD + name in ledger.columns}
        return Part(
            replace(plan, send=send),
            len(rows.no_consent),
            len(before),
            {name: int((column > UNKNOWN).sum()) for name, column in columns.items()},
            frozenset(name for name, column in columns.items() if column.null_count() < len(column)),
            int((ledger["status"] == "unknown").sum()),
        )

    def _judged(self, part: Part, rows: PlannedRows, aside: SetAside, merge: Merged | None) -> SyncPlan:
        """Return the plan with what is unusual about it; `rows`: all of it."""
        plan, worries = part.plan, list[str]()
        history = usual_runs(self.store, self.spec.folder)
        if self.destination.mode is not Mode.INSERT:
            changing = history.filter(pl.col("known") > 0)
            shares = (changing["changed"] / changing["known"]).to_list()
            worries = concerns(self.spec.guard, plan, rows, part.valued, part.respelt, shares)
        elif self.addressed.keyed is not None:
            plan, worries = resent(self.spec.guard, plan, rows, self.addressed.keyed.key, history)
        return SyncPlan(
            plan,
            rows.filter(pl.col(HELD).is_null()) if HELD in plan.send.columns else rows,
            aside,
            worries,
            self.addressed.counts,
            part.no_consent,
            part.respelt,
            part.recovered,
            merge,
        )

    def _without_forgotten(self, rows: Prepared) -> tuple[Prepared, pl.DataFrame]:
        return _without_forgotten(rows, self.forgotten, self.salt)

    def _aside(self, frame: pl.DataFrame, kind: str) -> pl.DataFrame:
        profile = pl.col("profile_id") if "profile_id" in frame.columns else pl.lit(None)
        named = {name: pl.lit(value) for name, value in {"sync": self.spec.name, "kind": kind, "run_id": ""}.items()}
        labelled = frame.select(profile_id=profile, reason="reason").with_columns(
            hashed_keys(frame["key"], self.salt), day=pl.lit(self.day), **named
        )
        return labelled.select(pl.col(c).cast(t) for c, t in SET_ASIDE_SCHEMA.items())


def _together(parts: Sequence[Part], names: Sequence[str], empty: pl.DataFrame) -> Part:
    """Add up parts that have no rows in common."""
    plans = [part.plan for part in parts]
    counts, valued = Counter[str](), Counter[str]()
    for part in parts:
        counts.update(part.plan.counts)
        valued.update(part.valued)
    in_ledger = frozenset[str]().union(*(part.in_ledger for part in parts))
    new = {name for plan in plans for name in plan.new_names} - in_ledger
    plan = Plan(
        empty,
        dict(counts),
        sum(plan.remapped for plan in plans),
        any(plan.asked_again for plan in plans),
        tuple(name for name in names if name in new),
        pl.concat([plan.forced for plan in plans]),
    )
    no_consent, respelt, recovered = (
        sum(getattr(part, name) for part in parts) for name in ("no_consent", "respelt", "recovered")
    )
    return Part(plan, no_consent, respelt, valued, in_ledger, recovered)


def build_plan(
    spec: SyncSpec,
    destination: Destination,
    rows: pl.LazyFrame | Addressed,
    state: Snapshot,
    store: Store,
    key: bytes,
    *,
    day: date,
    fence: int,
    force: bool,
    forgotten: pl.Series,
    still_open: pl.Series | None = None,
) -> SyncPlan:
    """Compare all rows with the ledger at once; the arguments are those of :class:`Comparison`."""
    addressed = as_addressed(rows)
    comparison = Comparison(spec, destination, addressed, store, key, day, fence, force, forgotten, still_open)
    return comparison.at_once(prepare(spec, destination, addressed.rows, key), state.frame)


def as_addressed(rows: pl.LazyFrame | Addressed) -> Addressed:
    """Return rows with their addresses; without any, nothing is held or invalid for them."""
    return rows if isinstance(rows, Addressed) else Addressed(rows, no_addresses(), no_addresses())


def _without_forgotten(prepared: Prepared, hashes: pl.Series, key: bytes) -> tuple[Prepared, pl.DataFrame]:
    """Remove rows of forgotten people; returns them as held rows without key and profile."""
    if not len(hashes):
        return prepared, no_addresses().collect()
    silenced = pl.Series([False] * len(prepared.rows), dtype=pl.Boolean)
    for column in (c for c in ("key", "anonymous_id", "event_key") if c in prepared.rows.columns):
        for spelt in _spellings(prepared.rows[column]):
            silenced |= hashed_keys(spelt, key).is_in(hashes.to_list()).fill_null(value=False)
    count = int(silenced.sum())
    nameless = pl.DataFrame({"profile_id": [None] * count, "key": [None] * count, "reason": ["forgotten"] * count})
    rows = prepared.rows.filter(~silenced)
    return replace(prepared, rows=rows), nameless.cast(no_addresses().collect_schema())


def _spellings(keys: pl.Series) -> Iterator[pl.Series]:
    """Yield keys as they are, and whole numbers as floats and decimals of up to 9 places spelled them before."""
    yield keys
    is_whole = keys.str.contains(r"^-?[0-9]+$").fill_null(value=False)
    if is_whole.any():
        numbers = keys.to_frame("key").select(pl.when(is_whole).then("key"))["key"]
        yield from (numbers + ("." + "0" * places) for places in range(1, _DECIMAL_PLACES + 1))


def planned(report: SyncReport, plan: SyncPlan, key: bytes) -> SyncReport:
    """Put the numbers of a plan into a report."""
    counts: dict[str, Any] = dict(plan.changes.counts)
    refused = counts.pop("invalid", 0)
    aside = plan.set_aside
    return replace(
        report,
        planned=len(plan.rows),
        invalid=aside.count("invalid") + refused,
        no_consent=plan.no_consent,
        left=plan.merge.fields if plan.merge is not None else 0,
        held=aside.count("held"),
        invalid_reasons=most_frequent(aside.reasons("invalid")),
        held_reasons=most_frequent(aside.reasons("held")),
        full_resend_reason=plan.changes.full_resend_reason,
        new_properties=plan.changes.new_names,
        concerns=tuple(plan.concerns),
        addressing=plan.addressing,
        forced=tuple(hashed_keys(plan.changes.forced, key).to_list()),
        **counts,
    )


def _together_in(ledger_keys: pl.DataFrame, keys: Iterable[pl.Series]) -> pl.Series:
    """Return those of keys that the ledger has."""
    own = (some.alias("key").to_frame().join(ledger_keys, on="key", how="semi") for some in keys)
    return pl.concat([ledger_keys.clear(), *own])["key"]


def most_frequent(counts: pl.DataFrame) -> dict[str, int]:
    """Return the twenty most frequent of counted reasons: `reason`, `len`."""
    return dict(counts.sort("len", "reason", descending=[True, False]).head(20).iter_rows())
