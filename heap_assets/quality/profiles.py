"""Profiles: one person, one profile, one Heap identity; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from heap_assets.identity import normalised
from heap_assets.profiles import SET_ASIDE
from heap_assets.quality import result_store
from heap_assets.quality.engine import Check, CheckContext, with_table
from heap_assets.quality.identity import claims
from heap_assets.quality.measures import unique_key_check, values_check
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity, nothing_to_compare, share_within
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import CONFLICTS, GRAPH, USERS, warehouse_table
from heap_assets.values import PRIVATE, key_text


def one_identity_per_profile(profiles: pl.LazyFrame, allowed: float) -> CheckResult:
    """Check that at most `allowed` of the profiles with a Heap identity have several.

    Heap counts such a person once per identity. `profiles` has profile_id String and heap_identities List(String).
    """
    identities = pl.col("heap_identities").list.len()
    offending = profiles.filter(identities > 1)
    totals, sample = pl.collect_all(
        [
            profiles.select(
                pl.len().alias("profiles"),
                (identities > 0).sum().alias("identified"),
                (identities > 1).sum().alias("duplicated"),
                identities.filter(identities > 1).sum().alias("identities"),
                identities.max().fill_null(0).alias("most"),
            ),
            offending.select("profile_id", "heap_identities", identities.alias("identities"))
            .sort(["identities", "profile_id"], descending=[True, False])
            .head(SAMPLE_ROWS),
        ]
    )
    total = totals.row(0, named=True)
    return share_within(
        total["duplicated"],
        total["identified"],
        allowed,
        {
            "profiles": total["profiles"],
            "identified_profiles": total["identified"],
            "profiles_on_several_identities": total["duplicated"],
            "surplus_identities": (total["identities"] or 0) - total["duplicated"],
            "most_identities": total["most"],
        },
        offenders=sample if total["duplicated"] else None,
        plain=("identities",),
    )


def one_profile_per_identity(profiles: pl.LazyFrame) -> CheckResult:
    """Check that no Heap identity is on two profiles: each would overwrite what the other sends.

    `profiles` has profile_id String and heap_identities List(String).
    """
    holders = (
        profiles.select("profile_id", pl.col("heap_identities").alias("heap_identity"))
        .explode("heap_identity")
        .drop_nulls("heap_identity")
        .group_by("heap_identity")
        .agg(pl.col("profile_id").n_unique().alias("profiles"), pl.col("profile_id").unique().sort().alias("ids"))
    )
    offending = holders.filter(pl.col("profiles") > 1)
    totals, sample = pl.collect_all(
        [
            holders.select(pl.len().alias("all"), (pl.col("profiles") > 1).sum().alias("shared")),
            offending.sort(["profiles", "heap_identity"], descending=[True, False]).head(SAMPLE_ROWS),
        ]
    )
    identities, shared = totals.row(0)
    return CheckResult(
        passed=not shared,
        numbers={"identities": identities, "identities_on_several_profiles": shared},
        offenders=sample if shared else None,
        plain=("profiles",),
    )


def no_anonymous_twins(profiles: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> CheckResult:
    """Check that at most `allowed` of the identified people are in Heap a second time as an anonymous user.

    `profiles` has profile_id String, heap_identities List(String) and heap_user_ids List(Int64); `users` is heap/users
    of the day: user_id Int64, identity String, migrated_to Int64.
    """
    anonymous = users.filter(pl.col("identity").is_null() & pl.col("migrated_to").is_null()).select("user_id")
    identified = profiles.filter(pl.col("heap_identities").list.len() > 0)
    twins = (
        identified.select("profile_id", pl.col("heap_user_ids").alias("user_id"))
        .explode("user_id")
        .join(anonymous, on="user_id", how="semi")
        .group_by("profile_id")
        .agg(pl.len().alias("anonymous_users"))
    )
    people, totals, sample = pl.collect_all(
        [
            identified.select(pl.len()),
            twins.select(pl.len(), pl.col("anonymous_users").sum()),
            twins.sort(["anonymous_users", "profile_id"], descending=[True, False]).head(SAMPLE_ROWS),
        ]
    )
    profiles_with, surplus = totals.row(0)
    return share_within(
        profiles_with,
        people.item(),
        allowed,
        {
            "identified_profiles": people.item(),
            "profiles_with_anonymous_twin": profiles_with,
            "anonymous_users": surplus or 0,
        },
        offenders=sample if profiles_with else None,
        plain=("anonymous_users",),
    )


def unique_identifiers_not_shared(
    graph: pl.LazyFrame, conflicts: pl.LazyFrame | None, unique_types: tuple[str, ...], allowed: float, most: int = 5
) -> CheckResult:
    """Check that values of `unique_types` (an email, a CRM id) belong to one person each.

    Those that do not are the shared values of the graph, and those that several profiles claim (`identity.claims`).

    Parameters
    ----------
    graph
        identity/graph: identifier_type, identifier, profile_id String; shared Boolean.
    conflicts
        identity/conflicts: type_a, value_a, type_b, value_b, profile_a, profile_b String; None if not built.
    allowed
        Share of the values that may belong to several people.
    most
        A single value that belongs to this many people fails the check.
    """
    unique = list(unique_types)
    values = graph.filter(pl.col("identifier_type").is_in(unique))
    several = [values.filter("shared").select("identifier_type", "identifier", pl.lit(2).alias("people"))]
    if conflicts is not None:
        several.append(claims(conflicts, unique))
    per_value = (
        pl.concat(several, how="vertical_relaxed").group_by("identifier_type", "identifier").agg(pl.col("people").max())
    )
    total, by_type, sample = pl.collect_all(
        [
            values.select(pl.len()),
            per_value.group_by("identifier_type").agg(pl.len().alias("values")).sort("identifier_type"),
            per_value.sort(["people", "identifier_type", "identifier"], descending=[True, False, False]).head(
                SAMPLE_ROWS
            ),
        ]
    )
    counts: dict[str, int] = dict(by_type.iter_rows())
    shared_values, people = sum(counts.values()), int(sample["people"].max() or 0)  # type: ignore[arg-type]
    share = shared_values / total.item() if total.item() else 0.0
    return CheckResult(
        passed=share <= allowed and people < most,
        numbers={
            "unique_values": total.item(),
            "shared_values": shared_values,
            "most_people": people,
            "share": share,
            "allowed_share": allowed,
            **{f"shared_{kind}": count for kind, count in counts.items()},
        },
        offenders=sample if shared_values else None,
        plain=("identifier_type", "people"),
    )


def one_profile_per_key(
    rows: pl.LazyFrame, key: str, identifiers: Mapping[str, str], graph: pl.LazyFrame, allowed: float
) -> CheckResult:
    """Check that at most `allowed` of a warehouse table's keys have identifiers of several profiles.

    A contact whose email is on one profile and whose CRM id is on another is two people, or one person twice: either
    way the row's traits would go to the wrong profile.

    `rows`: the warehouse table: `key` and the columns of `identifiers`, normalised as the graph's identifiers are.
    `identifiers`: column to identifier type. `graph`: identity/graph of the same day.
    """
    unshared = graph.filter(~pl.col("shared") & pl.col("profile_id").is_not_null()).select(
        "identifier_type", "identifier", "profile_id"
    )
    row_identifiers = pl.concat(
        [
            rows.select(
                pl.col(key).cast(pl.String).alias("key"),
                pl.lit(kind).alias("identifier_type"),
                pl.col(column).cast(pl.String).alias("identifier"),
            )
            for column, kind in identifiers.items()
        ]
    ).drop_nulls()
    per_key = (
        row_identifiers.join(unshared, on=["identifier_type", "identifier"])
        .group_by("key")
        .agg(pl.col("profile_id").n_unique().alias("profiles"), pl.col("profile_id").unique().sort().alias("ids"))
    )
    totals, sample = pl.collect_all(
        [
            per_key.select(pl.len(), (pl.col("profiles") > 1).sum()),
            per_key.filter(pl.col("profiles") > 1)
            .sort(["profiles", "key"], descending=[True, False])
            .head(SAMPLE_ROWS),
        ]
    )
    matched, split = totals.row(0)
    return share_within(
        split or 0,
        matched,
        allowed,
        {"keys_with_a_profile": matched, "keys_on_several_profiles": split or 0},
        offenders=sample if split else None,
        plain=("profiles",),
    )


_KEY = f"{PRIVATE}key"

PROFILES = "profiles"


@dataclass(frozen=True)
class WarehouseKeys:
    """The identifier columns of a warehouse table.

    `identifiers` maps a column to its identifier type, `normalisers` a type to how resolution normalises its values
    (trimmed by default).
    """

    asset: str
    key: str
    identifiers: Mapping[str, str]
    normalisers: Mapping[str, str] = field(default_factory=lambda: {"email": "email", "heap_identity": "none"})

    def identifier(self, column: str, dtype: pl.DataType) -> pl.Expr:
        """Return the values of a column, normalised as they are in the graph."""
        text = key_text(pl.col(column), dtype)
        return normalised(text, self.normalisers.get(self.identifiers[column], "strip"))


def checks_for_profiles(
    *,
    unique_types: Sequence[str],
    warehouse_keys: Sequence[WarehouseKeys] = (),
    snapshots: Sequence[str] = (),
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `profiles`: the duplicates that the product exists for.

    `unique_types`: identifier types of which one value is one person (`heap_identity`, `email`, `crm_id`). `snapshots`:
    snapshot assets that profiles are made of. Other runs build them, so their `not_shrunk` is looked up here.
    """
    t = thresholds or Thresholds()
    checks = [
        unique_key_check(
            PROFILES, "profile_id", "materialize the partition again; if it stays, something else writes to the lake."
        ),
        Check(
            PROFILES,
            "traits_made",
            "Every trait and audience could be made: the columns are there, and their types go together.",
            _traits_made,
            remedy="correct the table or `profiles`; syncs that send what is missing wait until then, others do not.",
        ),
        values_check(
            PROFILES,
            "such traits are null (docs/values.md): give their sources one type that holds every value.",
        ),
        Check(
            PROFILES,
            "one_profile_per_identity",
            "No Heap identity stands on two profiles.",
            lambda s: one_profile_per_identity(s.rows()),
            blocking=True,
            remedy="`heap-assets explain` shows the chains; correct the source or block the value.",
        ),
        Check(
            PROFILES,
            "one_identity_per_profile",
            f"At most {t.duplicate_profiles:.1%} of the people are on more than one Heap identity.",
            lambda s: one_identity_per_profile(s.rows(), t.duplicate_profiles),
            blocking=True,
            remedy="let the product call identify with one id per person; until then sync to `one` of them.",
        ),
        Check(
            PROFILES,
            "no_anonymous_twins",
            f"At most {t.anonymous_twins:.0%} of the identified people are in Heap a second time as an anonymous user.",
            with_table(USERS, lambda s, users: no_anonymous_twins(s.rows(), users, t.anonymous_twins)),
            Severity.WARN,
            remedy="sync/heap_identify joins them; it is irreversible and off by default.",
        ),
        Check(
            PROFILES,
            "unique_identifiers_not_shared",
            f"At most {t.shared_unique:.1%} of the values of type {', '.join(unique_types)} are several people's, "
            f"and none is {t.shared_people} people's.",
            with_table(
                GRAPH,
                lambda s, graph: unique_identifiers_not_shared(
                    graph, s.other(CONFLICTS), tuple(unique_types), t.shared_unique, t.shared_people
                ),
            ),
            Severity.WARN,
            remedy="a column is filled wrongly, or its type is not one person's: `claimed_by_one` names each value.",
        ),
    ]
    if snapshots:
        checks.append(_inputs_not_shrunk(tuple(snapshots)))
    return checks + [_one_profile_per_key(keys, t.split_keys) for keys in warehouse_keys]


def _inputs_not_shrunk(snapshots: Sequence[str]) -> Check:
    def evaluate(s: CheckContext) -> CheckResult:
        results = {asset: result_store.read(s.lake.store, asset, "not_shrunk", s.partition) for asset in snapshots}
        collapsed = sorted(asset for asset, result in results.items() if result is not None and result.failed)
        return CheckResult(
            passed=not collapsed,
            numbers={"snapshots": len(snapshots), "collapsed_snapshots": len(collapsed)},
            notes={"collapsed": ", ".join(collapsed)} if collapsed else {},
        )

    return Check(
        PROFILES,
        "inputs_not_shrunk",
        "No snapshot that the day's profiles are made of has lost too many of its rows.",
        evaluate,
        blocking=True,
        remedy="see `not_shrunk` of the tables named; build them and this day again once they are whole.",
    )


def name_of_key_check(asset: str) -> str:
    """Return the name of the check that the keys of a table of a source each stand on one profile."""
    return f"one_profile_per_{warehouse_table(asset).replace('/', '__')}_key"


def _one_profile_per_key(keys: WarehouseKeys, allowed: float) -> Check:
    def evaluate(s: CheckContext) -> CheckResult:
        rows, graph = s.other(keys.asset), s.other(GRAPH)
        if rows is None or graph is None:
            return nothing_to_compare(f"{keys.asset} or {GRAPH} has not been built for this day")
        schema = rows.collect_schema()
        identifiers = {name: kind for name, kind in keys.identifiers.items() if name in schema}
        normal = rows.select(
            pl.col(keys.key).cast(pl.String).alias(_KEY),
            *(keys.identifier(name, schema[name]).alias(name) for name in identifiers),
        )
        return one_profile_per_key(normal, _KEY, identifiers, graph, allowed)

    return Check(
        PROFILES,
        name_of_key_check(keys.asset),
        f"At most {allowed:.1%} of the {keys.key}s of {keys.asset} stand on several profiles.",
        evaluate,
        remedy="the row names different people: correct it, or look at the conflict with `explain`.",
    )


def _traits_made(s: CheckContext) -> CheckResult:
    why = {str(trait): str(reason) for trait, reason in (s.notes().get(SET_ASIDE) or {}).items()}
    unreadable = s.notes().get("unreadable_times_in") or {}
    return CheckResult(
        passed=not why,
        numbers={SET_ASIDE: len(why), "unreadable_times": sum(unreadable.values())},
        notes={
            **({"set_aside": "; ".join(why.values())} if why else {}),
            **({"unreadable_times_in": ", ".join(unreadable)} if unreadable else {}),
        },
    )
