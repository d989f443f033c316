"""Maintenance of a sync between runs: retry rejected rows, resend everything, forget a person."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from heap_assets.activation.engine.accounts import all_ledgers
from heap_assets.activation.engine.difference import RESEND
from heap_assets.activation.engine.hashing import hashed_keys, salt
from heap_assets.activation.engine.lease import Lease
from heap_assets.activation.engine.log import INTENT_SCHEMA, REFUSED, Log, fold
from heap_assets.activation.engine.pending import PendingBatches
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.activation.engine.tables import read_table, write_table
from heap_assets.activation.engine.two_way import forget_settled
from heap_assets.errors import DamagedFileError
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet

PAIR_SEPARATORS = (">", "\x1f")
"""Separators before the identity in keys of migrations (`segment_reidentify`) and of pairs (`heap_identify`)."""

_WHOLE_NUMBER = re.compile(r"(-?[0-9]+)(\.0+)?")
_FAILED = ("failures", "failed_at", "reason")


def rejected(store: Store, spec: SyncSpec, since: datetime | None = None) -> pl.DataFrame:
    """Return the rows that were refused or not answered: `key_hash`, `status`, `failures`, `failed_at`, `reason`."""
    log = Log(store, spec.folder)
    frame = _failed(fold(log, log.ledger()).frame, since, ("rejected", "invalid"))
    return frame.select(hashed_keys(frame["key"], salt(store, spec.salt, keep=False)), "status", *_FAILED)


def keys_behind(store: Store, spec: SyncSpec, hashes: Collection[str]) -> pl.DataFrame:
    """Return the keys of the ledger that reports and open tables show as these hashes, with their status.

    Columns: key_hash, key, status, failures, failed_at, reason. Personal data.
    """
    log = Log(store, spec.folder)
    frame = fold(log, log.ledger()).frame
    secret = salt(store, spec.salt, keep=False)
    shown = frame.select(hashed_keys(frame["key"], secret), "key", "status", *_FAILED)
    return shown.filter(pl.col("key_hash").is_in(list(hashes)))


def retry_rejected(store: Store, spec: SyncSpec, run_id: str, since: datetime | None = None) -> int:
    """Make the next run try rows again that the destination did not take, whatever they wait for; returns how many.

    Rows without an answer too, though the destination may count them twice.

    `since`: only those rejected at this time or later: after an outage, for example.
    """
    return _append_notes(store, spec, run_id, lambda ledger: _failed(ledger, since, REFUSED)["key"], {"failures": 0})


def full_resend(store: Store, spec: SyncSpec, run_id: str) -> int:
    """Make the next run send every known key again; returns how many.

    For upserts. Events are sent once: their ledger is not touched by this.
    """
    return _append_notes(store, spec, run_id, lambda ledger: ledger["key"], {"mapping": RESEND})


def forget(store: Store, spec: SyncSpec, key: str, run_id: str, events: Collection[str] = ()) -> int:
    """Remove a person from ledger, log and open tables for good; return how many keys of the ledger were removed.

    What remains is keyed hashes in `forgotten.parquet`, so that they can be refused. Deleting the person at Heap is
    :func:`heap_assets.activation.heap_deletion`.

    `key`: of the person at the destination: an identity, a userId, an anonymousId. `events`: keys of the person's
    events, which the ledgers of syncs that send each row once hold instead. Keys that end with the person's own (a pair
    of ids) are told by that.
    """
    return forget_all(store, spec, [key], run_id, events)


def forget_all(store: Store, spec: SyncSpec, people: Collection[str], run_id: str, events: Collection[str] = ()) -> int:
    """Remove several people as :func:`forget` does, each ledger written once; returns how many keys were removed."""
    secret = salt(store, spec.salt)
    # of all accounts that the sync ever wrote to, and of those to come: the hashes lie with the sync
    return sum(
        _forget_in_ledger(store, spec, folder, people, events, secret, run_id)
        for folder in all_ledgers(store, spec.name)
    )


def keys_of_people(store: Store, spec: SyncSpec, people: Collection[str]) -> dict[str, str]:
    """Return the keys of the ledgers of a sync that name people, all accounts together, with the person of each."""
    owners: dict[str, str] = {}
    by_key = {key: person for person in people for key in _spellings_of(person)}
    for folder in all_ledgers(store, spec.name):
        log = Log(store, folder)
        keys = fold(log, log.ledger()).frame.select("key").filter(_names(people))["key"].to_list()
        for key in keys:
            ends = [key, *(key.rpartition(separator)[2] for separator in PAIR_SEPARATORS)]
            person = next((by_key[end] for end in ends if end in by_key), None)
            owners[key] = person or next((one for one in people if key.endswith(one)), "")
    return owners


def _spellings_of(person: str) -> set[str]:
    number = _WHOLE_NUMBER.fullmatch(person)
    return {person, *((number[1], f"{number[1]}.0") if number else ())}


def _names(people: Collection[str]) -> pl.Expr:
    """Return whether a key is a person's, or a pair that ends with one."""
    key = pl.col("key")
    chosen = key.is_in(list(people))
    # `17`, which a former release sent as `17.0`; never `017`
    numbers = [number[1] for person in people if (number := _WHOLE_NUMBER.fullmatch(person))]
    if numbers:
        chosen |= key.str.contains(r"^-?[0-9]+\.0+$") & key.str.replace(r"\.0+$", "").is_in(numbers)
        chosen |= key.is_in(numbers)
    for separator in PAIR_SEPARATORS:
        chosen |= key.str.contains(separator, literal=True) & key.str.split(separator).list.last().is_in(list(people))
        for person in people:
            if separator in person:
                chosen |= key.str.ends_with(separator + person)
    return chosen


def _forget_in_ledger(
    store: Store,
    spec: SyncSpec,
    folder: str,
    people: Collection[str],
    events: Collection[str],
    secret: bytes,
    run_id: str,
) -> int:
    with Lease(store, folder, run_id, spec.lease_ttl) as lease:
        log = Log(store, folder, lease.fence)
        state = fold(log, log.ledger())
        chosen = _names(people) | pl.col("key").is_in(list(events))
        hashed = state.frame.filter(chosen)["key"]
        keys = pl.Series("key", sorted({*people, *events, *hashed}), dtype=pl.String)
        hashes = set(hashed_keys(keys, secret).to_list())
        # First: once the ledger has dropped a key, nothing else keeps it from being sent as a new one.
        refuse(store, spec.name, hashes)
        PendingBatches(store, folder).forget(keys)
        forget_settled(store, folder, keys)
        everything = frozenset(log.segments())
        log.save(replace(state, frame=state.frame.filter(~chosen), folded=everything), compact_after=-1)
        _forget_in_tables(store, folder, hashes)
    return len(hashed)


def forgotten(store: Store, sync: str) -> pl.Series:
    """Return the keyed hashes of the keys that must never be sent again."""
    try:
        return _hashes(store, sync, store.read(_forgotten_key(sync)))
    except FileNotFoundError:
        return pl.Series("key_hash", [], dtype=pl.String)


def refuse(store: Store, sync: str, hashes: Collection[str]) -> None:
    """Add keyed hashes of keys that must never be sent again; safe against others who add some at the same time."""

    if not hashes:
        return

    def added(data: bytes | None) -> bytes:
        hashed = [] if data is None else _hashes(store, sync, data).to_list()
        return to_parquet(pl.Series("key_hash", sorted({*hashed, *hashes}), dtype=pl.String).to_frame())

    store.update(_forgotten_key(sync), added)


def _hashes(store: Store, sync: str, data: bytes) -> pl.Series:
    try:
        return from_parquet(data)["key_hash"]
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(
            f"{store.uri(_forgotten_key(sync))} is damaged ({error}): restore it from a backup; without "
            "it people would be sent who must not be"
        ) from error


def _forgotten_key(sync: str) -> str:
    return f"{state_keys.SYNC}/{sync}/forgotten.parquet"


def _forget_in_tables(store: Store, sync: str, hashes: Collection[str]) -> None:
    for table in ("changelog", "set_aside"):
        for info in store.list(f"{state_keys.SYNC}/{sync}/{table}"):
            frame = read_table(store, info.key)
            if frame is None:  # nobody can tell whether the person is in it
                store.delete(info.key)
                continue
            remaining = frame.filter(~pl.col("key_hash").is_in(list(hashes)).fill_null(value=False))
            if len(remaining) < len(frame):
                write_table(store, info.key, remaining)


def _failed(ledger: pl.DataFrame, since: datetime | None, statuses: Collection[str]) -> pl.DataFrame:
    failed = ledger.filter(pl.col("status").is_in([*statuses, "unknown"]))
    return failed if since is None else failed.filter(pl.col("failed_at").is_null() | (pl.col("failed_at") >= since))


def _append_notes(
    store: Store, spec: SyncSpec, run_id: str, keys: Callable[[pl.DataFrame], pl.Series], says: dict[str, object]
) -> int:
    """Append a note about some keys to the log and fold it into the ledger; without keys nothing is written.

    Retry back-off is counted in leases, so a no-op must not take one.
    """
    current = Log(store, spec.folder)
    if not len(keys(fold(current, current.ledger()).frame)):
        return 0
    with Lease(store, spec.folder, run_id, spec.lease_ttl) as lease:
        log = Log(store, spec.folder, lease.fence)
        before = log.ledger()
        noted_keys = keys(fold(log, before).frame)
        if len(noted_keys):
            _append_note(log, noted_keys, run_id, says)
            log.save(fold(log, before), spec.compact_after)
    return len(noted_keys)


def _append_note(log: Log, keys: pl.Series, run_id: str, says: dict[str, object]) -> None:
    name = log.batch()
    facts = {"batch": name, "op": "note", "run_id": run_id, "fence": log.fence, "at": datetime.now(UTC), **says}
    note = keys.to_frame("key").with_row_index("row")
    note = note.with_columns(
        pl.lit(facts.get(c), t).alias(c) for c, t in INTENT_SCHEMA.items() if c not in note.columns
    )
    log.append(name, "intent", note.select(*INTENT_SCHEMA))
