"""Simulation of other rules: the real links are resolved again in memory and compared with today.

Nothing is written. Strings are read and encoded once; each variant costs only the resolution of integers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from heap_assets.errors import SettingsError
from heap_assets.identity.decision_links import DECISIONS_SOURCE, decision_links
from heap_assets.identity.decisions import Decision
from heap_assets.identity.normalise import normalised
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import as_links

if TYPE_CHECKING:
    from heap_assets.identity.engine.native.encode import Encoded, LinkBatch


MAX_VARIANTS = 50
_LIMIT = "[0-9]{1,9}"
FORMS = (
    "email=1..5, email=2,none, device_id.shared_above=1,never, order=first_seen, block=email:ADDRESS, "
    "same=TYPE:VALUE,TYPE:VALUE, apart=TYPE:VALUE,TYPE:VALUE or without=ID of a decision"
)


class SweepError(SettingsError):
    """A sweep that cannot be read; the message lists the valid forms."""


@dataclass(frozen=True)
class Variant:
    """Rules that differ in one setting.

    Attributes
    ----------
    setting, value
        The changed setting and its new value.
    rules
        All rules.
    blocked
        (type, value) that is removed.
    exact
        False if the change would also extract other links (a value blocked, sharing switched on or off): only the
        existing links are resolved by the new rules.
    """

    setting: str
    value: str
    rules: Rules
    blocked: tuple[str, str] | None = None
    exact: bool = True


def variants(sweeps: Sequence[str], rules: Rules) -> list[Variant]:
    """Read sweeps, each of which changes one setting at a time.

    Raises SweepError: a sweep of an unknown setting or with an invalid value; or there are more than `MAX_VARIANTS`.
    """
    parsed = [variant for sweep in sweeps for variant in _variants(sweep, rules)]
    if not parsed:
        raise SweepError(f"nothing to vary; ask for {FORMS}.")
    if len(parsed) > MAX_VARIANTS:
        raise SweepError(f"{len(parsed)} variants, at most {MAX_VARIANTS} in one go.")
    return parsed


def _variants(sweep: str, rules: Rules) -> list[Variant]:
    setting, equals, values = (part.strip() for part in sweep.partition("="))
    if not equals or not values:
        raise SweepError(f"{sweep!r} is no sweep; ask for {FORMS}.")
    if setting == "block":
        return [_blocked(value.strip(), rules) for value in values.split(",")]
    if setting == "without":
        return [_without(name.strip(), rules) for name in values.split(",")]
    if setting in ("same", "apart"):
        return [_decided(setting, values, rules)]
    return [_changed(setting, value, sweep, rules) for value in _expanded(values)]


def _expanded(values: str) -> list[str]:
    expanded: list[str] = []
    for part in (part.strip() for part in values.split(",")):
        if span := re.fullmatch(rf"({_LIMIT})\.\.({_LIMIT})", part):
            first, last = int(span[1]), int(span[2])
            expanded += map(str, range(first, min(last, first + MAX_VARIANTS) + 1))
        else:
            expanded.append(part)
    return expanded


def _changed(setting: str, value: str, sweep: str, rules: Rules) -> Variant:
    if setting == "order":
        if value not in ("priority", "first_seen"):
            raise SweepError(f"{sweep!r}: order is priority or first_seen.")
        return _variant(setting, value, rules, replace(rules, order=value))  # type: ignore[arg-type]
    name, _, attribute = setting.partition(".")
    attribute = attribute or "max_per_profile"
    if name not in rules.types or attribute not in ("max_per_profile", "shared_above"):
        raise SweepError(
            f"{sweep!r}: unknown setting {setting!r}; types are {', '.join(rules.types)}. Ask for {FORMS}."
        )
    keywords: dict[str, Any] = {"none": None} if attribute == "max_per_profile" else {"never": "never"}
    if value not in keywords and not re.fullmatch(_LIMIT, value):
        raise SweepError(f"{sweep!r}: {value!r} is neither a number nor {next(iter(keywords))!r}.")
    change: dict[str, Any] = {attribute: keywords[value] if value in keywords else int(value)}
    identifiers = tuple(replace(rule, **change) if rule.type == name else rule for rule in rules.identifiers)
    return _variant(f"{name}.{attribute}", value, rules, replace(rules, identifiers=identifiers))


def _blocked(value: str, rules: Rules) -> Variant:
    name, colon, blocked = value.partition(":")
    if not colon or not blocked or name not in rules.types:
        raise SweepError(f"block={value!r}: expected type:value with a type of {', '.join(rules.types)}.")
    return Variant("block", value, rules, blocked=(name, blocked), exact=False)


def _without(name: str, rules: Rules) -> Variant:
    remaining = tuple(decision for decision in rules.decisions if decision.id != name)
    if len(remaining) == len(rules.decisions):
        raise SweepError(f"without={name}: there is no such decision.")
    return _variant("without", name, rules, replace(rules, decisions=remaining))


def _decided(kind: str, values: str, rules: Rules) -> Variant:
    pairs = []
    for value in values.split(","):
        name, colon, raw = value.strip().partition(":")
        if not colon or not raw or name not in rules.types:
            raise SweepError(f"{kind}={values!r}: expected type:value with types of {', '.join(rules.types)}.")
        pairs.append((name, str(pl.select(normalised(pl.lit(raw), rules[name].normaliser)).item())))
    if len({*pairs}) < 2:
        raise SweepError(f"{kind}={values!r}: expected two identifiers or more, such as {kind}=TYPE:VALUE,TYPE:VALUE.")
    decision = Decision("same" if kind == "same" else "apart", tuple(sorted({*pairs})))
    remaining = tuple(one for one in rules.decisions if one.id != decision.id)
    return _variant(kind, values, rules, replace(rules, decisions=(*remaining, decision)))


def _variant(setting: str, value: str, today: Rules, rules: Rules) -> Variant:
    return Variant(setting, value, rules, exact=rules.value_digest == today.value_digest)


NO_PROFILE: Final = 0xFFFFFFFF
BIGGEST: Final = 5
KINDS: Final = ("unchanged", "resized", "merged", "split", "overlapping", "removed")
"""Outcomes for today's profiles: the four of the Case Count metric (identity.md 6); `resized`: only gained or lost
identifiers that are in no other profile; `removed`: its identifiers are in no profile."""

_COUNT: Final = pl.Int64()
WHAT_IF_SCHEMA: Final[dict[str, pl.DataType]] = {
    "setting": pl.String(),
    "value": pl.String(),
    "today": pl.Boolean(),
    "profiles": _COUNT,
    **dict.fromkeys(KINDS, _COUNT),
    "conflicts": _COUNT,
    "shared": _COUNT,
    "biggest": pl.List(pl.Int64),
    "exact": pl.Boolean(),
}


@dataclass(frozen=True)
class WhatIf:
    """Variants compared with today.

    `frame`: `WHAT_IF_SCHEMA`; the first row is today, and `today` also marks variants equal to today's rules.
    `unchanged` to `removed` count today's profiles and add up to them; `conflicts` are refused links between profiles,
    `shared` values that belong to several people, `biggest` the sizes of the five biggest profiles.
    """

    frame: pl.DataFrame

    def text(self) -> str:
        """Return an aligned table for people."""
        head = ["", "profiles", *KINDS, "conflicts", "shared", "biggest"]
        rows = [head, *(_cells(row) for row in self.frame.iter_rows(named=True))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        text = (0, len(head) - 1)
        lines = [
            "  ".join(
                cell.ljust(w) if i in text else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        if not self.frame["exact"].all():
            lines += ["", INEXACT]
        return "\n".join(line.rstrip() for line in lines)

    def json(self) -> str:
        """Return the table for machines."""
        return json.dumps(self.frame.to_dicts(), ensure_ascii=False, indent=2)


INEXACT = (
    "~ resolved from the existing links. Blocked values and sharing also decide which links are extracted: a run with\n"
    "  these settings may join identifiers that were only together on such a value."
)


def what_if(links: pl.LazyFrame, rules: Rules, sweeps: Sequence[str] | Sequence[Variant]) -> WhatIf:
    """Resolve links by other rules and count the outcomes for today's profiles. Writes nothing.

    Parameters
    ----------
    links
        All links as of the day, with the schema of `identity/links`; read once.
    rules
        Today's rules.
    sweeps
        `email=1..5`, `device_id.shared_above=1,3,never`, `order=first_seen`, `block=email:info@acme.io`,
        `same=crm_id:1,crm_id:9`, `apart=email:ann@x.io,email:bob@x.io`, `without=17` (a decision); or variants.

    Raises
    ------
    SweepError
        A sweep that cannot be read.
    RulesError
        A number that the rules do not allow.
    """
    from heap_assets.identity.engine.native.encode import encode  # Numba is loaded when it is first needed

    parsed = [v for sweep in sweeps for v in ([sweep] if isinstance(sweep, Variant) else variants([sweep], rules))]
    every = encode(pl.concat([links, *_decided_links(links, parsed, rules)]), rules)
    encoded = _with_decisions(every, DECISIONS_SOURCE)
    today = _Outcome.of(encoded, rules)
    rows = [_row(Variant("today", "", rules), today, today, is_today=True)]
    for number, variant in enumerate(parsed):
        is_today = variant.blocked is None and variant.rules.digest == rules.digest
        own = encoded
        if variant.rules.decisions != rules.decisions:
            own = _with_decisions(every, f"{DECISIONS_SOURCE}/{number}")
        rows.append(_row(variant, today, today if is_today else _resolved(own, variant), is_today=is_today))
    return WhatIf(pl.DataFrame(rows, schema=WHAT_IF_SCHEMA, orient="row"))


def _decided_links(links: pl.LazyFrame, parsed: Sequence[Variant], rules: Rules) -> list[pl.LazyFrame]:
    """Return the links of variants whose decisions are others, between identifiers that other tables name.

    Each variant has a source of its own: what the others have decided does not count for it.
    """
    decided = [
        decision_links(variant.rules).with_columns(pl.lit(f"{DECISIONS_SOURCE}/{number}").alias("source"))
        for number, variant in enumerate(parsed)
        if variant.rules.decisions != rules.decisions
    ]
    if not decided:
        return []
    named = pl.concat(
        [links.select(pl.col(f"type_{end}").alias("type"), pl.col(f"value_{end}").alias("value")) for end in "ab"]
    ).unique()
    added = as_links(pl.concat(decided).lazy())
    for end in "ab":
        added = added.join(named, left_on=[f"type_{end}", f"value_{end}"], right_on=["type", "value"], how="semi")
    return [added]


def _with_decisions(encoded: Encoded, source: str) -> Encoded:
    """Return the links without those of decisions, except of one source."""
    left_out = [
        code for code, name in enumerate(encoded.sources) if name.startswith(DECISIONS_SOURCE) and name != source
    ]
    if not left_out:
        return encoded
    return replace(encoded, batches=[_chosen(b, ~np.isin(b.tag >> 1, left_out)) for b in encoded.batches])


@dataclass(frozen=True)
class _Outcome:
    """Profile of each node (`NO_PROFILE` for none), conflicts, shared values."""

    labels: NDArray[np.uint32]
    conflicts: int
    shared: int

    @classmethod
    def of(cls, encoded: Encoded, rules: Rules) -> _Outcome:
        from heap_assets.identity.engine.native.apart import apart_nodes
        from heap_assets.identity.engine.native.ordered import clusters
        from heap_assets.identity.engine.native.shared import components

        connected = components(encoded, rules)
        split = clusters(encoded, connected, rules, apart_nodes(encoded, rules))
        return cls(split.labels, split.refused.height, int(np.count_nonzero(connected.shared)))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Sizes of profiles, the biggest first."""
        counts = np.bincount(self.labels[self.labels != NO_PROFILE])
        return np.sort(counts[counts > 0])[::-1].astype(np.int64)


def _resolved(encoded: Encoded, variant: Variant) -> _Outcome:
    if variant.blocked is None:
        return _Outcome.of(encoded, variant.rules)
    kind, value = variant.blocked
    text = pl.select(normalised(pl.lit(value), variant.rules[kind].normaliser)).item()
    of_type = np.flatnonzero(encoded.ranks == variant.rules.rank(kind)).astype(np.uint32)
    blocked = of_type[(encoded.texts.take(of_type) == text).to_numpy()]
    batches = [_without_nodes(batch, blocked) for batch in encoded.batches]
    outcome = _Outcome.of(replace(encoded, batches=batches), variant.rules)
    labels = outcome.labels.copy()
    labels[blocked] = NO_PROFILE
    return replace(outcome, labels=labels)


def _without_nodes(batch: LinkBatch, nodes: NDArray[np.uint32]) -> LinkBatch:
    return _chosen(batch, ~(np.isin(batch.a, nodes) | np.isin(batch.b, nodes)))


def _chosen(batch: LinkBatch, remaining: NDArray[np.bool_]) -> LinkBatch:
    starts = np.concatenate([[0], np.cumsum(remaining)]).astype(np.int64)
    columns = {name: getattr(batch, name)[remaining] for name in ("a", "b", "first", "tag")}
    return replace(batch, **columns, starts=starts[batch.starts])


def _row(variant: Variant, today: _Outcome, other: _Outcome, *, is_today: bool) -> tuple[Any, ...]:
    kinds = case_counts(today.labels, other.labels)
    counts = [kinds[kind] for kind in KINDS]
    biggest = other.sizes[:BIGGEST].tolist()
    return (
        variant.setting, variant.value, is_today, other.sizes.size, *counts, other.conflicts, other.shared, biggest,
        variant.exact,
    )  # fmt: skip


def case_counts(before: NDArray[np.uint32], after: NDArray[np.uint32]) -> dict[str, int]:
    """Count the outcomes for profiles: each is exactly one of `KINDS`.

    `before`, `after`: profile of each identifier, `NO_PROFILE` for none; equal lengths.

    merged: whole in a profile made of several whole ones. split: cut into profiles that hold nothing of others.
    overlapping: neither. Identifiers that leave for no profile, or come from none, make a profile `resized` only.
    """
    cells = (
        pl.LazyFrame({"old": before, "new": after})
        .group_by("old", "new")
        .agg(n=pl.len())
        .with_columns(pl.when(pl.col(side) != NO_PROFILE).then(pl.col(side)) for side in ("old", "new"))
        .collect()
    )
    pairs = cells.drop_nulls()
    gained = cells.filter(pl.col("old").is_null()).select("new", gained=pl.lit(1))
    lost = cells.filter(pl.col("new").is_null()).select("old", lost=pl.lit(1))
    judged = (
        pairs.with_columns(parts=pl.len().over("old"), sources=pl.len().over("new"))
        .join(gained, on="new", how="left")
        .join(lost, on="old", how="left")
        # a profile made of whole ones only
        .with_columns(whole=(pl.col("parts") == 1).all().over("new"))
        .group_by("old")
        .agg(
            parts=pl.col("parts").first(),
            alone=(pl.col("sources") == 1).all(),
            whole=pl.col("whole").all(),
            resized=pl.any_horizontal(pl.col("gained", "lost").is_not_null()).any(),
        )
    )
    single, alone = pl.col("parts") == 1, pl.col("alone")
    kind = (
        pl.when(single & alone & ~pl.col("resized")).then(pl.lit("unchanged"))
        .when(single & alone).then(pl.lit("resized"))
        .when(single & pl.col("whole")).then(pl.lit("merged"))
        .when(alone).then(pl.lit("split"))
        .otherwise(pl.lit("overlapping"))
    )  # fmt: skip
    counts = dict(judged.group_by(kind=kind).len().iter_rows())
    removed = lost.filter(pl.col("old").is_not_null()).join(pairs, on="old", how="anti").height
    return dict.fromkeys(KINDS, 0) | counts | {"removed": removed}


def row_name(row: dict[str, Any]) -> str:
    """Return the setting of a variant, in the form of a sweep."""
    if not row["value"]:
        return "today"
    mark = " (today)" if row["today"] else ("" if row["exact"] else " ~")
    return f"{row['setting'].removesuffix('.max_per_profile')}={row['value']}{mark}"


def _cells(row: dict[str, Any]) -> list[str]:
    kinds = [f"{row[kind]:,}" if row[kind] or kind == "unchanged" else "–" for kind in KINDS]
    biggest = " ".join(f"{size:,}" for size in row["biggest"])
    return [row_name(row), f"{row['profiles']:,}", *kinds, f"{row['conflicts']:,}", f"{row['shared']:,}", biggest]
