"""Duplicate profiles: the checks the product exists for. One person, one profile, one Heap identity."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from heap_assets.quality.identity import claims
from heap_assets.quality.results import SAMPLE_ROWS, Verdict


def one_identity_per_profile(profiles: pl.LazyFrame, allowed: float) -> Verdict:
    """Judge that hardly anybody is on several Heap identities.

    Heap counts such a person several times, and what is pushed lands on each of them or on one third of them.

    Parameters
    ----------
    profiles
        profile_id String, heap_identities List(String).
    allowed
        Share of the profiles with an identity that may have several.
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
    found = totals.row(0, named=True)
    share = found["duplicated"] / found["identified"] if found["identified"] else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={
            "profiles": found["profiles"],
            "identified_profiles": found["identified"],
            "profiles_on_several_identities": found["duplicated"],
            "surplus_identities": (found["identities"] or 0) - found["duplicated"],
            "most_identities": found["most"],
            "share": share,
            "allowed_share": allowed,
        },
        offenders=sample if found["duplicated"] else None,
        plain=("identities",),
    )


def one_profile_per_identity(profiles: pl.LazyFrame) -> Verdict:
    """Judge that no Heap identity stands on two profiles: each would overwrite what the other sends.

    Parameters
    ----------
    profiles
        profile_id String, heap_identities List(String).
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
    return Verdict(
        passed=not shared,
        numbers={"identities": identities, "identities_on_several_profiles": shared},
        offenders=sample if shared else None,
        plain=("profiles",),
    )


def no_anonymous_twins(profiles: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> Verdict:
    """Judge that few identified people are in Heap a second time as an anonymous user.

    Parameters
    ----------
    profiles
        profile_id String, heap_identities List(String), heap_user_ids List(Int64).
    users
        heap/users of the day: user_id Int64, identity String, migrated_to Int64.
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
    share = profiles_with / people.item() if people.item() else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={
            "identified_profiles": people.item(),
            "profiles_with_anonymous_twin": profiles_with,
            "anonymous_users": surplus or 0,
            "share": share,
            "allowed_share": allowed,
        },
        offenders=sample if profiles_with else None,
        plain=("anonymous_users",),
    )


def unique_identifiers_not_shared(
    graph: pl.LazyFrame, conflicts: pl.LazyFrame | None, unique_types: tuple[str, ...], allowed: float, most: int = 5
) -> Verdict:
    """Judge that identifiers which should be one person's are not several people's.

    They are the values found shared, and those that several profiles claim (`identity.claims`).

    Parameters
    ----------
    graph
        identity/graph: identifier_type, identifier, profile_id String; shared Boolean.
    conflicts
        identity/conflicts: type_a, value_a, type_b, value_b, profile_a, profile_b String; None if not built.
    unique_types
        Types such as an email or a CRM id; not devices or cookies, which people share.
    allowed
        Share of the values of unique types that may be several people's.
    most
        From so many people on, one value is enough.
    """
    unique = list(unique_types)
    values = graph.filter(pl.col("identifier_type").is_in(unique))
    named = [values.filter("shared").select("identifier_type", "identifier", pl.lit(2).alias("people"))]
    if conflicts is not None:
        named.append(claims(conflicts, unique))
    per_value = (
        pl.concat(named, how="vertical_relaxed").group_by("identifier_type", "identifier").agg(pl.col("people").max())
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
    found, people = sum(counts.values()), int(sample["people"].max() or 0)  # type: ignore[arg-type]
    share = found / total.item() if total.item() else 0.0
    return Verdict(
        passed=share <= allowed and people < most,
        numbers={
            "unique_values": total.item(),
            "shared_values": found,
            "most_people": people,
            "share": share,
            "allowed_share": allowed,
            **{f"shared_{kind}": count for kind, count in counts.items()},
        },
        offenders=sample if found else None,
        plain=("identifier_type", "people"),
    )


def one_profile_per_key(
    rows: pl.LazyFrame, key: str, identifiers: Mapping[str, str], graph: pl.LazyFrame, allowed: float
) -> Verdict:
    """Judge that hardly any row of a warehouse table speaks of several profiles.

    A contact whose email is on one profile and whose CRM id on another is two people or one duplicated: either way
    the row's traits would go to the wrong one.

    Parameters
    ----------
    rows
        The warehouse table: `key` and the columns of `identifiers`, normalised as the graph's identifiers are.
    identifiers
        Column to identifier type.
    graph
        identity/graph of the same day.
    allowed
        Share of the keys with a profile that may stand on several.
    """
    known = graph.filter(~pl.col("shared") & pl.col("profile_id").is_not_null()).select(
        "identifier_type", "identifier", "profile_id"
    )
    named = pl.concat(
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
        named.join(known, on=["identifier_type", "identifier"])
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
    share = split / matched if matched else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={
            "keys_with_a_profile": matched,
            "keys_on_several_profiles": split or 0,
            "share": share,
            "allowed_share": allowed,
        },
        offenders=sample if split else None,
        plain=("profiles",),
    )
