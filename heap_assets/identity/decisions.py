"""Decisions of people about identifiers, which stand above all rules (design.md, "Identity").

`same`: the identifiers are one person's, an authoritative link. `apart`: no two of them are ever one person's, judged
before every link. `nobody`: the values identify no one, as if the settings blocked them. `confirmed`: somebody has
looked, and it is right as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import Final, Literal, get_args

from heap_assets.errors import SettingsError

DecisionKind = Literal["same", "apart", "nobody", "confirmed"]
DECISION_KINDS: Final[tuple[DecisionKind, ...]] = get_args(DecisionKind)

Pair = tuple[str, str]
"""Identifier type and value, normalised."""


class DecisionError(SettingsError):
    """A decision that cannot be read, or that contradicts another; the message names the row and the decisions.

    `decisions`: ids of those that contradict each other.
    """

    def __init__(self, message: str, decisions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.decisions = tuple(decisions)


@dataclass(frozen=True)
class Unusable:
    """A decision of a table that cannot be followed, and why, without its values."""

    id: str
    kind: str
    problem: str


@dataclass(frozen=True)
class Decision:
    """What a person has settled about identifiers.

    >>> from datetime import date
    >>> from heap_assets.identity import Decision
    >>> desk = Decision("apart", (("email", "ann@x.io"), ("email", "bob@x.io")), "a.b", date(2026, 11, 2), "one inbox")
    >>> desk.holds_on(date(2026, 11, 3)), desk.label
    (True, 'apart by decision 266c944a (a.b, 2026-11-02: one inbox)')

    Attributes
    ----------
    kind
        `same`, `apart`, `nobody` or `confirmed`.
    identifiers
        Type and normalised value; of `same` and `apart` two or more.
    author, decided, reason
        Who settled it, on which day, and why.
    until
        The last day on which it holds; None: for good. It holds for all days before, as the other rules do.
    id
        Names it in conflicts, changes and explanations. Unless given, eight digits of a hash of kind and identifiers.
    """

    kind: DecisionKind
    identifiers: tuple[Pair, ...]
    author: str = ""
    decided: date | None = None
    reason: str = ""
    until: date | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self._hash())

    def _hash(self) -> str:
        text = "\x1e".join((self.kind, *("\x1f".join(pair) for pair in sorted(self.identifiers))))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def holds_on(self, day: date) -> bool:
        """Return whether it holds for the graph of a day."""
        return self.until is None or day <= self.until

    @property
    def joins_or_parts(self) -> bool:
        """Whether it is `same` or `apart`: what a resolution knows of besides links and rules."""
        return self.kind in ("same", "apart")

    @property
    def label(self) -> str:
        """The decision in words, without its identifiers."""
        when = self.decided.isoformat() if self.decided else ""
        origin = ", ".join(part for part in (self.author, when) if part)
        about = ": ".join(part for part in (origin, self.reason) if part)
        return f"{self.kind} by decision {self.id}" + (f" ({about})" if about else "")


def apart_pairs(decisions: Sequence[Decision]) -> Iterator[tuple[str, Pair, Pair]]:
    """Yield the id of each `apart` decision with every two of its identifiers, by id (UTF-8 bytes)."""
    for decision in sorted(decisions, key=lambda one: one.id.encode()):
        if decision.kind == "apart":
            for a, b in combinations(decision.identifiers, 2):
                yield decision.id, a, b


def check_decisions(decisions: Sequence[Decision]) -> None:
    """Check that decisions which hold at the same time do not contradict each other.

    Raises
    ------
    DecisionError
        Two decisions of one id; `same` and `apart` about the same identifiers, also through a chain of `same`; or one
        of these about a value that is `nobody`. The message names the decisions, never a value.
    """
    by_id: dict[str, Decision] = {}
    for decision in decisions:
        if by_id.setdefault(decision.id, decision) is not decision:
            raise DecisionError(
                f"identity.decisions: decision {decision.id} stands twice; expected each id once", [decision.id]
            )
    excluded = {pair: d for d in decisions if d.kind == "nobody" for pair in d.identifiers}
    joined: dict[Pair, set[Pair]] = {}
    for decision in decisions:
        if decision.kind not in ("same", "apart"):
            continue
        for pair in decision.identifiers:
            if pair in excluded:
                raise DecisionError(
                    f"identity.decisions: decision {decision.id} ({decision.kind}) is about a {pair[0]} that is "
                    f"nobody's by decision {excluded[pair].id}; expected one of the two",
                    [decision.id, excluded[pair].id],
                )
        if decision.kind == "same":
            groups = {id(group): group for pair in decision.identifiers if (group := joined.get(pair)) is not None}
            largest = max(groups.values(), key=len, default=set())
            for group in groups.values():
                if group is not largest:
                    largest |= group
                    joined.update(dict.fromkeys(group, largest))
            largest.update(decision.identifiers)
            joined.update(dict.fromkeys(decision.identifiers, largest))
    for name, a, b in apart_pairs(decisions):
        if b in joined.get(a, ()):
            chain = sorted(d.id for d in decisions if d.kind == "same" and joined[a] & {*d.identifiers})
            raise DecisionError(
                f"identity.decisions: decision {name} keeps two identifiers apart that are the same by "
                f"{', '.join(chain[:5])}{' and more' if len(chain) > 5 else ''}; end or remove one of them",
                [*chain, name],
            )


def without_contradictions(
    settled: Sequence[Decision], added: Sequence[Decision], day: date
) -> tuple[tuple[Decision, ...], tuple[Unusable, ...]]:
    """Return decisions of the settings and those of a table that do not contradict them, nor each other, on a day.

    The settings win; within the table, `apart` and `nobody` win over `same`, and of two of one id none is used.
    Raises DecisionError if decisions of the settings contradict each other.
    """
    unusable: list[Unusable] = []
    own_ids = {decision.id for decision in settled}
    doubled = {one for one, count in Counter(decision.id for decision in added).items() if count > 1} | own_ids
    usable = [decision for decision in added if decision.id not in doubled]
    unusable += [Unusable(one.id, one.kind, "another decision has its id") for one in added if one.id in doubled]
    while True:
        try:
            check_decisions([one for one in (*settled, *usable) if one.holds_on(day)])
        except DecisionError as error:
            about = [one for one in usable if one.id in error.decisions]
            refused = [one for one in about if one.kind == "same"] or about
            if not refused:
                raise
            unusable += [
                Unusable(one.id, one.kind, f"it contradicts {', '.join({*error.decisions} - {one.id})}")
                for one in refused
            ]
            usable = [one for one in usable if one not in refused]
        else:
            return (*settled, *usable), tuple(unusable)
