"""The checks of `identity/*`: rules, judges, severities and thresholds of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from heap_assets.quality import baselines, identity
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.measures import LOOK_BACK_DAYS, MIGRATIONS, remembered
from heap_assets.quality.results import Severity, Verdict, nothing_to_judge_by
from heap_assets.quality.thresholds import Thresholds

GRAPH = "identity/graph"
CONFLICTS = "identity/conflicts"
SHARED = "identity/shared"
CHANGES = "identity/changes"
_FEW = 5


def checks_for_identity(
    *,
    limits: Mapping[str, int],
    heap_types: Sequence[str],
    other_types: Sequence[str],
    unique_types: Sequence[str],
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `identity/*`.

    Parameters
    ----------
    limits
        Identifier type to `max_per_profile`.
    heap_types, other_types
        Identifier types that Heap knows people by, and those of the company's own systems.
    unique_types
        Identifier types of which one value is one person's (`heap_identity`, `email`, `crm_id`).
    """
    t = thresholds or Thresholds()
    most = t.claimed_values
    return [
        Check(
            GRAPH,
            "not_over_merged",
            f"No profile holds more than {t.profile_identifiers} identifiers.",
            lambda s: identity.not_over_merged(s.rows(), t.profile_identifiers),
            Severity.WARN,
            mend="`heap-assets explain` on two of its identifiers shows the link that joined them; block or limit it.",
        ),
        Check(
            GRAPH,
            "migrations_followed",
            "Both users of every migration are one person: who was anonymous before is there once.",
            _migrations_followed,
            mend="resolve the day again; if it stays, `heap-assets explain` on the two users shows what is between.",
        ),
        Check(
            GRAPH,
            "few_at_limit",
            f"At most {t.at_limit:.0%} of the profiles are at a merge limit.",
            lambda s: identity.few_at_limit(s.rows(), limits, t.at_limit, _FEW),
            Severity.WARN,
            mend="`heap-assets what-if` shows what another limit would merge.",
        ),
        Check(
            GRAPH,
            "matched_as_before",
            f"The share of people that Heap knows too has not fallen by {t.matched_fall * 100:g} percentage points.",
            lambda s: baselines.not_fallen(
                identity.match_shares(s.rows(), heap_types, other_types), remembered(s, "shares"), t.matched_fall
            ),
            Severity.WARN,
            mend="look at the identifier columns of the tables named, and at identify calls in the last release.",
        ),
        Check(
            CONFLICTS,
            "conflicts_as_usual",
            f"Refused links have not risen by more than {t.conflicts_rise:.0%} over the last week.",
            lambda s: _not_risen(s, "conflicts", t.conflicts_rise, t.rise_min),
            Severity.WARN,
        ),
        Check(
            CONFLICTS,
            "claimed_by_one",
            f"{f'At most {most:,} identifiers are' if most else 'No identifier is'} claimed by several profiles "
            f"(of type {', '.join(unique_types)}).",
            lambda s: identity.claimed_by_one(s.rows(), unique_types, most),
            Severity.WARN,
            mend="block the value under `identity.identifiers[...].blocked` if it is nobody's own, or correct the "
            "records: `heap-assets rows identity/conflicts claimed_by_one` names them.",
        ),
        Check(
            SHARED,
            "shared_as_usual",
            f"Values that belong to several people have not risen by more than {t.shared_rise:.0%} over the last week.",
            lambda s: _not_risen(s, "shared_values", t.shared_rise, t.rise_min),
            Severity.WARN,
        ),
        Check(
            CHANGES,
            "ids_stable",
            f"At most {t.changed_ids:.0%} of the profiles changed their id since the day before.",
            lambda s: identity.ids_stable(s.rows(), _profile_count(s), t.changed_ids),
            Severity.WARN,
        ),
    ]


def _migrations_followed(s: Subject) -> Verdict:
    migrations = s.other(MIGRATIONS)
    if migrations is None:
        return nothing_to_judge_by(f"{MIGRATIONS} has not been built for this day")
    return identity.migrations_followed(s.rows(), migrations)


def _not_risen(s: Subject, name: str, allowed: float, least: int) -> Verdict:
    count = s.rows().select(pl.len()).collect().item()
    earlier = [v.numbers[name] for v in s.earlier(LOOK_BACK_DAYS) if name in v.numbers]
    return baselines.not_risen(name, count, earlier, allowed, least)


def _profile_count(s: Subject) -> int:
    graph = s.other(GRAPH)
    return 0 if graph is None else graph.select(pl.col("profile_id").drop_nulls().n_unique()).collect().item()
