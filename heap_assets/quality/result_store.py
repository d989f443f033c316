"""Stored results, `_verdicts/<asset>/<check>/<partition>.json`, and the gate that syncs ask before they send.

Dagster keeps check results for its UI, and a blocking check only stops the steps of its own run. Syncs read these files
instead: which version of a partition was checked, and with what result.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.quality.results import CheckResult, Number, Severity, is_hash
from heap_assets.storage import Lake, ObjectInfo, Store, from_parquet, side_by_side, state_keys, to_parquet

ROOT = state_keys.CHECK_RESULTS
ALL_PARTITIONS = "all"
_HASH_KEY = f"{ROOT}/.key"
_HASH_KEY_BYTES = 32
_REMEMBERED = f"{state_keys.STATUS}/results.parquet"
_REMEMBERED_SCHEMA = pl.Schema({"key": pl.String(), "etag": pl.String(), "text": pl.Binary()})
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredResult:
    """A result as stored in the lake; `version` is that of the partition it is about, None if it was not built."""

    asset: str
    check: str
    partition: str
    passed: bool
    severity: Severity
    blocking: bool
    version: str | None
    judged_at: datetime
    rule: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    sample: Sequence[Mapping[str, Any]] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    not_judged: str = ""

    @property
    def failed(self) -> bool:
        """Whether the rule was held against the partition and does not hold."""
        return not self.passed and not self.not_judged

    @property
    def hashes(self) -> frozenset[str]:
        """The keyed hashes that the sample shows."""
        cells = {part for row in self.sample for cell in row.values() for part in str(cell).split()}
        return frozenset(filter(is_hash, cells))


def object_key(asset: str, check: str, partition: str) -> str:
    """Return where a result is stored."""
    return f"{ROOT}/{asset}/{check}/{partition}.json"


def parts(key: str) -> tuple[str, str, str]:
    """Return asset, check and partition of a stored result's key; empty texts for any other key."""
    path, _, name = key.removeprefix(f"{ROOT}/").rpartition("/")
    asset, _, check = path.rpartition("/")
    return (asset, check, name.removesuffix(".json")) if name.endswith(".json") else ("", "", "")


def partition_version(lake: Lake, asset: str, partition: str) -> str | None:
    """Return the current version of a partition, None if it was never built."""
    info = lake.store.head(lake.key(asset, None if partition == ALL_PARTITIONS else partition))
    return info.etag if info else None


def record(
    store: Store,
    result: CheckResult,
    *,
    asset: str,
    check: str,
    partition: str,
    version: str | None,
    severity: Severity,
    blocking: bool,
    rule: str = "",
    run_id: str | None = None,
) -> StoredResult:
    """Store a result in place of the previous one; offenders are stored hashed.

    A result on an older version never replaces one on the current version of the partition: of two runs, the one that
    checked the older version may finish last. It is returned all the same.
    """
    stored = StoredResult(
        asset=asset,
        check=check,
        partition=partition,
        passed=result.passed,
        severity=severity,
        blocking=blocking,
        version=version,
        judged_at=datetime.now(UTC),
        rule=rule,
        numbers=dict(result.numbers),
        notes=dict(result.notes),
        sample=result.sample(hash_key(store)) if result.offenders is not None else (),
        memory=dict(result.memory),
        run_id=run_id,
        not_judged=result.not_judged,
    )
    data = json.dumps(asdict(stored), default=_plain).encode()

    def keep_if_current(current_data: bytes | None) -> bytes | None:
        return None if current_data is not None and _is_overtaken(Lake(store), stored, current_data) else data

    key = object_key(asset, check, partition)
    if store.is_local or not store.create(key, data):  # most results are first ones, which need not be read before
        store.update(key, keep_if_current)
    return stored


def partitions(store: Store, asset: str, check: str) -> set[str]:
    """Return the partitions that a check has a stored result on; one listing."""
    listed = (parts(info.key) for info in store.list(f"{ROOT}/{asset}/{check}/"))
    return {partition for path, name, partition in listed if (path, name) == (asset, check)}


def _is_overtaken(lake: Lake, stored: StoredResult, current_data: bytes) -> bool:
    """Return whether the result in the store is on the current version of the partition and a new one is not."""
    try:
        other = _parse(current_data).version
    except _UNREADABLE:
        return False
    return other != stored.version and other == partition_version(lake, stored.asset, stored.partition)


def read(store: Store, asset: str, check: str, partition: str) -> StoredResult | None:
    """Return a stored result, or None if the check never ran on that partition.

    Raises DamagedFileError if it cannot be read; the message names the file.
    """
    key = object_key(asset, check, partition)
    try:
        data = store.read(key)
    except FileNotFoundError:
        return None
    try:
        return _parse(data)
    except _UNREADABLE as error:
        raise DamagedFileError(
            f"{store.uri(key)} is damaged ({type(error).__name__}): run the check {check} of {asset} {partition} again"
        ) from error


def _read_or_log(store: Store, asset: str, check: str, partition: str) -> StoredResult | None:
    try:
        return read(store, asset, check, partition)
    except DamagedFileError as error:
        _LOG.warning("%s", error)
        return None


def read_many(store: Store, asset: str, check: str, partitions: Iterable[str]) -> list[StoredResult]:
    """Return those results of a check that exist, in the order of `partitions`; read side by side.

    A damaged one is logged and left out.
    """
    results = side_by_side(store, lambda partition: _read_or_log(store, asset, check, partition), list(partitions))
    return [result for result in results if result is not None]


def newest(store: Store, since: str = "") -> list[StoredResult]:
    """Return the results on partitions not before `since` and on whole assets, sorted by asset, check, partition.

    A damaged one is logged and left out.
    """
    return read_keys(store, [info.key for info in _listed(store, since)])


def newest_remembered(store: Store, since: str, *, remember: bool) -> list[StoredResult]:
    """Return what :func:`newest` does, reading only results that changed since it was last asked to `remember`.

    Two hundred tables have tens of thousands of results a month, each an object.
    """
    listed = _listed(store, since)
    text_of = _remembered(store)
    texts = {info.key: text for info in listed if (text := text_of.get((info.key, info.etag))) is not None}
    changed = [info.key for info in listed if info.key not in texts]
    read_now = dict(zip(changed, side_by_side(store, partial(_text_or_none, store), changed), strict=True))
    texts |= {key: text for key, text in read_now.items() if text is not None}
    rows = [(info.key, info.etag, texts[info.key]) for info in listed if info.key in texts]
    if remember and (changed or len(rows) < len(text_of)):
        store.write(_REMEMBERED, to_parquet(pl.DataFrame(rows, schema=_REMEMBERED_SCHEMA, orient="row")))
    results = (_parsed_or_log(store, key, text) for key, _, text in rows)
    return [result for result in results if result is not None]


def _listed(store: Store, since: str) -> list[ObjectInfo]:
    return [
        info
        for info in store.list(ROOT)
        if info.key.endswith(".json") and info.key.rpartition("/")[2].removesuffix(".json") >= since
    ]


def _remembered(store: Store) -> dict[tuple[str, str], bytes]:
    """Return (key, ETag) to the text of results; nothing if they were never remembered, or cannot be read."""
    try:
        frame = from_parquet(store.read(_REMEMBERED))
    except FileNotFoundError:
        return {}
    except ValueError:
        _LOG.warning("%s is damaged and made anew: all results are read", store.uri(_REMEMBERED))
        return {}
    if frame.schema != _REMEMBERED_SCHEMA:
        return {}
    return {(key, etag): text for key, etag, text in frame.iter_rows()}


def _text_or_none(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except FileNotFoundError:
        return None


def _parsed_or_log(store: Store, key: str, text: bytes) -> StoredResult | None:
    try:
        return _parse(text)
    except _UNREADABLE as error:
        _LOG.warning("%s is damaged (%s): run its check again", store.uri(key), type(error).__name__)
        return None


def read_keys(store: Store, keys: Sequence[str]) -> list[StoredResult]:
    """Return the results of these object keys, in their order; read side by side."""
    results = side_by_side(store, lambda key: _read_or_log(store, *parts(key)), keys)
    return [result for result in results if result is not None]


def gate(lake: Lake, asset: str, partition: str, required_checks: Sequence[str]) -> list[str]:
    """Return the reasons why nothing may be sent from a partition; an empty list opens the gate.

    Every required check must have a result on the current version of the partition. It shuts the gate if it failed with
    severity ERROR (WARN never does, as in Dagster) or could not be evaluated; having had nothing to compare with (the
    first day of a table) does not.
    """
    version = partition_version(lake, asset, partition)
    if version is None:
        return [f"{asset} {partition} has not been built"]
    reasons = []
    for check in required_checks:
        try:
            result = read(lake.store, asset, check, partition)
        except DamagedFileError as error:
            reasons.append(str(error))
            continue
        if result is None:
            reasons.append(f"{asset} {partition}: {check} has not judged it")
        elif result.version != version:
            reasons.append(f"{asset} {partition}: {check} judged another version than stands now; run the check again")
        elif result.not_judged and not result.passed:
            reasons.append(f"{asset} {partition}: {check} could not be judged: {result.not_judged}")
        elif not result.passed and result.severity is Severity.ERROR:
            reasons.append(f"{asset} {partition}: {check} failed")
    return reasons


def hash_key(store: Store, *, keep: bool = True) -> bytes:
    """Return the secret that offenders are hashed with; created once per lake, so that hashes compare over time.

    With `keep=False` a new secret is not stored: a lake without one has no hashes yet that it could match.
    """
    try:
        secret = store.read(_HASH_KEY)
    except FileNotFoundError:
        if not keep:
            return os.urandom(_HASH_KEY_BYTES)
        store.create(_HASH_KEY, os.urandom(_HASH_KEY_BYTES))
        secret = store.read(_HASH_KEY)
    if len(secret) != _HASH_KEY_BYTES:
        raise DamagedFileError(f"{store.uri(_HASH_KEY)} is damaged: restore it, or delete it and hashes begin anew")
    return secret


def _parse(data: bytes) -> StoredResult:
    fields = json.loads(data)
    fields["severity"] = Severity(fields["severity"])
    fields["judged_at"] = datetime.fromisoformat(fields["judged_at"])
    return StoredResult(**fields)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
