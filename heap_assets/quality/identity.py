"""Identity resolution: over-merged profiles, conflicts and shared values, against the day before; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from heap_assets.quality import baselines
from heap_assets.quality.engine import Check, CheckContext, with_table
from heap_assets.quality.measures import LOOK_BACK_DAYS, remembered
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity, share_within
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import CHANGES, CONFLICTS, GRAPH, MIGRATIONS, SHARED
from heap_assets.values import PRIVATE

SIZE_EDGES = (1, 2, 3, 5, 10, 20, 50, 100)
_DISTURBING = ("merged", "split", "moved", "renamed", "removed")


def not_over_merged(graph: pl.LazyFrame, most: int) -> CheckResult:
    """Check that no profile of identity/graph has more than `most` identifiers: it must be several people."""
    sizes = graph.drop_nulls("profile_id").group_by("profile_id").agg(pl.len().alias("identifiers"))
    totals, buckets, sample = pl.collect_all(
        [
            sizes.select(
                pl.len().alias("profiles"),
                pl.col("identifiers").max().fill_null(0).alias("largest"),
                pl.col("identifiers").mean().fill_null(0.0).alias("mean"),
                (pl.col("identifiers") > most).sum().alias("over"),
            ),
            sizes.group_by(_bucket("identifiers")).agg(pl.len().alias("profiles")).sort("least"),
            sizes.sort(["identifiers", "profile_id"], descending=[True, False]).head(SAMPLE_ROWS),
        ]
    )
    total = totals.row(0, named=True)
    return CheckResult(
        passed=total["over"] == 0,
        numbers={
            "profiles": total["profiles"],
            "largest_profile": total["largest"],
            "mean_identifiers": round(total["mean"], 3),
            "profiles_too_large": total["over"],
            "allowed_identifiers": most,
        },
        offenders=sample.filter(pl.col("identifiers") > most) if total["over"] else None,
        plain=("identifiers",),
        memory={"sizes": {str(least): count for least, count in buckets.iter_rows()}},
    )


def migrations_followed(graph: pl.LazyFrame, migrations: pl.LazyFrame) -> CheckResult:
    """Check that the two users of every migration (heap/user_migrations) are one person, as Heap has decided.

    A user that is no identifier (blocked, suppressed) is on no profile and is left out.
    """
    users = graph.filter(pl.col("identifier_type") == "heap_user_id").drop_nulls("profile_id")
    profile = users.select("identifier", "profile_id")
    ends = migrations.select(
        pl.col("from_user_id").cast(pl.String).alias("from"), pl.col("to_user_id").cast(pl.String).alias("to")
    ).drop_nulls()
    joined = ends.join(profile, left_on="from", right_on="identifier").join(
        profile, left_on="to", right_on="identifier", suffix="_to"
    )
    apart = joined.filter(pl.col("profile_id") != pl.col("profile_id_to"))
    compared, offenders = pl.collect_all([joined.select(pl.len()), apart.select("from", "to")])
    return CheckResult(
        passed=offenders.is_empty(),
        numbers={"migrations": compared.item(), "migrations_apart": offenders.height},
        offenders=offenders.sort("from", "to").head(SAMPLE_ROWS) if offenders.height else None,
    )


def few_at_limit(graph: pl.LazyFrame, limits: Mapping[str, int], allowed: float, least: int = 1) -> CheckResult:
    """Check that at most `allowed` of the profiles are as large as a merge limit lets them be.

    `limits` maps identifier type to `max_per_profile`; limits of one are left out, since every profile is at them.
    Fewer than `least` profiles at a limit are ignored.
    """
    compared = {kind: limit for kind, limit in limits.items() if limit > 1}
    if not compared:
        return CheckResult(passed=True, notes={"said": "no limit above one is set"})
    limited = graph.drop_nulls("profile_id").filter(pl.col("identifier_type").is_in(list(compared)))
    limit = pl.col("identifier_type").replace_strict(compared, return_dtype=pl.Int64)
    counts = limited.group_by("profile_id", "identifier_type").agg(pl.len().alias("held"))
    per_type = counts.group_by("identifier_type").agg(
        pl.len().alias("profiles"), (pl.col("held") >= limit.first()).sum().alias("at_limit")
    )
    counts_by_type = {kind: (profiles, at) for kind, profiles, at in per_type.collect().iter_rows()}
    shares = {kind: at / profiles if profiles else 0.0 for kind, (profiles, at) in counts_by_type.items()}
    over = sorted(kind for kind, share in shares.items() if share > allowed and counts_by_type[kind][1] >= least)
    return CheckResult(
        passed=not over,
        numbers={
            "allowed_share": allowed,
            **{f"at_limit_{kind}": at for kind, (_, at) in sorted(counts_by_type.items())},
            **{f"share_at_limit_{kind}": round(share, 4) for kind, share in sorted(shares.items())},
        },
        notes={"types": ", ".join(over)} if over else {},
    )


def claims(conflicts: pl.LazyFrame, types: Sequence[str]) -> pl.LazyFrame:
    """Return identifier_type, identifier, people: the number of profiles that claim the identifier, two or more.

    Those are the profile that has it, and the profiles whose records name it too.

    Resolution gives such a value to one profile and refuses its links to the others. Each refused link counts for that
    of its ends which has more of them, the weaker one in doubt: a mailbox that five contacts name has four refused
    links and each contact one; a CRM id that two customers carry has two, each customer one.

    `conflicts`: identity/conflicts: type_a, value_a, type_b, value_b, profile_a, profile_b String. `types`: types of
    which one value is one person's; other identifiers are left out.

    """
    apart = conflicts.filter(pl.col("type_b").is_in(list(types)) & (pl.col("profile_a") != pl.col("profile_b")))
    partners = [
        pl.col(f"profile_{other}").n_unique().over(f"type_{end}", f"value_{end}").alias(f"{PRIVATE}{end}")
        for end, other in ("ab", "ba")
    ]
    by_a = pl.col("type_a").is_in(list(types)) & (pl.col(f"{PRIVATE}a") > pl.col(f"{PRIVATE}b"))
    return (
        apart.with_columns(partners)
        .select(
            pl.when(by_a).then("type_a").otherwise("type_b").alias("identifier_type"),
            pl.when(by_a).then("value_a").otherwise("value_b").alias("identifier"),
            pl.when(by_a).then("profile_b").otherwise("profile_a").alias(f"{PRIVATE}by"),
        )
        .group_by("identifier_type", "identifier")
        .agg((pl.col(f"{PRIVATE}by").n_unique() + 1).alias("people"))
    )


def claimed_by_one(conflicts: pl.LazyFrame, types: Sequence[str], allowed: int) -> CheckResult:
    """Check that at most `allowed` identifiers are claimed by several profiles; see `claims`."""
    claimed = claims(conflicts, types)
    by_type, worst = pl.collect_all(
        [
            claimed.group_by("identifier_type").agg(pl.len().alias("values")).sort("identifier_type"),
            claimed.sort(["people", "identifier_type", "identifier"], descending=[True, False, False]).head(
                SAMPLE_ROWS
            ),
        ]
    )
    counts: dict[str, int] = dict(by_type.iter_rows())
    total = sum(counts.values())
    return CheckResult(
        passed=total <= allowed,
        numbers={
            "claimed_values": total,
            "allowed_values": allowed,
            "most_people": worst["people"][0] if total else 0,
            **{f"claimed_{kind}": count for kind, count in counts.items()},
        },
        offenders=worst if total else None,
        plain=("identifier_type", "people"),
    )


def match_shares(graph: pl.LazyFrame, heap_types: Sequence[str], other_types: Sequence[str]) -> dict[str, float]:
    """Return, for each type of the company's own systems, the share of its profiles that are also known to Heap."""
    per_profile = graph.drop_nulls("profile_id").group_by("profile_id").agg(pl.col("identifier_type").unique())
    kinds = pl.col("identifier_type")
    in_heap = pl.any_horizontal(*(kinds.list.contains(kind) for kind in heap_types))
    figures = []
    for kind in other_types:
        has = kinds.list.contains(kind)
        figures += [has.sum().alias(f"all {kind}"), (has & in_heap).sum().alias(f"both {kind}")]
    if not figures:
        return {}
    counts = per_profile.select(figures).collect().row(0, named=True)
    return {
        f"matched_{kind}": (counts[f"both {kind}"] or 0) / counts[f"all {kind}"]
        for kind in other_types
        if counts[f"all {kind}"]
    }


def ids_stable(changes: pl.LazyFrame, profiles: int, allowed: float) -> CheckResult:
    """Check that at most `allowed` of the day's `profiles` got another id since the day before (identity/changes)."""
    counts = dict(changes.group_by("kind").agg(pl.len()).sort("kind").collect().iter_rows())
    disturbed = sum(count for kind, count in counts.items() if kind in _DISTURBING)
    return share_within(disturbed, profiles, allowed, {"profiles": profiles, **counts})


def _bucket(column: str) -> pl.Expr:
    """Return the lower edge of the size class a count falls into."""
    edge = pl.lit(0)
    for least in SIZE_EDGES:
        edge = pl.when(pl.col(column) >= least).then(pl.lit(least)).otherwise(edge)
    return edge.alias("least")


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

    `limits`: identifier type to `max_per_profile`. `heap_types` and `other_types`: identifier types that Heap knows
    people by, and those of the company's own systems. `unique_types`: identifier types of which one value is one
    person's (`heap_identity`, `email`, `crm_id`).
    """
    t = thresholds or Thresholds()
    most = t.claimed_values
    return [
        Check(
            GRAPH,
            "not_over_merged",
            f"No profile holds more than {t.profile_identifiers} identifiers.",
            lambda s: not_over_merged(s.rows(), t.profile_identifiers),
            Severity.WARN,
            remedy="`heap-assets explain` on two of its identifiers shows the link that joined them; "
            "block or limit it.",
        ),
        Check(
            GRAPH,
            "migrations_followed",
            "Both users of every migration are one person: who was anonymous before is there once.",
            with_table(MIGRATIONS, lambda s, migrations: migrations_followed(s.rows(), migrations)),
            remedy="resolve the day again; if it stays, `heap-assets explain` on the two users shows what is between.",
        ),
        Check(
            GRAPH,
            "few_at_limit",
            f"At most {t.at_limit:.0%} of the profiles are at a merge limit.",
            lambda s: few_at_limit(s.rows(), limits, t.at_limit, _FEW),
            Severity.WARN,
            remedy="`heap-assets what-if` shows what another limit would merge.",
        ),
        Check(
            GRAPH,
            "matched_as_before",
            f"The share of people that Heap knows too has not fallen by {t.matched_fall * 100:g} percentage points.",
            lambda s: baselines.not_fallen(
                match_shares(s.rows(), heap_types, other_types), remembered(s, "shares"), t.matched_fall
            ),
            Severity.WARN,
            remedy="look at the identifier columns of the tables named, and at identify calls in the last release.",
        ),
        Check(
            CONFLICTS,
            "conflicts_as_usual",
            f"Refused links have not risen by more than {t.conflicts_rise:.0%} over the last week.",
            lambda s: _not_risen(s, "conflicts", t.conflicts_rise, t.rise_min),
            Severity.WARN,
            remedy='`heap-assets sql "select sources, count(*) from latest.identity_conflicts group by all"` shows '
            "which tables disagree: correct the one whose identifiers changed.",
        ),
        Check(
            CONFLICTS,
            "claimed_by_one",
            f"{f'At most {most:,} identifiers are' if most else 'No identifier is'} claimed by several profiles "
            f"(of type {', '.join(unique_types)}).",
            lambda s: claimed_by_one(s.rows(), unique_types, most),
            Severity.WARN,
            remedy="block the value under `identity.identifiers[...].blocked` if it is nobody's own, or correct the "
            "records: `heap-assets rows identity/conflicts claimed_by_one` names them.",
        ),
        Check(
            SHARED,
            "shared_as_usual",
            f"Values that belong to several people have not risen by more than {t.shared_rise:.0%} over the last week.",
            lambda s: _not_risen(s, "shared_values", t.shared_rise, t.rise_min),
            Severity.WARN,
            remedy='`heap-assets sql "select * from latest.identity_shared"` lists the values: block those of nobody, '
            "and look for a column that is filled from another one.",
        ),
        Check(
            CHANGES,
            "ids_stable",
            f"At most {t.changed_ids:.0%} of the profiles changed their id since the day before.",
            lambda s: ids_stable(s.rows(), _profile_count(s), t.changed_ids),
            Severity.WARN,
            remedy="look for a system that renumbered its records: a profile is named by its strongest identifier. "
            '`heap-assets sql "select * from latest.identity_changes"` has the old and the new id of each.',
        ),
    ]


def _not_risen(s: CheckContext, name: str, allowed: float, least: int) -> CheckResult:
    count = s.rows().select(pl.len()).collect().item()
    earlier = [v.numbers[name] for v in s.earlier(LOOK_BACK_DAYS) if name in v.numbers]
    return baselines.not_risen(name, count, earlier, allowed, least)


def _profile_count(s: CheckContext) -> int:
    graph = s.other(GRAPH)
    return 0 if graph is None else graph.select(pl.col("profile_id").drop_nulls().n_unique()).collect().item()
