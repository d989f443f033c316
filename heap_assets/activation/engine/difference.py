"""What has to be sent: the newest rows against what the destination has acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from heap_assets.activation.engine.canonical import property_columns
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.hashing import EMPTY, UNKNOWN, combined, hashed_values
from heap_assets.activation.engine.log import FIELD, field_names
from heap_assets.activation.engine.spec import Mode, OnWithdrawn, SyncSpec
from heap_assets.activation.engine.validation import VALUE, check_names, duplicated, reasons
from heap_assets.errors import SettingsError

OLD = "o:"
"""Prefix of the columns that hold what the ledger knew before."""
RESEND = "resend"
"""Mapping of keys for which a full resend was asked."""
_LONGEST_PAUSE = 32


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be compared.

    Attributes
    ----------
    rows
        `key`, addressing columns, and per property `v:<name>` (value) and `p:<name>` (keyed hash, null for null).
    invalid
        `profile_id`, `key`, `reason`: never sent.
    keys
        Every key that was given, usable or not.
    """

    rows: pl.DataFrame
    invalid: pl.DataFrame
    keys: pl.Series
    names: tuple[str, ...]
    send_null: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """What a run will send, and what it will not.

    Attributes
    ----------
    send
        One row per key: `key`, `op`, `row_hash`, `failures`, addressing columns, `v:` values and `p:` hashes. A null
        hash means that the field is not part of the call, 0 that it is cleared or sent as null.
    counts
        added, changed, unchanged, empty, withdrawn, removed, superseded, waiting, known.
    """

    send: pl.DataFrame
    counts: dict[str, int]
    full_resend_reason: str | None = None
    new_names: tuple[str, ...] = ()
    forced: pl.Series = field(default_factory=lambda: pl.Series("key", [], dtype=pl.String))


def prepare(spec: SyncSpec, destination: Destination, rows: pl.LazyFrame, salt: bytes) -> Prepared:
    """Read the rows, turn mapped columns into values, hash them, and set invalid rows apart."""
    columns = property_columns(spec, rows)
    names = tuple(columns)
    check_names(spec.name, names, destination.limits)
    present = rows.collect_schema().names()
    for column in ("key", *destination.required):
        if column not in present:
            raise SettingsError(
                f"sync {spec.name}: {destination.kind} needs the column {column!r}, which the rows lack"
            )
    kept = [c for c in ("key", "profile_id", *destination.required, *destination.optional) if c in present]
    rows = rows.with_columns(pl.col("key").cast(pl.String))
    frame = rows.select(*kept, *(value.alias(VALUE + name) for name, (value, _) in columns.items())).collect()
    unique_on = "event_key" if destination.mode is Mode.INSERT else "key"
    reason = reasons(frame, destination, names)
    twice = "two rows have this key" if unique_on == "event_key" else "two profiles have this key"
    reason = reason.set(duplicated(frame, unique_on) & reason.is_null(), twice) if len(frame) else reason
    bad = reason.is_not_null()
    labelled = frame.select("key", *(["profile_id"] if "profile_id" in kept else [])).with_columns(reason=reason)
    usable = frame if not bad.any() else frame.filter(~bad)
    hashed = usable.with_columns(hashed_values(usable[VALUE + n], salt).alias(FIELD + n) for n in names)
    send_null = frozenset(name for name, (_, mapped) in columns.items() if mapped.on_null == "send")
    return Prepared(hashed, labelled.filter(bad), frame[unique_on], names, send_null)


def plan_insert(prepared: Prepared, ledger: pl.DataFrame, fence: int, spec: SyncSpec) -> Plan:
    """Plan events: rows whose event key was never acknowledged. What changed or vanished is never sent."""
    done = ledger.filter(pl.col("status").is_in(["acknowledged", "sent"])).select("key")
    rows = prepared.rows.rename({"key": "person"}).rename({"event_key": "key"})
    new = rows.join(done, on="key", how="anti", maintain_order="left")
    new = _with_failures(
        new.with_columns(row_hash=combined([new[FIELD + n] for n in prepared.names], len(new))), ledger
    )
    due = _due(new, fence, spec)
    counts = {
        "added": int(due.sum()),
        "unchanged": len(rows) - len(new),
        "waiting": int((~due).sum()),
        "known": len(done),
    }
    return Plan(new.filter(due).with_columns(op=pl.lit("insert")), counts)


def plan_upsert(
    prepared: Prepared,
    ledger: pl.DataFrame,
    spec: SyncSpec,
    *,
    day: date,
    mapping: str,
    fence: int,
    untouchable: pl.Series | None = None,
    writable: pl.Series | None = None,
    force: bool = False,
) -> Plan:
    """Plan an upsert.

    Parameters
    ----------
    ledger
        As :func:`heap_assets.activation.fold` gives it.
    mapping
        Version of mapping and target; a key acknowledged under another one is sent again.
    untouchable
        Keys that are held: nothing is sent for them, not even a withdrawal.
    writable
        If given, withdrawals for vanished keys are sent only to these.
    force
        Send even if a newer day was acknowledged; the keys are listed in the plan.
    """
    ledger = _with_fields(ledger, prepared.names)
    moving = _moving(prepared, ledger, spec, mapping)
    older = (moving["day"] > day).fill_null(value=False)
    forced = moving.filter(older)["key"] if force else pl.Series("key", [], dtype=pl.String)
    empty = _empty(prepared, ledger)
    unchanged = len(prepared.rows) - len(moving) - empty
    moving = moving if force else moving.filter(~older)
    due = _due(moving, fence, spec)
    ready = moving if due.all() else moving.filter(due)
    gone = _vanished(prepared, ledger, spec, day, untouchable, writable, force=force)
    counts = {
        "added": int((ready["op"] == "add").sum()),
        "changed": int((ready["op"] == "change").sum()),
        "unchanged": unchanged,
        "empty": empty,
        "withdrawn": _withdrawn_keys(ready, prepared) + len(gone),
        "removed": len(gone),
        "superseded": 0 if force else int(older.sum()),
        "waiting": len(moving) - len(ready),
        "known": known_keys(ledger),
    }
    send = pl.concat([ready, gone], how="diagonal_relaxed") if len(gone) else ready
    return Plan(send, counts, _resend_reason(ready, mapping), _new_names(prepared, ledger), forced)


def _moving(prepared: Prepared, ledger: pl.DataFrame, spec: SyncSpec, mapping: str) -> pl.DataFrame:
    """Return the rows of which something has to be sent.

    Only hashes are compared; values are fetched for the rows that move, so that memory holds one copy of them.
    """
    fields = [FIELD + n for n in prepared.names]
    facts = ledger.lazy().select("key", "day", "mapping", "failures", "failed_hash", "failed_fence", *_old(ledger))
    compared = prepared.rows.lazy().select("key", *fields).with_row_index("_at").join(facts, on="key", how="left")
    op = pl.when(_any(_was_sent(prepared.names)) | pl.col("day").is_not_null()).then(pl.lit("change"))
    compared = compared.with_columns(_intents(prepared, spec, mapping)).filter(
        _any(pl.col(f).is_not_null() for f in fields)
    )
    moving = compared.with_columns(op=op.otherwise(pl.lit("add"))).sort("_at").collect()
    values = prepared.rows.select(c for c in prepared.rows.columns if c != "key" and c not in fields)
    moving = moving.hstack(values[moving["_at"]]).drop("_at")
    return moving.with_columns(row_hash=combined([moving[f] for f in fields], len(moving)))


def _empty(prepared: Prepared, ledger: pl.DataFrame) -> int:
    """Count the rows without a value that have nothing to send: at the destination there is nothing of theirs."""
    if prepared.send_null:
        return 0
    fields = [FIELD + n for n in prepared.names]
    without = prepared.rows.lazy().filter(~_any(pl.col(f).is_not_null() for f in fields)).select("key")
    known = ledger.lazy().filter(_any(pl.col(f).is_not_null() for f in fields)).select("key")
    return int(without.join(known, on="key", how="anti").select(pl.len()).collect().item())


def _intents(prepared: Prepared, spec: SyncSpec, mapping: str) -> list[pl.Expr]:
    """Per property: the hash to send, 0 to clear or send as null, null to leave the field out."""
    again = (pl.col("mapping") != mapping) & pl.col("mapping").is_not_null()
    changes, calls = [], []
    for name in prepared.names:
        new, old = pl.col(FIELD + name), pl.col(OLD + name)
        value: Any = pl.when(new.is_not_null() & (again | old.is_null() | (old != new))).then(new)
        if spec.on_withdrawn is OnWithdrawn.CLEAR:
            value = value.when(new.is_null() & (old > EMPTY)).then(EMPTY)
        if name in prepared.send_null:
            value = value.when(new.is_null() & (again | old.is_null() | (old > EMPTY))).then(EMPTY)
        changes.append(value.otherwise(None))
        full = pl.when(changes[-1].is_not_null()).then(changes[-1]).otherwise(new)
        calls.append(full)
    if spec.changed_fields_only:
        return [change.alias(FIELD + n) for change, n in zip(changes, prepared.names, strict=True)]
    moves = _any(change.is_not_null() for change in changes)
    return [pl.when(moves).then(call).alias(FIELD + n) for call, n in zip(calls, prepared.names, strict=True)]


def _vanished(
    prepared: Prepared,
    ledger: pl.DataFrame,
    spec: SyncSpec,
    day: date,
    untouchable: pl.Series | None,
    writable: pl.Series | None,
    *,
    force: bool,
) -> pl.DataFrame:
    """Return withdrawals for keys that no row has any more."""
    fields = [FIELD + n for n in prepared.names]
    given = prepared.keys.drop_nulls().to_frame("key").lazy()
    held = ledger.lazy().filter(_any(pl.col(f) > EMPTY for f in fields))
    held = held.select("key", "day", "failures", "failed_hash", "failed_fence", *fields)
    gone = held.join(given, on="key", how="anti", maintain_order="left").collect()
    if not force:
        gone = gone.filter((pl.col("day") <= day).fill_null(value=True))
    if untouchable is not None and len(untouchable):
        gone = gone.join(untouchable.unique().to_frame("key"), on="key", how="anti", maintain_order="left")
    if writable is not None:
        gone = gone.join(writable.unique().to_frame("key"), on="key", how="semi", maintain_order="left")
    if spec.on_withdrawn is OnWithdrawn.KEEP:
        gone = gone.head(0)
    cleared = [pl.when(pl.col(f) > EMPTY).then(pl.lit(EMPTY, pl.UInt64)).alias(f) for f in fields]
    gone = gone.select("key", "day", "failures", "failed_hash", "failed_fence", *cleared).with_columns(
        op=pl.lit("withdraw")
    )
    return gone.with_columns(row_hash=combined([gone[f] for f in fields], len(gone))) if fields else gone


def known_keys(ledger: pl.DataFrame) -> int:
    """Count the keys at which the destination holds something of ours."""
    holds = [pl.col(f) > EMPTY for f in field_names(ledger)]
    return int(ledger.select(_any(holds).sum()).item()) if len(ledger) else 0


def _withdrawn_keys(ready: pl.DataFrame, prepared: Prepared) -> int:
    lost = [(pl.col(FIELD + n) == EMPTY) & (pl.col(OLD + n) > EMPTY) for n in prepared.names]
    return int(ready.select(_any(lost).sum()).item()) if lost else 0


def _with_failures(rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    facts = ledger.select("key", "failures", "failed_hash", "failed_fence")
    return rows.join(facts, on="key", how="left", maintain_order="left")


def _due(rows: pl.DataFrame, fence: int, spec: SyncSpec) -> pl.Series:
    """Tell which rows are to be tried now: equal failures are repeated ever less often (design.md, Sync: Rows)."""
    same = (rows["failed_hash"] == rows["row_hash"]).fill_null(value=False)
    failures = rows["failures"].fill_null(0).cast(pl.Int64)
    patient = same & (failures >= spec.unchanged_failures)
    if not patient.any():
        return pl.Series([True]).new_from_index(0, len(rows)) if len(rows) else pl.Series([], dtype=pl.Boolean)
    exponent = (failures - spec.unchanged_failures + 1).clip(0, 5)
    pause = pl.select(pl.lit(2).pow(exponent).clip(1, _LONGEST_PAUSE)).to_series()
    return ~patient | ((fence - rows["failed_fence"]) >= pause)


def _with_fields(ledger: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    missing = [FIELD + n for n in names if FIELD + n not in ledger.columns]
    return ledger.with_columns(pl.lit(None, pl.UInt64).alias(f) for f in missing)


def _old(ledger: pl.DataFrame) -> list[pl.Expr]:
    return [pl.col(f).alias(OLD + f.removeprefix(FIELD)) for f in field_names(ledger)]


def _was_sent(names: tuple[str, ...]) -> list[pl.Expr]:
    return [pl.col(OLD + n) >= UNKNOWN for n in names]


def _resend_reason(ready: pl.DataFrame, mapping: str) -> str | None:
    others = ready.filter(pl.col("mapping").is_not_null() & ~pl.col("mapping").is_in([mapping, ""]))["mapping"]
    if len(others) == 0:
        return None
    if (others == RESEND).any():
        return f"a full resend was asked for: {len(others)} keys are sent again"
    return f"the mapping or the destination's account changed: {len(others)} keys are sent again"


def _new_names(prepared: Prepared, ledger: pl.DataFrame) -> tuple[str, ...]:
    return tuple(n for n in prepared.names if ledger[FIELD + n].null_count() == len(ledger))


def _any(tests: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(*(test.fill_null(value=False) for test in tests), pl.lit(value=False))
