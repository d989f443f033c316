"""Erasure at syncs: the keys that destinations know people by, ledgers without them, and the requests to delete."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from heap_assets.activation import (
    Addressed,
    Connector,
    LeaseHeldError,
    SyncSpec,
    connector_of,
    forget_all,
    keys_of_people,
)
from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.privacy import Entry, Journal, Pair, People
from heap_assets.project import Project
from heap_assets.storage import state_keys
from heap_assets.tables import GRAPH

_log = logging.getLogger("heap_assets.privacy")

Answers = dict[str, dict[str, Any]]
"""By sync: `state`, `keys` (until they are asked), `asked` (how many), `requests` (ids there), `note`."""

TO_ASK, PENDING, COMPLETE, REQUESTED, NOTHING, FAILED = (
    "to_ask", "pending", "complete", "requested", "nothing_sent", "failed",
)  # fmt: skip
"""States of a destination. requested: it was asked and says no more, or people have to ask it. nothing_sent: it never
got the person."""


def keys_at_destinations(
    project: Project, people: People, stored: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Answers]:
    """Return, by request and sync, the keys that the destination got of the person.

    `stored`: what is known of each request already: it is kept, because a ledger that was emptied tells no more.
    """
    answers: dict[str, Answers] = {one: {name: dict(of) for name, of in stored[one].items()} for one in stored}
    for name in project.settings.sync:
        by_key = known_keys(project, connector_of(project, name), people)
        owners: dict[str, str] = {}
        for spec in connector_of(project, name).specs():
            ledger = keys_of_people(project.lake.store, spec, list(by_key))
            owners |= {key: by_key[person] for key, person in ledger.items() if person in by_key}
        for request, of_request in answers.items():
            if name not in of_request:
                keys = sorted(key for key, owner in owners.items() if owner == request)
                names = sorted({key for key, owner in by_key.items() if owner == request})
                if not keys and _has_events(project, connector_of(project, name), names):
                    keys = names  # its ledger names events: the destination knows their people by these
                state = TO_ASK if keys else NOTHING
                of_request[name] = {"state": state, "keys": keys, "known_as": names, "asked": len(keys)}
    return answers


def forget_in_ledgers(
    project: Project, people: People, keys: Mapping[str, Answers], journal: Journal, run_id: str
) -> dict[str, str]:
    """Drop people from all ledgers, also of syncs that the settings do not name any more.

    Returns what could not be done yet: a sync that is sending, with the reason.
    """
    unsettled: dict[str, str] = {}
    store = project.lake.store
    for name, specs in _ledgers(project):
        connector = connector_of(project, name) if name in project.settings.sync else None
        values = {value: request for (_, value), request in people.identifiers.items()}
        by_key = known_keys(project, connector, people) if connector else values
        for request, answers in keys.items():
            by_key |= dict.fromkeys(answers.get(name, {}).get("keys", ()), request)
        tables = connector.ledger_tables if connector else [""]
        for table, spec in zip(tables, specs, strict=True):
            names = keys_of_people(store, spec, list(by_key))
            counts: dict[str, int] = {}
            for person in names.values():
                if person in by_key:
                    counts[by_key[person]] = counts.get(by_key[person], 0) + 1
            events = connector.event_keys(list(by_key), table) if connector else []
            journal.add(Entry(f"{state_keys.SYNC}/{spec.name}", journal.root, "sync ledgers and logs", counts, {}))
            try:
                forget_all(store, spec, list(by_key), run_id, events)
            except LeaseHeldError as error:
                unsettled[f"{state_keys.SYNC}/{spec.name}"] = str(error)
    return unsettled


def _has_events(project: Project, connector: Connector[Any], people: Sequence[str]) -> bool:
    """Whether the ledger of a sync that sends rows once has one of the people."""
    for table, spec in zip(connector.ledger_tables, connector.specs(), strict=True):
        events = connector.event_keys(people, table)
        if events and keys_of_people(project.lake.store, spec, events):
            return True
    return False


def _ledgers(project: Project) -> Iterator[tuple[str, Sequence[SyncSpec]]]:
    """Yield each sync with its ledgers: those of the settings, and those that earlier settings left."""
    named = set()
    for name in project.settings.sync:
        specs = connector_of(project, name).specs()
        named |= {spec.name for spec in specs}
        yield name, specs
    folders = {info.key.split("/")[1] for info in project.lake.store.list(state_keys.SYNC) if info.key.count("/") > 1}
    for folder in sorted(folders - named):
        if "@" not in folder:
            yield folder, [SyncSpec(folder)]


def known_keys(project: Project, connector: Connector[Any], people: People) -> dict[str, str]:
    """Return what a destination may know people by, with the request of each: identifiers, and keys of their rows."""
    by_key: dict[str, str] = {}
    by_request: dict[str, list[Pair]] = {}
    for pair, request in people.identifiers.items():
        by_request.setdefault(request, []).append(pair)
    for request, pairs in sorted(by_request.items()):
        by_key |= dict.fromkeys(connector.keys_of(pairs), request)
    for key, profile in _keys_of_profiles(project, connector, people):
        by_key[key] = profile
    return by_key


def _keys_of_profiles(project: Project, connector: Connector[Any], people: People) -> Iterator[tuple[str, str]]:
    """Yield keys that rows of the newest day have for the people's profiles: such as the id of a CRM."""
    day = newest_day(project, connector.name)
    if day is None or project.settings.sync[connector.name].by_table:
        return
    graph_day = project.lake.newest_partition(GRAPH, day)
    profiles = people.profiles.get(str(graph_day), {})
    try:
        rows = connector.rows(day)
        frame = rows.rows if isinstance(rows, Addressed) else rows
        if not profiles or not {"key", "profile_id"} <= set(frame.collect_schema()):
            return
        owned = frame.filter(pl.col("profile_id").is_in(list(profiles))).select("key", "profile_id").drop_nulls()
        for key, profile in owned.collect().iter_rows():
            yield str(key), profiles[profile]
    except HeapAssetsError as error:
        _log.warning("sync/%s: keys are told by identifiers alone, its rows cannot be read: %s", connector.name, error)
