"""Erasure of people: requests, what they would erase, the run that erases, and the proof.

In this order, so that nothing comes back: tombstones; the keys that destinations know; ledgers, which from then on
refuse them; every object of the lake; published tables; destinations; a last scan; the proof. A run that is killed
anywhere is gone on with by the next one, with the same proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from heap_assets import clock
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.erasure_destinations import ask_destinations, poll_destinations
from heap_assets.pipelines.erasure_elsewhere import blank_files, publish_again
from heap_assets.pipelines.erasure_ledgers import (
    FAILED,
    PENDING,
    TO_ASK,
    forget_in_ledgers,
    keys_at_destinations,
)
from heap_assets.pipelines.erasure_proofs import stored_proofs, write_proofs
from heap_assets.pipelines.erasure_walk import LakeWalk, Walk
from heap_assets.privacy import (
    Journal,
    Named,
    Pair,
    People,
    Plan,
    Request,
    Requests,
    State,
    begun,
    bury,
    closed,
    lift,
    new_id,
    people_of,
    planned,
    plans,
    proof_of,
    requests_of_pairs,
    tallies,
    unregistered,
)
from heap_assets.project import Project, with_pseudonyms
from heap_assets.storage import state_keys

_MOST_WALKS = 5


@dataclass(frozen=True)
class Erasure:
    """What a run did: requests that are done or still wait, rows and cells that went, and what is unsettled.

    `unsettled`: objects that could not be changed yet, and syncs that were sending; the next run tries them again.
    """

    requests: Mapping[str, str]
    rows: int = 0
    cells: int = 0
    objects: int = 0
    unsettled: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[str]:
        """Requests that are not complete."""
        return [request for request, state in self.requests.items() if state != State.COMPLETE]


def request_erasure(
    project: Project,
    person: Iterable[Pair],
    *,
    also: Iterable[Pair] = (),
    author: str = "",
    reason: str = "",
    source: str = "cli",
    request_id: str = "",
) -> Request:
    """Take in a request and look up what it would erase; nothing is erased before it is confirmed.

    `person`: identifiers of one person (type, value). `also`: values to erase although they would be left to others.
    `request_id`: of a request that may come again: a repeat is the same request.

    Raises SettingsError for an identifier type that is not declared.
    """
    named = Named(with_pseudonyms(project, person), with_pseudonyms(project, also))
    return take_in(project, [Wish(named, author, reason, source, request_id)])[0]


@dataclass(frozen=True)
class Wish:
    """A request that comes in; `request_id`: of one that may come again, drawn for others."""

    named: Named
    author: str = ""
    reason: str = ""
    source: str = "cli"
    request_id: str = ""


def take_in(project: Project, wishes: Iterable[Wish]) -> list[Request]:
    """Take in requests, and look up what all of them would erase at once; a repeat is the request that is there.

    Raises SettingsError if one names no identifier.
    """
    request_log = Requests(project.lake.store)
    ids, new = [], []
    for wish in wishes:
        if not wish.named.person:
            raise SettingsError("a request names no identifier: expected type:value, such as email:…")
        request_id, reason = wish.request_id or new_id(str(clock.today())), " ".join(wish.reason.split())
        request = Request(request_id, clock.now(), wish.named, wish.source, wish.author, reason)
        ids.append(request_id)
        if request_log.add(request):
            new.append(request_id)
    looked_up = {one.id: one for one in look_up(project, new)}
    return [looked_up.get(one) or request_log.get(one) for one in ids]


def look_up(project: Project, request_ids: Sequence[str]) -> list[Request]:
    """Look up what requests would erase by the graphs of all days, and store it."""
    if not request_ids:
        return []
    request_log = Requests(project.lake.store)
    named = {one: request.named for one, request in request_log.some(request_ids).items()}
    looked_up = plans(project.lake, named, clock.today())
    return list(request_log.update_all({one: partial(_planned_by, project, looked_up[one]) for one in named}).values())


def _planned_by(project: Project, plan: Plan, request: Request) -> Request:
    if request.state not in (State.REQUESTED, State.CONFIRMED):
        return request
    changed = planned(request, plan)
    if project.settings.privacy.erasure.confirm == "ambiguous" and not plan.left and request.state is State.REQUESTED:
        return replace(changed, state=State.CONFIRMED, confirmed_by="settings", confirmed_at=clock.now())
    return changed


def confirm(project: Project, request_id: str, author: str, also: Iterable[Pair] = ()) -> Request:
    """Confirm a request, and name values to erase that would be left; the next run erases.

    Raises MissingInputError if there is no such request, or it is past that.
    """
    return confirm_all(project, [request_id], author, also)[0]


def confirm_all(project: Project, request_ids: Sequence[str], author: str, also: Iterable[Pair] = ()) -> list[Request]:
    """Confirm several requests as :func:`confirm` does one."""
    request_log = Requests(project.lake.store)
    more = with_pseudonyms(project, also)

    def confirmed(request: Request) -> Request:
        if request.state is not State.REQUESTED:
            raise MissingInputError(f"request {request.id} is {request.state}: only a new one is confirmed")
        named = replace(request.named, also=tuple(sorted({*request.named.also, *more})))
        return replace(request, named=named, state=State.CONFIRMED, confirmed_by=author, confirmed_at=clock.now())

    request_log.update_all(dict.fromkeys(request_ids, confirmed))
    return look_up(project, request_ids)  # once more: the graph may have moved since they were requested


def cancel(project: Project, request_id: str) -> Request:
    """Withdraw a request that no run has begun; the values that it named are removed from it.

    Raises MissingInputError if there is none, or a run has begun.
    """

    def cancelled(request: Request) -> Request:
        if request.state not in (State.REQUESTED, State.CONFIRMED):
            raise MissingInputError(f"request {request.id} is {request.state}: it cannot be withdrawn any more")
        return closed(request, State.CANCELLED)

    return Requests(project.lake.store).update(request_id, cancelled)


def lift_tombstones(project: Project, request_id: str, reason: str) -> int:
    """Let a person in again who has consented anew; returns how many tombstones went.

    Raises MissingInputError if the request is not complete.
    """

    def lifted(request: Request) -> Request:
        if request.state not in (State.COMPLETE, State.WAITING, State.LIFTED):
            raise MissingInputError(f"request {request.id} is {request.state}: it has left no tombstones")
        return replace(request, state=State.LIFTED, lifted_reason=reason)

    Requests(project.lake.store).update(request_id, lifted)
    return lift(project.lake.store, [request_id])


def run(project: Project, run_id: str, only: Collection[str] = ()) -> Erasure:
    """Erase the people of all confirmed requests, or of some; go on with what a killed run has begun.

    Raises DamagedFileError if an object of the lake cannot be read: nobody can tell what is in it.
    """
    request_log = Requests(project.lake.store)
    chosen = [one for one in request_log.all() if one.is_open and (not only or one.id in only)]
    batches: dict[str, list[str]] = {}
    for one in chosen:
        if one.state is State.ERASING:
            batches.setdefault(one.batch, []).append(one.id)
    confirmed = [one.id for one in chosen if one.state is State.CONFIRMED]
    if confirmed:
        digest = hashlib.sha256("\x1f".join(confirmed).encode()).hexdigest()[:16]
        batches.setdefault(f"eb-{digest}", []).extend(confirmed)
    _forget_ended(project, request_log, batches)
    results = [_erase(project, batch, sorted(ids), run_id) for batch, ids in sorted(batches.items())]
    states = _poll(project, [one for one in chosen if one.state is State.WAITING])
    states |= {one: state for result in results for one, state in result.requests.items()}
    unsettled = {key: why for result in results for key, why in result.unsettled.items()}
    return Erasure(
        states,
        sum(result.rows for result in results),
        sum(result.cells for result in results),
        sum(result.objects for result in results),
        unsettled,
    )


def _forget_ended(project: Project, request_log: Requests, batches: Collection[str]) -> None:
    """Delete what runs left that were killed when all of their requests had got their end."""
    erasing: set[str] | None = None
    for batch, of_batch in request_log.batches().items():
        if batch not in batches:
            if erasing is None:
                erasing = {one.id for one in request_log.all() if one.state is State.ERASING}
            if not erasing & set(of_batch):
                project.lake.store.delete(_profiles_key(batch))
                request_log.forget_begun(batch, of_batch)


def _poll(project: Project, waiting: Sequence[Request]) -> dict[str, str]:
    """Ask destinations how far they are with requests; returns the state of each."""
    request_log, store = Requests(project.lake.store), project.lake.store
    answers = {one.id: poll_destinations(project, one.destinations) for one in waiting}
    answered = {one.id: _answered(answers[one.id], one) for one in waiting if answers[one.id] != one.destinations}
    by_batch: dict[str, list[dict[str, Any]]] = {}
    for one, written in stored_proofs(store, answered.values()).items():
        places, scan, unreached = written["places"], written["scan"], written["not_reached"]
        by_batch.setdefault(answered[one].batch, []).append(proof_of(answered[one], places, scan, unreached))
    for batch, proofs in by_batch.items():
        write_proofs(store, batch, proofs)  # first: a run that is killed in between polls again
    request_log.update_all({one: partial(_answered, answers[one]) for one in answered})
    return {one.id: str(answered.get(one.id, one).state) for one in waiting}


def _erase(project: Project, batch: str, request_ids: Sequence[str], run_id: str) -> Erasure:
    store, request_log = project.lake.store, Requests(project.lake.store)
    journal = Journal(store, batch)
    stored = request_log.some(request_ids)  # once more: one may have been withdrawn since
    current = {one: of for one, of in stored.items() if of.state in (State.CONFIRMED, State.ERASING)}
    identifiers = {one: request.plan.identifiers if request.plan else () for one, request in current.items()}
    hashes = bury(store, identifiers, clock.now(), project.settings.privacy.key_bytes)
    blank_files(project, hashes)
    people = _people(project, batch, identifiers)
    keys = keys_at_destinations(project, people, {one: request.destinations for one, request in current.items()})
    current = {
        one: begun(request, batch, sorted(hashes[pair] for pair in identifiers[one]), keys[one])
        for one, request in current.items()
    }
    request_log.begin(batch, current)
    unsettled = forget_in_ledgers(project, people, keys, journal, run_id)
    walk = _walked(LakeWalk(project, people, journal))
    unsettled |= walk.unsettled
    unreached = publish_again(project, journal)
    entries = journal.entries()
    tally, scan = tallies(entries), _scan(project, walk)
    if not unsettled:
        answers = ask_destinations(project, keys, identifiers)
        current = {one: _answered(answers[one], request) for one, request in current.items()}
    places = {one: {place: asdict(of) for place, of in tally.get(one, {}).items()} for one in current}
    # before requests are closed: a run that is killed in between goes on with them, and writes the same
    write_proofs(store, batch, [proof_of(request, places[one], scan, unreached) for one, request in current.items()])
    if not unsettled:
        request_log.write_ended(current.values())
        if not any(request.state is State.ERASING for request in current.values()):
            store.delete(_profiles_key(batch))
        request_log.forget_begun(batch, current)
    return Erasure(
        {one: str(request.state) for one, request in current.items()},
        sum(sum(entry.rows.values()) for entry in entries),
        sum(sum(entry.cells.values()) for entry in entries),
        len({entry.key for entry in entries if entry}),
        unsettled,
    )


def _answered(answers: Mapping[str, Mapping[str, Any]], request: Request) -> Request:
    """Return a request with what destinations answered; closed, without its values, once all could be asked."""
    states = {answer["state"] for answer in answers.values()}
    answered = replace(request, destinations=answers)
    if states & {TO_ASK, FAILED} and request.state is State.ERASING:
        return answered
    return closed(answered, State.WAITING if PENDING in states else State.COMPLETE)


def _people(project: Project, batch: str, identifiers: Mapping[str, Sequence[Pair]]) -> People:
    """Return the people of a batch, with profiles as before its first run: a graph without them tells none."""
    store, key = project.lake.store, _profiles_key(batch)
    if not store.exists(key):
        profiles = people_of(project.lake, identifiers).profiles
        store.create(key, json.dumps(profiles, separators=(",", ":")).encode())
    return People(requests_of_pairs(identifiers), json.loads(store.read(key)))


def _profiles_key(batch: str) -> str:
    return f"{state_keys.PRIVACY}/erasures/{batch}.json"


def _walked(lake_walk: LakeWalk) -> Walk:
    """Walk until nothing changes: what others wrote meanwhile, and what the walk itself wrote, is read again."""
    walk = lake_walk.run()
    for _ in range(_MOST_WALKS):
        rewritten = walk.rewritten
        walk = lake_walk.run(walk.clean)
        if not walk.rewritten and not rewritten:
            break
    lake_walk.finish()
    return walk


def _scan(project: Project, walk: Walk) -> dict[str, int]:
    keys = {info.key for info in project.lake.store.list()}
    read = {key for key in walk.clean if key in keys}
    return {"objects": len(read), "hits": len(walk.unsettled), "unregistered": len(list(unregistered(keys)))}


def proof(project: Project, request_id: str) -> dict[str, Any]:
    """Return the proof of a request as it was written last.

    Raises MissingInputError if no run has erased it yet.
    """
    request = Requests(project.lake.store).get(request_id)
    return stored_proofs(project.lake.store, [request])[request_id]
