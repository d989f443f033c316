"""Erasure at destinations: those that have the person are asked by their own calls, and polled until it is done."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from heap_assets.activation import Api, Deleted, Deletion, connector_of, deletion_of_heap
from heap_assets.errors import DeliveryError, HeapAssetsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID
from heap_assets.pipelines.erasure_ledgers import COMPLETE, FAILED, PENDING, REQUESTED, TO_ASK, Answers
from heap_assets.privacy import Pair
from heap_assets.project import Project

_log = logging.getLogger("heap_assets.privacy")

HEAP = "Heap"
"""Name of the answer of Heap itself, which has everybody, whatever is sent to it."""


def ask_destinations(
    project: Project, stored: Mapping[str, Mapping[str, Mapping[str, Any]]], identifiers: Mapping[str, Sequence[Pair]]
) -> dict[str, Answers]:
    """Return the answers, by request and destination, with those of destinations that still had to be asked.

    All requests are asked for at once, an account once for a person, however many syncs send to it. A destination that
    does not answer stays `failed`, and is asked again by the next run.
    """
    answers: dict[str, Answers] = {one: {name: dict(of) for name, of in stored[one].items()} for one in stored}
    _ask_heap(project, answers, identifiers)
    outcomes: dict[tuple[str, str], Deleted] = {}
    names = dict.fromkeys(name for of_request in answers.values() for name in of_request if name != HEAP)
    for name in names:
        waiting = {
            one: of[name]["keys"] for one, of in answers.items() if name in of and of[name]["state"] in (TO_ASK, FAILED)
        }
        if not waiting:
            continue
        deletion = _deletion(project, name)
        if isinstance(deletion, str):
            for one in waiting:
                answers[one][name] |= {"state": REQUESTED, "note": deletion}
            continue
        account = deletion.destination().target
        keys = sorted({key for of_request in waiting.values() for key in of_request if (account, key) not in outcomes})
        for start in range(0, len(keys), deletion.ids_per_call):
            some = keys[start : start + deletion.ids_per_call]
            outcome = _ask(project, name, deletion, some)
            outcomes |= {(account, key): outcome for key in some}
        for one, own in waiting.items():
            answers[one][name] |= _summed([outcomes[account, key] for key in own], len(own))
    for of_request in answers.values():
        for answer in of_request.values():
            if answer["state"] not in (TO_ASK, FAILED):
                answer.pop("keys", None)
                answer.pop("known_as", None)
    return answers


def poll_destinations(project: Project, stored: Mapping[str, Mapping[str, Any]]) -> Answers:
    """Return the answers of one request with those of destinations that were not done yet."""
    answers: Answers = {name: dict(answer) for name, answer in stored.items()}
    for name, answer in answers.items():
        if answer["state"] != PENDING:
            continue
        try:
            outcomes = [_polled(project, name, number) for number in answer["requests"]]
        except HeapAssetsError as error:
            answer["note"] = f"could not be asked how far it is ({type(error).__name__})"
            continue
        answer |= _summed(outcomes, answer["asked"])
        if answer["state"] == FAILED:  # the values are gone here: nobody can ask once more
            answer |= {"state": REQUESTED, "note": f"it failed there ({answer['note']}): ask its administrator"}
    return answers


def _polled(project: Project, name: str, number: str) -> Deleted:
    if name == HEAP:
        with contextlib.closing(deletion_of_heap(project)) as heap:
            return Deleted("complete" if heap.status(number) == "complete" else "pending", number)
    deletion = _deletion(project, name)
    if isinstance(deletion, str):
        return Deleted("requested", number, deletion)
    with _api(project, name, deletion) as api:
        return api.through(deletion.poll(number))


def _ask_heap(project: Project, answers: Mapping[str, Answers], identifiers: Mapping[str, Sequence[Pair]]) -> None:
    open_requests = [one for one, of in answers.items() if of.get(HEAP, {}).get("state", TO_ASK) in (TO_ASK, FAILED)]
    of_heap = (HEAP_IDENTITY, HEAP_USER_ID)
    own = {one: [pair for pair in identifiers[one] if pair[0] in of_heap] for one in open_requests}
    if project.settings.heap.deletion_key is None:
        for one in open_requests:
            note = "heap.deletion_key is not set: ask Heap by hand"
            answers[one][HEAP] = {"state": REQUESTED, "asked": len(own[one]), "note": note}
        return
    pairs = sorted({pair for of_request in own.values() for pair in of_request})
    answer: dict[str, Any] = {"state": COMPLETE, "requests": [], "note": "Heap knows none of the identifiers"}
    if pairs:
        identities = [value for kind, value in pairs if kind == HEAP_IDENTITY]
        users = [int(value) for kind, value in pairs if kind == HEAP_USER_ID and value.lstrip("-").isdigit()]
        try:
            with contextlib.closing(deletion_of_heap(project)) as heap:
                answer = {"state": PENDING, "requests": heap.delete(identities, users), "note": ""}
        except DeliveryError as error:
            _log.warning("Heap could not be asked to delete users: %s", error)
            answer = {"state": FAILED, "requests": [], "note": f"could not be asked ({type(error).__name__})"}
    for one in open_requests:
        nothing = {"state": COMPLETE, "requests": [], "note": "Heap knows none of the identifiers"}
        answers[one][HEAP] = {**(answer if own[one] else nothing), "asked": len(own[one])}


def _deletion(project: Project, name: str) -> Deletion | str:
    if name not in project.settings.sync:
        return "the settings do not name the sync any more: ask its administrator"
    return connector_of(project, name).deletion()


def _api(project: Project, name: str, deletion: Deletion) -> Api:
    share = project.settings.sync[name].limit_share
    return Api(deletion.destination(), allowed=project.allowed_hosts, share=share, store=project.lake.store)


def _ask(project: Project, name: str, deletion: Deletion, keys: Sequence[str]) -> Deleted:
    try:
        with _api(project, name, deletion) as api:
            return api.through(deletion.ask(keys))
    except HeapAssetsError as error:
        _log.warning("sync.%s: its destination could not be asked to delete people: %s", name, error)
        return Deleted("failed", note=f"could not be asked ({type(error).__name__})")


def _summed(outcomes: Sequence[Deleted], keys: int) -> dict[str, Any]:
    """Return one answer of several: the least that was reached."""
    reached = min(outcomes, key=lambda one: (FAILED, PENDING, REQUESTED, COMPLETE).index(one.state))
    numbers = sorted({one.id for one in outcomes if one.id})
    notes = sorted({one.note for one in outcomes if one.note})
    return {"state": reached.state, "asked": keys, "requests": numbers, "note": "; ".join(notes)}
