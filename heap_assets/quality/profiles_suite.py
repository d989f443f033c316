"""The checks of `profiles`: the duplicates that the product exists to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from heap_assets.identity import normalised
from heap_assets.profiles import SET_ASIDE
from heap_assets.quality import duplicates, result_store
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.identity_suite import CONFLICTS, GRAPH
from heap_assets.quality.measures import USERS
from heap_assets.quality.results import Severity, Verdict, nothing_to_judge_by
from heap_assets.quality.thresholds import Thresholds
from heap_assets.quality.uniqueness import unique_keys
from heap_assets.values import (
    PRIVATE,
)

_KEY = f"{PRIVATE}key"

PROFILES = "profiles"


@dataclass(frozen=True)
class WarehouseKeys:
    """What ties a warehouse table's rows to profiles.

    Attributes
    ----------
    identifiers
        Column to identifier type.
    normalisers
        Identifier type to how its values are normalised when people are resolved; without, they are trimmed.
    """

    asset: str
    key: str
    identifiers: Mapping[str, str]
    normalisers: Mapping[str, str] = field(default_factory=lambda: {"email": "email", "heap_identity": "none"})

    def identifier(self, column: str) -> pl.Expr:
        """Return the values of a column as the identifiers that they are in the graph."""
        text = pl.col(column).cast(pl.String)
        return normalised(text, self.normalisers.get(self.identifiers[column], "strip"))


def checks_for_profiles(
    *,
    unique_types: Sequence[str],
    warehouse_keys: Sequence[WarehouseKeys] = (),
    snapshots: Sequence[str] = (),
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `profiles`: the duplicates that the product exists for.

    Parameters
    ----------
    unique_types
        Identifier types of which one value is one person (`heap_identity`, `email`, `crm_id`).
    snapshots
        Snapshot assets that profiles are made of: their runs are others, and a collapsed one must not reach Heap.
    """
    t = thresholds or Thresholds()
    checks = [
        Check(
            PROFILES,
            "unique_keys",
            "No profile_id is there twice.",
            lambda s: unique_keys(s.rows(), ["profile_id"]),
            blocking=True,
        ),
        Check(
            PROFILES,
            "traits_made",
            "Every trait and audience could be made: the columns are there, and their types go together.",
            _traits_made,
            mend="correct the table or `profiles`; syncs that send what is missing wait until then, others do not.",
        ),
        Check(
            PROFILES,
            "one_profile_per_identity",
            "No Heap identity stands on two profiles.",
            lambda s: duplicates.one_profile_per_identity(s.rows()),
            blocking=True,
            mend="`heap-assets explain` shows the chains; correct the source or block the value.",
        ),
        Check(
            PROFILES,
            "one_identity_per_profile",
            f"At most {t.duplicate_profiles:.1%} of the people are on more than one Heap identity.",
            lambda s: duplicates.one_identity_per_profile(s.rows(), t.duplicate_profiles),
            blocking=True,
            mend="let the product call identify with one id per person; until then sync to `one` of them.",
        ),
        Check(
            PROFILES,
            "no_anonymous_twins",
            f"At most {t.anonymous_twins:.0%} of the identified people are in Heap a second time as an anonymous user.",
            lambda s: _twins(s, t.anonymous_twins),
            Severity.WARN,
            mend="sync/heap_identify joins them; it is irreversible and off by default.",
        ),
        Check(
            PROFILES,
            "unique_identifiers_not_shared",
            f"At most {t.shared_unique:.1%} of the values of type {', '.join(unique_types)} are several people's, "
            f"and none is {t.shared_people} people's.",
            lambda s: _shared_unique(s, tuple(unique_types), t),
            Severity.WARN,
            mend="a column is filled wrongly, or its type is not one person's: `claimed_by_one` names each value.",
        ),
    ]
    if snapshots:
        checks.append(_inputs_not_shrunk(tuple(snapshots)))
    return checks + [_one_profile_per_key(keys, t.split_keys) for keys in warehouse_keys]


def _inputs_not_shrunk(snapshots: Sequence[str]) -> Check:
    def judge(s: Subject) -> Verdict:
        told = {asset: result_store.read(s.lake.store, asset, "not_shrunk", s.partition) for asset in snapshots}
        collapsed = sorted(asset for asset, verdict in told.items() if verdict is not None and verdict.failed)
        return Verdict(
            passed=not collapsed,
            numbers={"snapshots": len(snapshots), "collapsed_snapshots": len(collapsed)},
            notes={"collapsed": ", ".join(collapsed)} if collapsed else {},
        )

    return Check(
        PROFILES,
        "inputs_not_shrunk",
        "No snapshot that the day's profiles are made of has lost too many of its rows.",
        judge,
        blocking=True,
        mend="see `not_shrunk` of the tables named; build them and this day again once they are whole.",
    )


def _one_profile_per_key(keys: WarehouseKeys, allowed: float) -> Check:
    def judge(s: Subject) -> Verdict:
        rows, graph = s.other(keys.asset), s.other(GRAPH)
        if rows is None or graph is None:
            return nothing_to_judge_by(f"{keys.asset} or {GRAPH} has not been built for this day")
        known = {name: kind for name, kind in keys.identifiers.items() if name in rows.collect_schema()}
        normal = rows.select(
            pl.col(keys.key).cast(pl.String).alias(_KEY),
            *(keys.identifier(name).alias(name) for name in known),
        )
        return duplicates.one_profile_per_key(normal, _KEY, known, graph, allowed)

    table = keys.asset.rpartition("/")[2]
    return Check(
        PROFILES,
        f"one_profile_per_{table}_key",
        f"At most {allowed:.1%} of the {keys.key}s of {keys.asset} stand on several profiles.",
        judge,
        mend="the row names different people: correct it, or look at the conflict with `explain`.",
    )


def _traits_made(s: Subject) -> Verdict:
    why = {str(trait): str(reason) for trait, reason in (s.notes().get(SET_ASIDE) or {}).items()}
    unreadable = s.notes().get("unreadable_times_in") or {}
    return Verdict(
        passed=not why,
        numbers={SET_ASIDE: len(why), "unreadable_times": sum(unreadable.values())},
        notes={
            **({"set_aside": "; ".join(why.values())} if why else {}),
            **({"unreadable_times_in": ", ".join(unreadable)} if unreadable else {}),
        },
    )


def _twins(s: Subject, allowed: float) -> Verdict:
    users = s.other(USERS)
    if users is None:
        return nothing_to_judge_by(f"{USERS} has not been built for this day")
    return duplicates.no_anonymous_twins(s.rows(), users, allowed)


def _shared_unique(s: Subject, unique_types: tuple[str, ...], t: Thresholds) -> Verdict:
    graph = s.other(GRAPH)
    if graph is None:
        return nothing_to_judge_by(f"{GRAPH} has not been built for this day")
    return duplicates.unique_identifiers_not_shared(
        graph, s.other(CONFLICTS), unique_types, t.shared_unique, t.shared_people
    )
