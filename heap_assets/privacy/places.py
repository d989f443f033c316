"""The register of places: everything that the platform keeps, what of a person is in it, and how it is erased.

Erasure, export and retention walk it. What lies in the lake and is not registered is treated as a table that may name
anybody, and is told in the proof; a test holds that nothing of ours is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from heap_assets import tables
from heap_assets.storage import state_keys

How = Literal["rows", "landed", "parts", "ledger", "cache", "text", "requests", "spool", "nothing"]
"""rows: rows and cells of Parquet files. landed: files together with the record that lists them. parts: files together
with the partition that names them. ledger: by the engine of syncs. cache: deleted, and made again. text: values in the
bytes are blanked. requests: by erasure itself. spool: left until it is in a table. nothing: holds no value of a person
by construction."""


@dataclass(frozen=True)
class Place:
    """One kind of object in the lake: `holds` says in words what of people is in it."""

    name: str
    pattern: str
    how: How
    holds: str

    def has(self, key: str) -> bool:
        """Return whether an object is of this kind."""
        return re.fullmatch(self.pattern, key) is not None


def _state(prefix: str, below: str = ".*") -> str:
    return f"{re.escape(prefix)}/{below}"


def _table(path: str) -> str:
    return rf"{re.escape(path)}(?:/.*)?\.parquet|{re.escape(path)}/.*"


PLACES: Final = (
    Place("landed rows set aside", _state(state_keys.LANDING, r".*/rejected-\d+[^/]*\.parquet"), "rows",
          "rows that could not be read, as JSON"),
    Place("index of landed keys", _state(state_keys.LANDING, r".*/_seen/.*"), "cache", "ids of events and users"),
    Place("moved events", _state(state_keys.LANDING, r".*/moved[^/]*\.parquet"), "nothing", "ids of events"),
    Place("landing records", _state(state_keys.LANDING, r"_dumps/.*"), "text", "file names, counts, reasons"),
    Place("landed rows", _state(state_keys.LANDING), "landed", "rows of Heap's dumps"),
    Place("exports read", _state(state_keys.EXPORTS, r".*\.parquet"), "rows", "fingerprints, and rows kept for a fold"),
    Place("export log", _state(state_keys.EXPORTS), "text", "fingerprints of days"),
    Place("messages being taken in", _state(state_keys.INBOX, r"spool(?:/.*)?"), "spool", "messages as they came"),
    Place("messages", _state(state_keys.INBOX, r".*\.parquet"), "rows", "messages as they came"),
    Place("inbox records", _state(state_keys.INBOX), "text", "counts, times"),
    Place("parts of tables", _state(state_keys.PARTS, r".*\.parquet"), "parts", "rows of partitions of several files"),
    Place("marks of finished parts", _state(state_keys.PARTS), "nothing", "names and checksums of files"),
    Place("values of hashed decisions", _state(state_keys.DECISIONS), "text", "identifiers that decisions name"),
    Place("names of the environment", _state(state_keys.ENVIRONMENT), "nothing", "names of app, prefix and schemas"),
    Place("catalogue", _state(state_keys.CATALOGUE), "text", "names of tables and columns"),
    Place("warehouse reads", _state(state_keys.OBSERVED), "text", "times, counts and checksums"),
    Place("links by input", _state(state_keys.IDENTITY, r"(?:extracted|standing)/.*\.parquet"), "rows",
          "identifiers and their links"),
    Place("identity state", _state(state_keys.IDENTITY), "cache", "all identifiers"),
    Place("check results", _state(state_keys.CHECK_RESULTS), "text", "counts and keyed hashes"),
    Place("sync ledgers and logs", _state(state_keys.SYNC), "ledger", "keys of destinations; keyed hashes of values"),
    Place("quotas", _state(state_keys.QUOTAS), "nothing", "counts"),
    Place("first runs", _state(state_keys.FIRST_RUNS), "text", "days"),
    Place("publishing log", _state(state_keys.PUBLISHED), "text", "versions of days"),
    Place("files being loaded", _state(state_keys.LOADING), "cache", "rows of published tables"),
    Place("runs of other tools", _state(state_keys.REVERSE_ETL), "text", "ids of runs"),
    Place("reports sent", _state(state_keys.REPORTS), "nothing", "days and versions"),
    Place("alerts", _state(state_keys.ALERTS), "text", "redacted messages"),
    Place("status", _state(state_keys.STATUS), "text", "counts"),
    Place("indexes of values", _state(state_keys.PRIVACY, r"index/.*"), "nothing", "keyed hashes, cut short"),
    Place("requests, proofs, tombstones, consent", _state(state_keys.PRIVACY), "requests",
          "identifiers until a request is done; keyed hashes"),
    Place("reports of dumps", _table(tables.DUMPS), "rows", "counts and reasons"),
    Place("Heap's tables", rf"{tables.HEAP}.*\.parquet", "rows", "rows of users and of their events"),
    Place("identity", rf"{tables.IDENTITY}.*\.parquet", "rows", "identifiers, links, profile ids"),
    Place("profiles", _table(tables.PROFILES), "rows", "golden records"),
    Place("audiences", _table(tables.AUDIENCES), "rows", "profile ids"),
    Place("unified events", _table(tables.UNIFIED_EVENTS), "rows", "events by person, with their properties"),
    Place("audit", _table(tables.AUDIT), "rows", "counts; names of tables"),
    Place("reports", rf"{tables.REPORTS}.*\.parquet", "rows", "results of statements"),
    Place("own tables", r"(?:accounts|inbox|signals|analytics|models|live|privacy|heap_connect|status|sync|publish"
          r"|reverse_etl)/.*\.parquet", "rows", "rows by profile id or identifier"),
)  # fmt: skip
"""In the order in which they are tried: the first that has an object is its place."""

SOURCE_TABLE: Final = Place("tables of sources", r".*", "rows", "rows of warehouses and other systems")
UNREGISTERED: Final = Place("not registered", r".*", "rows", "unknown")
_LOCK: Final = re.compile(r"\.[^/]*")

ELSEWHERE: Final = {
    "Dagster's storage": "runs, events, metadata and logs hold counts and keyed hashes only; nothing is to be erased",
    "dumps of Heap and tables of sources": "the buckets and warehouses that are read belong to others: ask them, or a "
    "tombstone leaves the person out whenever they are read again",
    "backups and versions of objects": "copies that the lake's own commands do not see; their retention ends them",
    "files and mails of reports": "results of `reports:` that were written or mailed are copies of others: ask them",
    "reports that were sent": "status pages and alerts hold counts and keyed hashes only",
}
"""Places outside the lake, and what a proof says of them."""


@lru_cache(maxsize=1 << 16)  # an erasure lists the lake several times
def place_of(key: str) -> Place:
    """Return the place of an object of the lake; :data:`UNREGISTERED` if there is none."""
    for place in PLACES:
        if place.has(key):
            return place
    if key.endswith(".parquet") and tables.is_warehouse_table(key.rpartition("/")[0]):
        return SOURCE_TABLE
    return UNREGISTERED


def unregistered(keys: Iterable[str]) -> Iterator[str]:
    """Yield the keys of objects that the register does not know; locks and other hidden files are none."""
    for key in keys:
        if place_of(key) is UNREGISTERED and not _LOCK.fullmatch(key):
            yield key
