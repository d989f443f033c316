"""The rules of identity resolution: types and their limits, and how columns of tables map to them.

They are validated when they are made, so the engines can trust them: an impossible rule is an error that names the type
and the value (design.md, "Identity: the rules, exactly").
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import Final, Literal

import polars as pl

from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.identity.decisions import Decision, Pair
from heap_assets.tables import MIGRATIONS, USERS


class RulesError(SettingsError):
    """A rule is contradictory or refers to something unknown; the message names the type, the value and what to do."""


class LinksError(HeapAssetsError):
    """A table given to the engine is not a table of links."""


class MemoryLimitError(HeapAssetsError):
    """There is more to resolve than fits into the memory that this process may use."""


HEAP_USER_ID: Final = "heap_user_id"
HEAP_IDENTITY: Final = "heap_identity"
EMAIL: Final = "email"

NORMALISERS: Final = ("none", "strip", "lower", "email", "digits")
NORMALISE_BY_TYPE: Final = {EMAIL: "email", HEAP_IDENTITY: "none", HEAP_USER_ID: "none"}
PATTERN_BY_TYPE: Final = {
    EMAIL: r"""^[^\s@"<>(),;:\[\]]+@[^\s@"<>(),;:\[\]]+\.[^\s@"<>(),;:\[\].]+$""",
    HEAP_USER_ID: r"^[0-9]{1,19}$",
}
"""heap.md 1.9: a user_id is a decimal string 0…9007199254740991."""

MAX_TYPES: Final = 64

_NORMALISATION: Final = 2
"""Version of the normalisers: links stored by another version are extracted again."""
_EXCLUSION: Final = "values kept"
"""What is kept of the values that are nobody's by decision."""


@dataclass(frozen=True)
class IdentifierRule:
    """The rules of one identifier type.

    >>> rule = IdentifierRule("email", max_per_profile=3, blocked=("info@x.example",))
    >>> rule.type, rule.max_per_profile
    ('email', 3)

    Attributes
    ----------
    type
        Such as `email`.
    max_per_profile
        Merge limit: how many a profile may hold. None: any number.
    shared_above
        A value is shared if the stronger identifiers it is linked to fall into more groups than this. A mapping
        counts the groups of its types only, weaker ones too. None: the default, which is 1 for `heap_user_id`
        and for every type below `email`, and never for the others. "never": not even then.
    normalise
        `none`, `strip`, `lower`, `email` or `digits`, see :func:`heap_assets.identity.normalise.normalised`; None is
        the type's default (`strip` where there is none).
    pattern
        Regular expression that a normalised value must contain; None is the type's default.
    blocked, blocked_patterns
        Values and regular expressions that are no identifiers; the values are normalised like the data.
    """

    type: str
    max_per_profile: int | None = None
    shared_above: int | Mapping[str, int] | Literal["never"] | None = None
    normalise: str | None = None
    pattern: str | None = None
    blocked: tuple[str, ...] = ()
    blocked_patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.type or any(ord(letter) < 32 for letter in self.type):
            raise RulesError(f"identifier type {self.type!r} is empty or holds a control character: give it a name")
        if self.max_per_profile is not None and self.max_per_profile < 1:
            raise RulesError(
                f"identifier type {self.type}: max_per_profile is {self.max_per_profile}, expected at least 1 "
                "(leave it out for no limit; a type that nobody should have is not mapped at all)"
            )
        for name, groups in self._thresholds():
            if groups < 1:
                raise RulesError(
                    f"identifier type {self.type}: shared_above{name} is {groups}, expected at least 1 "
                    '("never" turns sharing off)'
                )
        if self.normaliser not in NORMALISERS:
            raise RulesError(
                f"identifier type {self.type}: normalise is {self.normalise!r}, expected one of "
                + ", ".join(NORMALISERS)
            )
        for expression in (*((self.pattern,) if self.pattern else ()), *self.blocked_patterns):
            _check_expression(self.type, expression)

    def _thresholds(self) -> list[tuple[str, int]]:
        if isinstance(self.shared_above, Mapping):
            return [(f".{name}", groups) for name, groups in self.shared_above.items()]
        return [("", self.shared_above)] if isinstance(self.shared_above, int) else []

    @property
    def normaliser(self) -> str:
        """The normaliser in force."""
        return self.normalise or NORMALISE_BY_TYPE.get(self.type, "strip")

    @property
    def value_pattern(self) -> str | None:
        """The pattern in force."""
        return self.pattern or PATTERN_BY_TYPE.get(self.type)


@dataclass(frozen=True)
class Rules:
    """All rules of one resolution.

    >>> rules = Rules(identifiers=(IdentifierRule("email", max_per_profile=2), IdentifierRule("device_id")))
    >>> rules.types
    ('email', 'device_id')

    Attributes
    ----------
    identifiers
        Strongest first.
    order
        `priority`: strong links first, then old ones; `first_seen`: old links first, so that clusters never split.
    suppressed
        (type, value) pairs of people who must not be known: they are no identifiers. Values are normalised like the
        data.
    decisions
        What people have settled; values come normalised. They stand above all other rules.
    """

    identifiers: tuple[IdentifierRule, ...]
    order: Literal["priority", "first_seen"] = "priority"
    suppressed: frozenset[tuple[str, str]] = field(default_factory=frozenset, repr=False)
    decisions: tuple[Decision, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.identifiers) <= MAX_TYPES:
            raise RulesError(f"{len(self.identifiers)} identifier types, expected 1 to {MAX_TYPES}")
        if doubled := sorted({t for t in self.types if self.types.count(t) > 1}):
            raise RulesError(f"identifier types stand twice: {', '.join(doubled)}; expected each once")
        if self.order not in ("priority", "first_seen"):
            raise RulesError(f"order is {self.order!r}, expected 'priority' or 'first_seen'")
        for rule in self.identifiers:
            if isinstance(rule.shared_above, Mapping):
                for name in rule.shared_above:
                    self.rank(name)
        for suppressed_type, _ in self.suppressed:
            self.rank(suppressed_type)
        for decision in self.decisions:
            for decided_type, _ in decision.identifiers:
                self.rank(decided_type)

    def on(self, day: date) -> Rules:
        """Return the rules for the graph of a day: without the decisions that had ended before it."""
        held = tuple(decision for decision in self.decisions if decision.holds_on(day))
        return self if len(held) == len(self.decisions) else replace(self, decisions=held)

    @cached_property
    def excluded(self) -> frozenset[Pair]:
        """Type and value of what identifies nobody, by decision."""
        return frozenset(pair for one in self.decisions if one.kind == "nobody" for pair in one.identifiers)

    @cached_property
    def apart(self) -> tuple[tuple[str, ...], ...]:
        """Each `apart` decision as its id, then type and value of its identifiers one after the other."""
        return tuple(
            (one.id, *(text for pair in one.identifiers for text in pair))
            for one in sorted(self.decisions, key=lambda one: one.id.encode())
            if one.kind == "apart"
        )

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Type names, strongest first."""
        return tuple(rule.type for rule in self.identifiers)

    def rank(self, identifier_type: str) -> int:
        """Return 0 for the strongest type; RulesError for one that the rules do not know."""
        try:
            return self.types.index(identifier_type)
        except ValueError:
            raise RulesError(
                f"unknown identifier type {identifier_type!r}; the rules know {', '.join(self.types)}"
            ) from None

    def __getitem__(self, identifier_type: str) -> IdentifierRule:
        return self.identifiers[self.rank(identifier_type)]

    @cached_property
    def limits(self) -> tuple[int | None, ...]:
        """`max_per_profile` by rank."""
        return tuple(rule.max_per_profile for rule in self.identifiers)

    @cached_property
    def sharing(self) -> tuple[dict[str | None, int], ...]:
        """By rank: stronger type (None: all of them together) to the number of groups above which a value is shared.

        An empty mapping: values of this type cannot be shared.
        """
        return tuple(self._sharing(rank, rule) for rank, rule in enumerate(self.identifiers))

    def _sharing(self, rank: int, rule: IdentifierRule) -> dict[str | None, int]:
        if rule.shared_above == "never":
            return {}
        if isinstance(rule.shared_above, Mapping):
            return {name: groups for name, groups in rule.shared_above.items()}  # noqa: C416  a dict of another type
        if isinstance(rule.shared_above, int):
            return {None: rule.shared_above}
        below_email = EMAIL in self.types and rank > self.types.index(EMAIL)
        return {None: 1} if below_email or rule.type == HEAP_USER_ID else {}

    @cached_property
    def digest(self) -> str:
        """Version of the rules and decisions: equal digests, equal results from equal links."""
        settled = sorted(
            [one.id, one.kind, *map(list, one.identifiers)] for one in self.decisions if one.joins_or_parts
        )
        return self._digest([self.rules_digest, settled]) if settled else self.rules_digest

    @cached_property
    def rules_digest(self) -> str:
        """Version of the rules without `same` and `apart`, whose changes engines fold into what they have."""
        return self._digest(
            {
                "types": [
                    [rule.type, rule.max_per_profile, sorted((k or "", v) for k, v in sharing.items())]
                    for rule, sharing in zip(self.identifiers, self.sharing, strict=True)
                ],
                "order": self.order,
                "values": self.value_digest,
            }
        )

    @cached_property
    def value_digest(self) -> str:
        """Version of the rules that decide about links: values, the types' order, and which types can be shared."""
        return self._digest(
            {
                "types": [
                    [
                        rule.type, bool(sharing), rule.normaliser, rule.value_pattern,
                        sorted(rule.blocked), sorted(rule.blocked_patterns),
                    ]
                    for rule, sharing in zip(self.identifiers, self.sharing, strict=True)
                ],
                "suppressed": sorted(map(list, self.suppressed)),
                **({"excluded": [_EXCLUSION, *sorted(map(list, self.excluded))]} if self.excluded else {}),
                "normalisation": _NORMALISATION,
            }
        )  # fmt: skip

    @staticmethod
    def _digest(content: object) -> str:
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ColumnMapping:
    """Columns of a table that hold one identifier: several make a composite one, null if a part is null.

    Columns may be paths: `address.email`, `items[].email`, `emails[]`.
    """

    type: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise RulesError(f"a mapping to {self.type} names no column")
        if len(self.columns) > 1 and (arrays := [c for c in self.columns if "[]" in c]):
            raise RulesError(f"{self.type}: a composite identifier cannot take array elements ({', '.join(arrays)})")


@dataclass(frozen=True)
class SourceTable:
    """How the columns of one table map to identifiers.

    Attributes
    ----------
    name
        Source of its links, such as `crm_contacts`.
    kind
        `event`: days add up; `snapshot`: a day holds the state of that day.
    time_column
        When a record was created (`time`, `created_at`, `joindate`; never `updated_at`). None: the partition's day.
    authoritative
        True: all its links were decided by Heap (user_migrations). Or the pairs of types whose links were:
        `((HEAP_USER_ID, HEAP_IDENTITY),)` for heap/users.
    """

    name: str
    kind: Literal["event", "snapshot"]
    mappings: tuple[ColumnMapping, ...]
    time_column: str | None = None
    authoritative: bool | tuple[tuple[str, str], ...] = False

    def __post_init__(self) -> None:
        if self.kind not in ("event", "snapshot"):
            raise RulesError(f"table {self.name}: kind is {self.kind!r}, expected 'event' or 'snapshot'")

    @property
    def authoritative_pairs(self) -> frozenset[frozenset[str]]:
        """Pairs of types whose links are authoritative; only meaningful if `authoritative` is not True."""
        return frozenset(map(frozenset, self.authoritative)) if isinstance(self.authoritative, tuple) else frozenset()

    @property
    def digest(self) -> str:
        """Version of the mapping."""
        content = [self.name, self.kind, [[m.type, m.columns] for m in self.mappings], self.time_column]
        decided = (
            self.authoritative if isinstance(self.authoritative, bool) else sorted(map(sorted, self.authoritative))
        )
        return hashlib.sha256(json.dumps([content, decided]).encode()).hexdigest()[:32]


def user_migrations_table(name: str = MIGRATIONS) -> SourceTable:
    """Return the mapping of Heap's user migrations: each row is one authoritative link (rule 3)."""
    columns = ("from_user_id", "to_user_id")
    mappings = tuple(ColumnMapping(HEAP_USER_ID, (column,)) for column in columns)
    return SourceTable(name, "snapshot", mappings, "time", authoritative=True)


def users_table(
    name: str = USERS,
    mappings: tuple[ColumnMapping, ...] = (
        ColumnMapping(HEAP_USER_ID, ("user_id",)),
        ColumnMapping(HEAP_IDENTITY, ("identity",)),
    ),
) -> SourceTable:
    """Return the mapping of Heap's users: the pair of user_id and identity is authoritative (rule 3)."""
    return SourceTable(name, "snapshot", mappings, "joindate", authoritative=((HEAP_USER_ID, HEAP_IDENTITY),))


def _check_expression(identifier_type: str, expression: str) -> None:
    try:
        re.compile(expression)
        pl.Series([""]).str.contains(expression)
    except (re.error, pl.exceptions.ComputeError) as error:
        raise RulesError(
            f"identifier type {identifier_type}: {expression!r} is no regular expression that Polars (Rust regex, "
            f"no look-around) can run: {str(error).splitlines()[0]}"
        ) from error
