"""The difference between the newest rows and what the destination has acknowledged: what has to be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from heap_assets.activation.engine.destination import Dedupe
from heap_assets.activation.engine.due import WAITS, facts, waits
from heap_assets.activation.engine.hashing import EMPTY, UNKNOWN, combined
from heap_assets.activation.engine.log import FIELD, field_names
from heap_assets.activation.engine.prepare import LEFT, MEMBER, Prepared
from heap_assets.activation.engine.spec import OnWithdrawn, SyncSpec
from heap_assets.activation.engine.spill import PLACE
from heap_assets.values import number_key

OLD = "o:"
"""Prefix of the columns that hold the hashes of the ledger."""
RESEND = "resend"
"""Mapping of keys for which a full resend was asked."""
_FEW = 100
"""So many keys are looked at before all of them are."""


@dataclass(frozen=True)
class Plan:
    """What a run will send, and what it will not.

    `send`: one row per key: `key`, `op`, `row_hash`, `failures`, addressing columns, `v:` values and `p:` hashes. A
    null hash means that the field is not part of the call, 0 that it is cleared or sent as null. `counts`: added,
    changed, unchanged, empty, withdrawn, removed, superseded, known, and why others wait (:data:`due.WAITS`).
    """

    send: pl.DataFrame
    counts: dict[str, int]
    remapped: int = 0
    """Keys that are sent again because the mapping, or the account, is another one."""
    asked_again: bool = False
    """Whether a full resend was asked for."""
    new_names: tuple[str, ...] = ()
    forced: pl.Series = field(default_factory=lambda: pl.Series("key", [], dtype=pl.String))
    by_number: bool | None = None
    """Of events: whether all keys are numbers, so that a number in another spelling is the same key; None: no rows."""

    @property
    def full_resend_reason(self) -> str | None:
        """Why everything is sent again, None if it is not."""
        if not self.remapped:
            return None
        if self.asked_again:
            return f"a full resend was asked for: {self.remapped} keys are sent again"
        return f"the mapping or the destination's account changed: {self.remapped} keys are sent again"


def plan_insert(
    prepared: Prepared,
    ledger: pl.DataFrame,
    fence: int,
    spec: SyncSpec,
    dedupe: Dedupe,
    *,
    by_number: bool | None = None,
) -> Plan:
    """Plan events: rows whose event key was never acknowledged. Changed and vanished rows are ignored.

    Keys that are all numbers are those of a ledger that has them in another spelling, see :func:`respelled`.
    `by_number`: whether all are, if there are others than these.
    """
    delivered = ledger.filter(pl.col("status").is_in(["acknowledged", "sent"])).select("key")
    rows = prepared.rows.rename({"key": "person"}).rename({"event_key": "key"})
    new = rows.join(delivered, on="key", how="anti", maintain_order="left")
    if by_number is None and (len(new) or PLACE in rows.columns):
        by_number = _are_numbers(rows["key"].head(_FEW)) and _are_numbers(rows["key"])
    if len(new) and by_number:
        new = new.join(delivered.select(number_key(pl.col("key"))), on="key", how="anti", maintain_order="left")
    new = new.with_columns(row_hash=combined([new[FIELD + n] for n in prepared.names], len(new)))
    new = new.join(facts(ledger), on="key", how="left", maintain_order="left")
    waiting = waits(new, fence, spec, dedupe)
    due = new.filter(waiting.is_null())
    counts = {"added": len(due), "unchanged": len(rows) - len(new), "known": len(delivered), **_counted(waiting)}
    sent = [name for name in prepared.names if due[FIELD + name].null_count() < len(due)]
    decided = by_number if len(rows) else None  # no rows are no reason
    return Plan(due.with_columns(op=pl.lit("insert")), counts, new_names=_never_sent(sent, ledger), by_number=decided)


def _are_numbers(keys: pl.Series) -> bool:
    key = pl.col("key")
    return bool(keys.alias("key").to_frame().select((key == number_key(key)).fill_null(value=False).all()).item())


def plan_upsert(
    prepared: Prepared,
    ledger: pl.DataFrame,
    spec: SyncSpec,
    *,
    day: date,
    mapping: str,
    fence: int,
    dedupe: Dedupe,
    untouchable: pl.Series | None = None,
    writable: pl.Series | None = None,
    force: bool = False,
    replaces: bool = False,
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
    replaces
        If anything has to be sent, send every row.
    """
    missing = [FIELD + n for n in prepared.names if FIELD + n not in ledger.columns]
    ledger = ledger.with_columns(pl.lit(None, pl.UInt64).alias(f) for f in missing)
    moving = _moving(prepared, ledger, spec, mapping)
    older = (moving["day"] > day).fill_null(value=False)
    forced = moving.filter(older)["key"] if force else pl.Series("key", [], dtype=pl.String)
    empty = _empty(prepared, ledger)
    unchanged = len(prepared.rows) - len(moving) - empty
    moving = moving if force else moving.filter(~older)
    waiting = waits(moving, fence, spec, dedupe)
    ready = moving.filter(waiting.is_null()) if waiting.null_count() < len(moving) else moving
    withdrawn = _vanished(prepared, ledger, spec, day, untouchable, writable, force=force)
    if replaces and (len(ready) or len(withdrawn)):
        moving = _moving(prepared, ledger, spec, mapping, everything=True)
        moving = moving.join(ready, on="key", how="anti", maintain_order="left")
        ready = pl.concat([ready, moving.with_columns(op=pl.lit("keep"))])
    counts = {
        "added": int((ready["op"] == "add").sum()),
        "changed": int((ready["op"] == "change").sum()),
        "unchanged": unchanged,
        "empty": empty,
        "withdrawn": _withdrawn_keys(ready, prepared) + len(withdrawn),
        "removed": len(withdrawn),
        "superseded": 0 if force else int(older.sum()),
        "known": known_keys(ledger),
        **_counted(waiting),
    }
    send = pl.concat([ready, withdrawn], how="diagonal_relaxed") if len(withdrawn) else ready
    new_names = _never_sent([name for name in prepared.names if name != MEMBER], ledger)
    remapped = ready.filter(pl.col("mapping").is_not_null() & ~pl.col("mapping").is_in([mapping, ""]))["mapping"]
    return Plan(send, counts, len(remapped), bool((remapped == RESEND).any()), new_names, forced)


def _never_sent(names: Iterable[str], ledger: pl.DataFrame) -> tuple[str, ...]:
    """Return the properties that no entry of the ledger has: a destination may create them when they are sent."""
    return tuple(
        name for name in names if FIELD + name not in ledger.columns or ledger[FIELD + name].null_count() == len(ledger)
    )


def _counted(waiting: pl.Series) -> dict[str, int]:
    """Count the rows that are not due, by reason."""
    return {reason: int((waiting == reason).sum()) for reason in WAITS}


def _moving(
    prepared: Prepared, ledger: pl.DataFrame, spec: SyncSpec, mapping: str, *, everything: bool = False
) -> pl.DataFrame:
    """Return the rows of which something has to be sent.

    Only hashes are compared; values are fetched for the rows that move, so that memory holds one copy of them.
    `everything`: as if all of it were new.
    """
    fields = [FIELD + n for n in prepared.names]
    old = [pl.col(f).alias(OLD + f.removeprefix(FIELD)) for f in field_names(ledger)]
    former = facts(ledger, "day", "mapping", *old).lazy()
    left = [LEFT + n for n in prepared.names if LEFT + n in prepared.rows.columns]
    compared = (
        prepared.rows.lazy().select("key", *fields, *left).with_row_index("_at").join(former, on="key", how="left")
    )
    was_sent = _any(pl.col(OLD + n) >= UNKNOWN for n in prepared.names)
    op = pl.when(was_sent | pl.col("day").is_not_null()).then(pl.lit("change"))
    compared = compared.with_columns(_intents(prepared, spec, None if everything else mapping)).filter(
        _any(pl.col(f).is_not_null() for f in fields)
    )
    moving = compared.with_columns(op=op.otherwise(pl.lit("add"))).drop(left).sort("_at").collect()
    values = prepared.rows.select(c for c in prepared.rows.columns if c != "key" and c not in {*fields, *left})
    if values.width:  # members of a set may have a key and nothing else
        moving = moving.hstack(values if len(moving) == len(values) else values[moving["_at"]])
    moving = moving.drop("_at")
    return moving.with_columns(row_hash=combined([moving[f] for f in fields], len(moving)))


def _empty(prepared: Prepared, ledger: pl.DataFrame) -> int:
    """Count the rows without a value that have nothing to send: at the destination there is nothing of theirs."""
    if prepared.send_null:
        return 0
    fields = [FIELD + n for n in prepared.names]
    without = prepared.rows.lazy().filter(~_any(pl.col(f).is_not_null() for f in fields)).select("key")
    filled = ledger.lazy().filter(_any(pl.col(f).is_not_null() for f in fields)).select("key")
    return int(without.join(filled, on="key", how="anti").select(pl.len()).collect().item())


def _intents(prepared: Prepared, spec: SyncSpec, mapping: str | None) -> list[pl.Expr]:
    """Per property: the hash to send, 0 to clear or send as null, null to leave the field out."""
    is_remapped = pl.lit(value=True)
    if mapping is not None:
        is_remapped = (pl.col("mapping") != mapping) & pl.col("mapping").is_not_null()
    changes, calls = [], []
    for name in prepared.names:
        new, old = pl.col(FIELD + name), pl.col(OLD + name)
        value: Any = pl.when(new.is_not_null() & (is_remapped | old.is_null() | (old != new))).then(new)
        if spec.on_withdrawn is OnWithdrawn.CLEAR or MEMBER in prepared.names:
            value = value.when(new.is_null() & (old > EMPTY)).then(EMPTY)
        if name in prepared.send_null:
            value = value.when(new.is_null() & (is_remapped | old.is_null() | (old > EMPTY))).then(EMPTY)
        sent = pl.lit(value=True)
        if LEFT + name in prepared.rows.columns:
            sent = pl.col(LEFT + name).is_null()
        changes.append(pl.when(sent).then(value.otherwise(None)))
        full = pl.when(changes[-1].is_not_null()).then(changes[-1]).otherwise(pl.when(sent).then(new))
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
    acknowledged = facts(ledger, "day", *fields).lazy().filter(_any(pl.col(f) > EMPTY for f in fields))
    vanished = acknowledged.join(current_keys, on="key", how="anti", maintain_order="left").collect()
    if not force:
        vanished = vanished.filter((pl.col("day") <= day).fill_null(value=True))
    if untouchable is not None and len(untouchable):
        vanished = vanished.join(untouchable.unique().to_frame("key"), on="key", how="anti", maintain_order="left")
    if writable is not None:
        vanished = vanished.join(writable.unique().to_frame("key"), on="key", how="semi", maintain_order="left")
    if spec.on_withdrawn is OnWithdrawn.KEEP and MEMBER not in prepared.names:
        vanished = vanished.head(0)
    cleared = [pl.when(pl.col(f) > EMPTY).then(pl.lit(EMPTY, pl.UInt64)).alias(f) for f in fields]
    vanished = vanished.with_columns(*cleared, op=pl.lit("withdraw"))
    if MEMBER in prepared.names:  # what is known of those who leave names them better than their key alone
        vanished = vanished.join(prepared.leaving.unique("key", keep="none"), on="key", how="left")
    return (
        vanished.with_columns(row_hash=combined([vanished[f] for f in fields], len(vanished))) if fields else vanished
    )


def respelled(send: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the withdrawals that must have been acknowledged before other rows are sent, and those rows.

    A key column whose type changed, or a former release, spells a number in another way: `17.0` is withdrawn and `17`
    is added. A destination that compares keys as numbers has one record for both, and has to end with what was added.
    """
    withdrawn = send["op"] == "withdraw"
    if withdrawn.all() or not withdrawn.any():
        return send.clear(), send.clear()
    number = send.select(number_key(pl.col("key")))["key"]
    twice = number.is_in(number.filter(withdrawn).implode()) & number.is_in(number.filter(~withdrawn).implode())
    return send.filter((withdrawn & twice).fill_null(value=False)), send.filter(
        (~withdrawn & twice).fill_null(value=False)
    )


def known_keys(ledger: pl.DataFrame) -> int:
    """Count the keys at which the destination holds something of ours."""
    holds = [pl.col(f) > EMPTY for f in field_names(ledger)]
    return int(ledger.select(_any(holds).sum()).item()) if len(ledger) else 0


def _withdrawn_keys(ready: pl.DataFrame, prepared: Prepared) -> int:
    lost = [(pl.col(FIELD + n) == EMPTY) & (pl.col(OLD + n) > EMPTY) for n in prepared.names]
    return int(ready.select(_any(lost).sum()).item()) if lost else 0


def _any(tests: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(*(test.fill_null(value=False) for test in tests), pl.lit(value=False))
