"""The difference between the newest rows and what the destination has acknowledged: what has to be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from heap_assets.activation.engine.canonical import property_columns, utf16_longer_than
from heap_assets.activation.engine.destination import Destination, Limits
from heap_assets.activation.engine.hashing import EMPTY, UNKNOWN, combined, hashed_values
from heap_assets.activation.engine.log import FIELD, field_names
from heap_assets.activation.engine.spec import Mode, OnWithdrawn, SyncSpec
from heap_assets.errors import SettingsError
from heap_assets.values import number_key

VALUE = "v:"
"""Prefix of the columns that hold the values to send."""
OLD = "o:"
"""Prefix of the columns that hold the hashes of the ledger."""
RESEND = "resend"
"""Mapping of keys for which a full resend was asked."""
_LONGEST_PAUSE = 32


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be compared."""

    rows: pl.DataFrame
    """`key`, addressing columns, and per property `v:<name>` (value) and `p:<name>` (keyed hash, null for null)."""
    invalid: pl.DataFrame
    """`profile_id`, `key`, `reason`: never sent."""
    keys: pl.Series
    """Every key of the rows, invalid ones included."""
    names: tuple[str, ...]
    send_null: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """What a run will send, and what it will not.

    `send`: one row per key: `key`, `op`, `row_hash`, `failures`, addressing columns, `v:` values and `p:` hashes. A
    null hash means that the field is not part of the call, 0 that it is cleared or sent as null. `counts`: added,
    changed, unchanged, empty, withdrawn, removed, superseded, waiting, known.
    """

    send: pl.DataFrame
    counts: dict[str, int]
    full_resend_reason: str | None = None
    new_names: tuple[str, ...] = ()
    forced: pl.Series = field(default_factory=lambda: pl.Series("key", [], dtype=pl.String))


def prepare(spec: SyncSpec, destination: Destination, rows: pl.LazyFrame, salt: bytes) -> Prepared:
    """Read the rows, turn mapped columns into values, hash them, and separate invalid rows."""
    columns = property_columns(spec, rows)
    names = tuple(columns)
    check_names(spec.name, names, destination.limits)
    present = rows.collect_schema().names()
    for column in ("key", *destination.required):
        if column not in present:
            raise SettingsError(
                f"sync {spec.name}: {destination.kind} needs the column {column!r}, which the rows lack"
            )
    inputs = [c for c in ("key", "profile_id", *destination.required, *destination.optional) if c in present]
    rows = rows.with_columns(pl.col("key").cast(pl.String))
    frame = rows.select(*inputs, *(value.alias(VALUE + name) for name, (value, _) in columns.items())).collect()
    unique_on = "event_key" if destination.mode is Mode.INSERT else "key"
    reason = reasons(frame, destination, names)
    twice = "two rows have this key" if unique_on == "event_key" else "two profiles have this key"
    reason = reason.set(duplicated(frame, unique_on) & reason.is_null(), twice) if len(frame) else reason
    bad = reason.is_not_null()
    labelled = frame.select("key", *(["profile_id"] if "profile_id" in inputs else [])).with_columns(reason=reason)
    usable = frame if not bad.any() else frame.filter(~bad)
    hashed = usable.with_columns(hashed_values(usable[VALUE + n], salt).alias(FIELD + n) for n in names)
    send_null = frozenset(name for name, (_, mapped) in columns.items() if mapped.on_null == "send")
    return Prepared(hashed, labelled.filter(bad), frame[unique_on], names, send_null)


def plan_insert(prepared: Prepared, ledger: pl.DataFrame, fence: int, spec: SyncSpec) -> Plan:
    """Plan events: rows whose event key was never acknowledged. Changed and vanished rows are ignored.

    Keys that are all numbers are those of a ledger that has them in another spelling, see :func:`respelled`.
    """
    done = ledger.filter(pl.col("status").is_in(["acknowledged", "sent"])).select("key")
    rows = prepared.rows.rename({"key": "person"}).rename({"event_key": "key"})
    new = rows.join(done, on="key", how="anti", maintain_order="left")
    if len(new) and rows.select((pl.col("key") == number_key(pl.col("key"))).fill_null(value=False).all()).item():
        new = new.join(done.select(number_key(pl.col("key"))), on="key", how="anti", maintain_order="left")
    new = new.with_columns(row_hash=combined([new[FIELD + n] for n in prepared.names], len(new)))
    failures = ledger.select("key", "failures", "failed_hash", "failed_fence")
    new = new.join(failures, on="key", how="left", maintain_order="left")
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
    missing = [FIELD + n for n in prepared.names if FIELD + n not in ledger.columns]
    ledger = ledger.with_columns(pl.lit(None, pl.UInt64).alias(f) for f in missing)
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
    new_names = tuple(n for n in prepared.names if ledger[FIELD + n].null_count() == len(ledger))
    return Plan(send, counts, _resend_reason(ready, mapping), new_names, forced)


def _moving(prepared: Prepared, ledger: pl.DataFrame, spec: SyncSpec, mapping: str) -> pl.DataFrame:
    """Return the rows of which something has to be sent.

    Only hashes are compared; values are fetched for the rows that move, so that memory holds one copy of them.
    """
    fields = [FIELD + n for n in prepared.names]
    old = [pl.col(f).alias(OLD + f.removeprefix(FIELD)) for f in field_names(ledger)]
    facts = ledger.lazy().select("key", "day", "mapping", "failures", "failed_hash", "failed_fence", *old)
    compared = prepared.rows.lazy().select("key", *fields).with_row_index("_at").join(facts, on="key", how="left")
    was_sent = _any(pl.col(OLD + n) >= UNKNOWN for n in prepared.names)
    op = pl.when(was_sent | pl.col("day").is_not_null()).then(pl.lit("change"))
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
    filled = ledger.lazy().filter(_any(pl.col(f).is_not_null() for f in fields)).select("key")
    return int(without.join(filled, on="key", how="anti").select(pl.len()).collect().item())


def _intents(prepared: Prepared, spec: SyncSpec, mapping: str) -> list[pl.Expr]:
    """Per property: the hash to send, 0 to clear or send as null, null to leave the field out."""
    is_remapped = (pl.col("mapping") != mapping) & pl.col("mapping").is_not_null()
    changes, calls = [], []
    for name in prepared.names:
        new, old = pl.col(FIELD + name), pl.col(OLD + name)
        value: Any = pl.when(new.is_not_null() & (is_remapped | old.is_null() | (old != new))).then(new)
        if spec.on_withdrawn is OnWithdrawn.CLEAR:
            value = value.when(new.is_null() & (old > EMPTY)).then(EMPTY)
        if name in prepared.send_null:
            value = value.when(new.is_null() & (is_remapped | old.is_null() | (old > EMPTY))).then(EMPTY)
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
    current_keys = prepared.keys.drop_nulls().to_frame("key").lazy()
    acknowledged = ledger.lazy().filter(_any(pl.col(f) > EMPTY for f in fields))
    acknowledged = acknowledged.select("key", "day", "failures", "failed_hash", "failed_fence", *fields)
    vanished = acknowledged.join(current_keys, on="key", how="anti", maintain_order="left").collect()
    if not force:
        vanished = vanished.filter((pl.col("day") <= day).fill_null(value=True))
    if untouchable is not None and len(untouchable):
        vanished = vanished.join(untouchable.unique().to_frame("key"), on="key", how="anti", maintain_order="left")
    if writable is not None:
        vanished = vanished.join(writable.unique().to_frame("key"), on="key", how="semi", maintain_order="left")
    if spec.on_withdrawn is OnWithdrawn.KEEP:
        vanished = vanished.head(0)
    cleared = [pl.when(pl.col(f) > EMPTY).then(pl.lit(EMPTY, pl.UInt64)).alias(f) for f in fields]
    vanished = vanished.select("key", "day", "failures", "failed_hash", "failed_fence", *cleared).with_columns(
        op=pl.lit("withdraw")
    )
    return (
        vanished.with_columns(row_hash=combined([vanished[f] for f in fields], len(vanished))) if fields else vanished
    )


def respelled(send: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the withdrawals that must have been acknowledged before other rows are sent, and those rows.

    A key column whose type changed, or a former release, spells a number in another way: `17.0` is withdrawn and `17`
    is added. A destination that compares keys as numbers has one record for both, and has to end with what was added.
    """
    gone = send["op"] == "withdraw"
    if gone.all() or not gone.any():
        return send.clear(), send.clear()
    number = send.select(number_key(pl.col("key")))["key"]
    twice = number.is_in(number.filter(gone).implode()) & number.is_in(number.filter(~gone).implode())
    return send.filter((gone & twice).fill_null(value=False)), send.filter((~gone & twice).fill_null(value=False))


def known_keys(ledger: pl.DataFrame) -> int:
    """Count the keys at which the destination holds something of ours."""
    holds = [pl.col(f) > EMPTY for f in field_names(ledger)]
    return int(ledger.select(_any(holds).sum()).item()) if len(ledger) else 0


def _withdrawn_keys(ready: pl.DataFrame, prepared: Prepared) -> int:
    lost = [(pl.col(FIELD + n) == EMPTY) & (pl.col(OLD + n) > EMPTY) for n in prepared.names]
    return int(ready.select(_any(lost).sum()).item()) if lost else 0


def _due(rows: pl.DataFrame, fence: int, spec: SyncSpec) -> pl.Series:
    """Return which rows are due: repeated equal failures back off (design.md, Sync: Rows)."""
    same = (rows["failed_hash"] == rows["row_hash"]).fill_null(value=False)
    failures = rows["failures"].fill_null(0).cast(pl.Int64)
    patient = same & (failures >= spec.unchanged_failures)
    if not patient.any():
        return pl.Series([True]).new_from_index(0, len(rows)) if len(rows) else pl.Series([], dtype=pl.Boolean)
    exponent = (failures - spec.unchanged_failures + 1).clip(0, 5)
    pause = pl.select(pl.lit(2).pow(exponent).clip(1, _LONGEST_PAUSE)).to_series()
    return ~patient | ((fence - rows["failed_fence"]) >= pause)


def _resend_reason(ready: pl.DataFrame, mapping: str) -> str | None:
    changed = ready.filter(pl.col("mapping").is_not_null() & ~pl.col("mapping").is_in([mapping, ""]))["mapping"]
    if len(changed) == 0:
        return None
    if (changed == RESEND).any():
        return f"a full resend was asked for: {len(changed)} keys are sent again"
    return f"the mapping or the destination's account changed: {len(changed)} keys are sent again"


def _any(tests: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(*(test.fill_null(value=False) for test in tests), pl.lit(value=False))


def check_names(sync: str, names: Iterable[str], limits: Limits) -> None:
    """Refuse property names that the destination would misread.

    Raises SettingsError for a name that is empty, too long (heap.md 1.9) or taken by the destination ("id", heap.md
    1.5).
    """
    for name in names:
        if not name.strip():
            raise SettingsError(f"sync {sync}: a property has an empty name")
        if name.lower() in limits.forbidden_names:
            raise SettingsError(f"sync {sync}: property {name!r} clashes with a name of the destination: rename it")
        if limits.name_units is not None and len(name.encode("utf-16-le")) // 2 > limits.name_units:
            raise SettingsError(f"sync {sync}: property {name[:40]!r}... is longer than {limits.name_units} characters")


def reasons(frame: pl.DataFrame, destination: Destination, names: Iterable[str]) -> pl.Series:
    """Return for every row why it cannot be sent; null if it can.

    `frame`: `key`, the destination's other columns, and one `v:` column per property.
    """
    reasons_by_row = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, len(frame))
    tests = [*_key_tests(frame, destination), *_value_tests(frame, destination.limits, names)]
    for reason, expression in destination.invalid_rows(frame.lazy()).items():
        tests.append((reason, frame.select(bad=expression.fill_null(value=True))["bad"]))
    for reason, bad in reversed(tests):
        if bad.any():
            reasons_by_row = reasons_by_row.set(bad, reason)
    return reasons_by_row


def _key_tests(frame: pl.DataFrame, destination: Destination) -> list[tuple[str, pl.Series]]:
    key, limits = frame["key"], destination.limits
    nulls = [] if destination.key_may_be_null else [("key is null", key.is_null())]
    tests = [*nulls, ("key is blank", (key.str.strip_chars() == "").fill_null(value=False))]
    if limits.key_units is not None:
        tests.append((f"key is longer than {limits.key_units} characters", utf16_longer_than(key, limits.key_units)))
    if limits.junk_keys:
        junk = key.str.to_lowercase().is_in(list(limits.junk_keys)).fill_null(value=False)
        tests.append(("key is a placeholder, not one person", junk))
    return tests


def _value_tests(frame: pl.DataFrame, limits: Limits, names: Iterable[str]) -> list[tuple[str, pl.Series]]:
    tests = []
    for name in names:
        values = frame[VALUE + name]
        if values.dtype == pl.String and limits.value_units is not None:
            reason = f"{name} is longer than {limits.value_units} characters"
            tests.append((reason, utf16_longer_than(values, limits.value_units)))
        elif values.dtype.is_float():
            tests.append((f"{name} is not a finite number", (~values.is_finite()).fill_null(value=False)))
    return tests


def duplicated(frame: pl.DataFrame, column: str) -> pl.Series:
    """Tell which rows share their key with another row; null keys share nothing."""
    return frame[column].is_duplicated() & frame[column].is_not_null()
