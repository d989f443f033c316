"""What an erasure did to each object, written before the object is replaced: a killed run goes on, with equal counts.

`_privacy/erasures/<batch>/<hash>.json`, one for each object and version of it. An entry counts whether or not its
object was replaced: if it was not, the next run does the same to the same version.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from heap_assets.storage import Store, state_keys

ROOT: Final = f"{state_keys.PRIVACY}/erasures"


@dataclass(frozen=True)
class Entry:
    """One object: its key and version, its place, and the rows and cells that went, by request.

    `replaced_by`: the object that takes its place, where that is not of the same key: the old one is deleted last.
    """

    key: str
    version: str
    place: str
    rows: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    replaced_by: str = ""

    def __bool__(self) -> bool:
        return bool(self.rows or self.cells)


class Journal:
    """The entries of one batch of requests."""

    def __init__(self, store: Store, batch: str) -> None:
        self.store = store
        self.root = f"{ROOT}/{batch}"
        self._read: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Write an entry; one of the same object and version is the same."""
        name = hashlib.sha256(f"{entry.key}\x1f{entry.version}".encode()).hexdigest()[:32]
        key = f"{self.root}/{name}.json"
        if self.store.create(key, json.dumps(vars(entry), sort_keys=True).encode()):
            self._read[key] = entry

    def entries(self) -> Sequence[Entry]:
        """Return all entries, by key and version."""
        keys = [info.key for info in self.store.list(self.root)]
        for key in keys:
            if key not in self._read:  # an entry never changes
                self._read[key] = Entry(**json.loads(self.store.read(key)))
        return sorted((self._read[key] for key in keys), key=lambda entry: (entry.key, entry.version))


@dataclass(frozen=True)
class Tally:
    """What went of one request in one place: objects that held something, rows and cells."""

    objects: int
    rows: int
    cells: int


def tallies(entries: Sequence[Entry]) -> dict[str, dict[str, Tally]]:
    """Return, for each request, its tally by place."""
    objects, rows, cells = (defaultdict[str, Counter[str]](Counter) for _ in range(3))
    for entry in entries:
        objects[entry.place].update({*entry.rows, *entry.cells})
        rows[entry.place].update(entry.rows)
        cells[entry.place].update(entry.cells)
    by_request: dict[str, dict[str, Tally]] = {}
    for place in sorted(objects):
        for request, count in objects[place].items():
            tally = Tally(count, rows[place][request], cells[place][request])
            by_request.setdefault(request, {})[place] = tally
    return by_request
