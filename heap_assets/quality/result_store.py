"""Stored verdicts, `_verdicts/<asset>/<check>/<partition>.json`, and the gate that syncs ask before they send.

Dagster keeps check results for people. What a sync needs to know is kept here, beside the data: which version of a
partition was judged, and how. A blocking check alone only stops the steps of its own run (design.md, Sync).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from heap_assets.errors import DamagedFileError
from heap_assets.quality.results import Number, Severity, Verdict, is_hash
from heap_assets.storage import Lake, Store, state_keys

ROOT = state_keys.VERDICTS
WHOLE = "all"
_HASH_KEY = f"{ROOT}/.key"
_HASH_KEY_BYTES = 32
_READERS = 8
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict as it stands in the lake; `version` is that of the partition it judged, None if it was not built."""

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
    """Return where a verdict is stored."""
    return f"{ROOT}/{asset}/{check}/{partition}.json"


def parts(key: str) -> tuple[str, str, str]:
    """Return asset, check and partition of a stored verdict's key; empty texts for what is none."""
    path, _, name = key.removeprefix(f"{ROOT}/").rpartition("/")
    asset, _, check = path.rpartition("/")
    return (asset, check, name.removesuffix(".json")) if name.endswith(".json") else ("", "", "")


def partition_version(lake: Lake, asset: str, partition: str) -> str | None:
    """Return the version of a partition that stands now, None if it was never built."""
    info = lake.store.head(lake.key(asset, None if partition == WHOLE else partition))
    return info.etag if info else None


def record(
    store: Store,
    verdict: Verdict,
    *,
    asset: str,
    check: str,
    partition: str,
    version: str | None,
    severity: Severity,
    blocking: bool,
    rule: str = "",
    run_id: str | None = None,
) -> StoredVerdict:
    """Store a verdict in place of the one before it; offenders are stored hashed.

    One on a version that stands no more never takes the place of one on the version that stands: of two runs the one
    that judged the older partition may be the last to finish. It is returned all the same.
    """
    stored = StoredVerdict(
        asset=asset,
        check=check,
        partition=partition,
        passed=verdict.passed,
        severity=severity,
        blocking=blocking,
        version=version,
        judged_at=datetime.now(UTC),
        rule=rule,
        numbers=dict(verdict.numbers),
        notes=dict(verdict.notes),
        sample=verdict.sample(hash_key(store)) if verdict.offenders is not None else (),
        memory=dict(verdict.memory),
        run_id=run_id,
        not_judged=verdict.not_judged,
    )
    data = json.dumps(asdict(stored), default=_plain).encode()

    def unless_overtaken(found: bytes | None) -> bytes | None:
        return None if found is not None and _is_overtaken(Lake(store), stored, found) else data

    store.update(object_key(asset, check, partition), unless_overtaken)
    return stored


def _is_overtaken(lake: Lake, stored: StoredVerdict, found: bytes) -> bool:
    """Whether what is stored judged the partition that stands, and a new verdict another one."""
    try:
        other = _parse(found).version
    except _UNREADABLE:
        return False
    return other != stored.version and other == partition_version(lake, stored.asset, stored.partition)


def read(store: Store, asset: str, check: str, partition: str) -> StoredVerdict | None:
    """Return a stored verdict, or None if the check never judged that partition.

    Raises
    ------
    DamagedFileError
        If it cannot be read; the message names the file.
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


def _read_or_tell(store: Store, asset: str, check: str, partition: str) -> StoredVerdict | None:
    try:
        return read(store, asset, check, partition)
    except DamagedFileError as error:
        _LOG.warning("%s", error)
        return None


def read_many(store: Store, asset: str, check: str, partitions: Iterable[str]) -> list[StoredVerdict]:
    """Return those verdicts of a check that exist, in the order of `partitions`; read side by side.

    A damaged one is logged and left out.
    """
    wanted = list(partitions)
    if not wanted:
        return []
    with ThreadPoolExecutor(min(_READERS, len(wanted))) as readers:
        found = readers.map(lambda partition: _read_or_tell(store, asset, check, partition), wanted)
        return [verdict for verdict in found if verdict is not None]


def newest(store: Store, since: str = "") -> list[StoredVerdict]:
    """Return the verdicts on partitions not before `since` and on whole assets, sorted by asset, check, partition.

    A damaged one is logged and left out.
    """
    keys = [
        info.key
        for info in store.list(ROOT)
        if info.key.endswith(".json") and info.key.rpartition("/")[2].removesuffix(".json") >= since
    ]
    return read_keys(store, keys)


def read_keys(store: Store, keys: Sequence[str]) -> list[StoredVerdict]:
    """Return the verdicts of these object keys, in their order; read side by side."""
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(lambda key: _read_or_tell(store, *parts(key)), keys)
        return [verdict for verdict in found if verdict is not None]


def gate(lake: Lake, asset: str, partition: str, required_checks: Sequence[str]) -> list[str]:
    """Return the reasons for which nothing may be sent from a partition; an empty list opens the gate.

    A verdict counts only if it passed and judged exactly the version of the partition that stands now. A blocking
    check of severity WARN never shuts the gate (as in Dagster), but it must have judged. One that could not be judged
    shuts the gate; one that had nothing to compare with (the first day of a table) does not.
    """
    version = partition_version(lake, asset, partition)
    if version is None:
        return [f"{asset} {partition} has not been built"]
    reasons = []
    for check in required_checks:
        try:
            verdict = read(lake.store, asset, check, partition)
        except DamagedFileError as error:
            reasons.append(str(error))
            continue
        if verdict is None:
            reasons.append(f"{asset} {partition}: {check} has not judged it")
        elif verdict.version != version:
            reasons.append(f"{asset} {partition}: {check} judged another version than stands now; run the check again")
        elif verdict.not_judged and not verdict.passed:
            reasons.append(f"{asset} {partition}: {check} could not be judged: {verdict.not_judged}")
        elif not verdict.passed and verdict.severity is Severity.ERROR:
            reasons.append(f"{asset} {partition}: {check} failed")
    return reasons


def hash_key(store: Store, *, keep: bool = True) -> bytes:
    """Return the secret that offenders are hashed with; made once per lake, so that hashes compare over time.

    Parameters
    ----------
    keep
        Store what is made. Without, a lake that has none shows no hash yet, and none equals that of another call.
    """
    try:
        found = store.read(_HASH_KEY)
    except FileNotFoundError:
        if not keep:
            return os.urandom(_HASH_KEY_BYTES)
        store.create(_HASH_KEY, os.urandom(_HASH_KEY_BYTES))
        found = store.read(_HASH_KEY)
    if len(found) != _HASH_KEY_BYTES:
        raise DamagedFileError(f"{store.uri(_HASH_KEY)} is damaged: restore it, or delete it and hashes begin anew")
    return found


def _parse(data: bytes) -> StoredVerdict:
    fields = json.loads(data)
    fields["severity"] = Severity(fields["severity"])
    fields["judged_at"] = datetime.fromisoformat(fields["judged_at"])
    return StoredVerdict(**fields)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
