"""Who is addressed, by which key: chosen for all profiles, by parts on disk if they are many.

Two profiles on one key, and an identity that Heap does not know, can only be told by looking at all profiles and all
users. So their keys alone are divided by key, and what is chosen for each pair of a profile and a key is remembered in
a byte, in the order of the profiles. Whoever asks for the rows makes us go through the profiles once more, with the
columns that are asked for and no others; they are put in the order of their keys on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from heap_assets.activation.engine import parts
from heap_assets.activation.engine.addressing import (
    NOT_IN_HEAP,
    Addressed,
    AddressPolicy,
    no_addresses,
    refuse_old_users,
    writable_users,
)
from heap_assets.activation.engine.batches import batches, count_of, source_of
from heap_assets.activation.engine.spill import Spill
from heap_assets.errors import DeliveryError
from heap_assets.storage import SCRATCH

_IN_HEAP, _NEW, _PASSED, _SUPPRESSED, _ABSENT, _TWICE, _SEVERAL = range(7)
"""What is chosen for a pair: it is sent to an identity that Heap knows, or does not know yet; another identity of the
profile is sent to; or it is set aside."""
_HELD = {_SUPPRESSED: "suppressed", _ABSENT: NOT_IN_HEAP}
_INVALID = {_TWICE: "two profiles have this key", _SEVERAL: "the profile has several identities"}
_PAIR = pl.Schema(
    {"key": pl.String(), "pair": pl.UInt32(), "person": pl.UInt32(), "several": pl.Boolean(), "first": pl.Boolean()}
)
_USER = pl.Schema({"last_modified": pl.Datetime("us", "UTC"), "key": pl.String(), "migrated": pl.Boolean()})
_SAMPLED = 10_000
"""Keys that say where the rows are cut to be put in order."""


def addressed(
    profiles: pl.LazyFrame,
    users: pl.LazyFrame,
    policy: AddressPolicy | None = None,
    refused: pl.LazyFrame | None = None,
) -> Addressed:
    """Give every profile the key, or keys, that it is sent to.

    Parameters
    ----------
    profiles
        `profile_id` String, `heap_identities` List(String), then traits. It is read several times, and gives the same
        rows in the same order each time.
    users
        Newest `heap/users`: `identity`, `migrated_to`, `last_modified`.
    refused
        `profile_id`, `reason`: profiles that would have a key, had it not been refused; each once.

    Notes
    -----
    design.md, Sync: writable are identities in the newest `heap/users`, not migrated away, not suppressed; two profiles
    on one key are both invalid.
    """
    policy = policy or AddressPolicy()
    refuse_old_users(policy)
    count = count_of(profiles)
    if count <= parts.PART_ROWS:
        profiles = profiles.collect().lazy()
    chosen = _Choosing(profiles, users, policy, count).chosen()
    return Addressed(
        rows=chosen.rows(),
        held=chosen.held(policy, refused),
        invalid=chosen.invalid(),
        writable=None if policy.allow_new else writable_users(users, policy).select(key="identity"),
        counts={
            "profiles": count,
            "without_identity": chosen.without_identity,
            "would_create": int((chosen.choices == _NEW).sum()),
            "several_identities": chosen.several_identities,
        },
    )


class _Choosing:
    """Looks at the keys of all profiles, and at those of all users."""

    def __init__(self, profiles: pl.LazyFrame, users: pl.LazyFrame, policy: AddressPolicy, count: int) -> None:
        self.profiles, self.users, self.policy, self.count = profiles, users, policy, count
        self.parts = 1 if count <= parts.PART_ROWS else parts.number_of(max(count, count_of(users)))
        self.without_identity = self.several_identities = 0

    def chosen(self) -> _Chosen:
        with TemporaryDirectory(prefix=SCRATCH) as folder:
            scratch = Path(folder)
            pairs, checks, cuts = self._pairs(scratch)
            several = Spill(self._file(scratch, "several"), pl.DataFrame())
            choices = np.zeros(len(checks), dtype=np.uint8)
            heap_users = self._users(scratch, pairs)
            for part in range(self.parts):
                judged = self._judged(pairs.read(part), heap_users.read(part))
                choices[judged["pair"].to_numpy()] = judged["choice"].to_numpy()
                if self.policy.identities == "one":
                    rivals = judged.filter(pl.col("choice") <= _NEW, pl.col("several"))
                    rivals = rivals.select("pair", "person", "key", "first", "last_modified")
                    several.add(
                        rivals, self._bucket(rivals["person"].cast(pl.UInt64) * self.parts // max(self.count, 1))
                    )
            for part in range(self.parts if several.rows else 0):
                choices[_passed(several.read(part)).to_numpy()] = _PASSED
        return _Chosen(
            self.profiles, self.parts > 1, choices, checks, cuts, self.without_identity, self.several_identities
        )

    def _pairs(self, scratch: Path) -> tuple[Spill, np.ndarray[tuple[int], np.dtype[np.uint32]], pl.Series]:
        """Put the pairs aside by key; returns them, their checks and keys at which their order can be cut."""
        spill = Spill(self._file(scratch, "pairs"), pl.DataFrame(schema=_PAIR))
        checks = [np.zeros(0, dtype=np.uint32)]
        sample = [pl.Series("key", [], dtype=pl.String)]
        place = pl.int_range(pl.len(), dtype=pl.UInt32)
        person = 0
        has_first = "heap_identity" in self.profiles.collect_schema()
        columns = ["profile_id", "heap_identities", *["heap_identity"] * has_first]
        for batch in batches(self.profiles.select(columns), parts.PART_ROWS, self.count):
            identities = batch["heap_identities"].list.len()
            self.without_identity += int((identities.fill_null(0) == 0).sum())
            self.several_identities += int((identities > 1).sum())
            pairs = _paired(batch)
            checks.append(_checks(batch, pairs))
            first = batch["heap_identity"].gather(pairs["at"]) if has_first else pl.lit(None, pl.String)
            pairs = pairs.select(
                "key",
                pair=place + spill.rows,
                person=pl.col("at") + person,
                several=(identities > 1).gather(pairs["at"]),
                first=(pl.col("key") == first).fill_null(value=False),
            )
            sample.append(pairs["key"].gather_every(max(1, self.count // _SAMPLED)))
            spill.add(pairs, self._bucket(pairs["key"].hash()))
            person += len(batch)
        keys = pl.concat(sample).drop_nulls().unique().sort()
        cuts = keys.gather_every(max(1, len(keys) // self.parts)).slice(1) if self.parts > 1 else keys.clear()
        return spill, np.concatenate(checks), cuts

    def _users(self, scratch: Path, pairs: Spill) -> Spill:
        """Put the users that have an identity aside, by it; of few profiles only those of theirs."""
        spill = Spill(self._file(scratch, "users"), pl.DataFrame(schema=_USER))
        own_keys = pairs.read().select("key").unique() if self.parts == 1 else None
        for batch in batches(self.users.select("identity", "migrated_to", "last_modified"), parts.PART_ROWS):
            users = batch.filter(pl.col("identity").is_not_null()).select(
                "last_modified", key="identity", migrated=pl.col("migrated_to").is_not_null()
            )
            users = users if own_keys is None else users.join(own_keys, on="key", how="semi")
            spill.add(users, self._bucket(users["key"].hash()))
        return spill

    def _judged(self, pairs: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
        """Add to the pairs of some keys what is chosen for them, and when Heap changed the user last."""
        policy, key = self.policy, pl.col("key")
        current = users.filter(~pl.col("migrated")).group_by("key").agg(pl.col("last_modified").max())
        current = current.with_columns(in_heap=pl.lit(value=True))
        pairs = pairs.join(current, on="key", how="left", maintain_order="left")
        is_new = pl.col("in_heap").is_null()
        waits = pl.lit(not policy.allow_new)
        if policy.allow_new and policy.hold_migrated:
            waits = key.is_in(users.filter("migrated")["key"].implode())
        return pairs.with_columns(
            choice=pl.when(pl.col("person").n_unique().over("key") > 1)
            .then(_TWICE)
            .when(pl.col("several") & pl.lit(policy.identities == "none"))
            .then(_SEVERAL)
            .when(key.is_in(list(policy.suppressed)))
            .then(_SUPPRESSED)
            .when(is_new & waits)
            .then(_ABSENT)
            .when(is_new)
            .then(_NEW)
            .otherwise(_IN_HEAP)
            .cast(pl.UInt8)
        )

    def _file(self, scratch: Path, name: str) -> Path | None:
        return scratch / name if self.parts > 1 else None

    def _bucket(self, numbers: pl.Series) -> pl.Series | None:
        return None if self.parts == 1 else (numbers % self.parts).fill_null(0).cast(pl.UInt32)


@dataclass(frozen=True)
class _Chosen:
    """What was chosen, and the profiles.

    `are_many`: whether the profiles are read again each time. `choices`, `checks`: of each pair, in the order of the
    profiles; a check tells whether it is the pair that was looked at. `cuts`: keys at which the rows are cut to be put
    in order.
    """

    profiles: pl.LazyFrame
    are_many: bool
    choices: np.ndarray[tuple[int], np.dtype[np.uint8]]
    checks: np.ndarray[tuple[int], np.dtype[np.uint32]]
    cuts: pl.Series
    without_identity: int
    several_identities: int

    def rows(self) -> pl.LazyFrame:
        """Return `profile_id`, `key` and the other columns of those that are sent to, in the order of the keys."""
        profiles = self.profiles.rename({"key": "key_right"}, strict=False)
        schema = profiles.collect_schema()
        columns = ["profile_id", "key", *(name for name in schema if name != "profile_id")]

        def frames(asked_columns: Sequence[str]) -> Iterator[pl.DataFrame]:
            needed = dict.fromkeys(
                ["profile_id", "heap_identities", *(name for name in asked_columns if name != "key")]
            )
            for batch, pairs in self._read(profiles.select(*needed)):
                usable = pairs.filter(pl.col("choice") <= _NEW)
                yield batch[usable["at"]].with_columns(usable["key"]).select(asked_columns)

        types = {name: pl.String() if name == "key" else schema[name] for name in columns}
        if not self.are_many:
            return pl.concat([pl.DataFrame(schema=types), *frames(columns)]).sort("key").lazy()

        def ordered(asked_columns: Sequence[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            with TemporaryDirectory(prefix=SCRATCH) as folder:
                columns = [*dict.fromkeys([*asked_columns, "key"])]
                spill = Spill(Path(folder) / "rows", pl.DataFrame(schema={name: types[name] for name in columns}))
                for frame in frames(columns):
                    rows = frame if predicate is None else frame.filter(predicate)
                    spill.add(rows, self.cuts.search_sorted(rows["key"].fill_null(""), side="right"))
                for number in range(len(self.cuts) + 1):
                    yield spill.read(number).sort("key").select(asked_columns)

        return source_of(ordered, types)

    def held(self, policy: AddressPolicy, refused: pl.LazyFrame | None) -> pl.LazyFrame:
        """Return the profiles, and keys, that wait; those without a key for the reason that `refused` names."""

        def without() -> Iterator[pl.DataFrame]:
            reasons = (
                refused.select("profile_id", "reason").collect(engine="streaming") if refused is not None else None
            )
            for batch in batches(self.profiles.select("profile_id", "heap_identities"), parts.PART_ROWS):
                keyless = batch.filter(pl.col("heap_identities").list.len().fill_null(0) == 0)
                keyless = keyless.select("profile_id", key=pl.lit(None, pl.String))
                if reasons is None:
                    yield keyless.with_columns(reason=pl.lit(policy.missing))
                    continue
                joined = keyless.join(reasons, on="profile_id", how="left", maintain_order="left")
                yield joined.with_columns(pl.col("reason").fill_null(policy.missing))

        return self._aside(_HELD, without if self.without_identity else None)

    def invalid(self) -> pl.LazyFrame:
        """Return the profiles and keys that need a correction."""
        return self._aside(_INVALID)

    def _aside(
        self, reasons: Mapping[int, str], also: Callable[[], Iterator[pl.DataFrame]] | None = None
    ) -> pl.LazyFrame:
        """Return the pairs that are set aside for one of these reasons, and others after them."""
        are_some = bool(np.isin(self.choices, [*reasons]).any())
        schema = no_addresses().collect_schema()

        def frames() -> Iterator[pl.DataFrame]:
            yield pl.DataFrame(schema=schema)
            for batch, pairs in self._read(self.profiles.select("profile_id", "heap_identities")) if are_some else ():
                aside = pairs.with_columns(batch["profile_id"].gather(pairs["at"]))
                aside = aside.with_columns(reason=pl.col("choice").replace_strict(reasons, default=None))
                yield aside.filter(pl.col("reason").is_not_null()).select("profile_id", "key", "reason")
            yield from also() if also is not None else ()

        def chosen(asked_columns: Sequence[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            for frame in frames():
                yield (frame if predicate is None else frame.filter(predicate)).select(asked_columns)

        if not (are_some or also is not None):
            return no_addresses()
        return source_of(chosen, dict(schema)) if self.are_many else pl.concat(frames()).lazy()

    def _read(self, profiles: pl.LazyFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield profiles with their pairs: `at`, which of them it is of, `key` and `choice`."""
        start = 0
        for batch in batches(profiles, parts.PART_ROWS):
            pairs = _paired(batch)
            end = start + len(pairs)
            if not np.array_equal(_checks(batch, pairs), self.checks[start:end]):
                break
            yield batch, pairs.with_columns(pl.Series("choice", self.choices[start:end]))
            start = end
        if start != len(self.checks):
            raise DeliveryError("the profiles were written anew while they were read; nothing was sent: run it again")


def _paired(profiles: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each identity of profiles: `at`, which of them it is of, and `key`."""
    pairs = profiles.select(at=pl.int_range(pl.len(), dtype=pl.UInt32), key="heap_identities")
    return pairs.explode("key", empty_as_null=False, keep_nulls=False)


def _checks(profiles: pl.DataFrame, pairs: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    hashes = profiles["profile_id"].hash().gather(pairs["at"]) ^ pairs["key"].hash()
    return hashes.to_numpy().astype(np.uint32)


def _passed(rivals: pl.DataFrame) -> pl.Series:
    """Return which pairs are of the identities that their profile is not sent to, as it has a better one."""
    order = ["first", "last_modified", "key"]
    ordered = rivals.sort("person", *order, descending=[False, True, True, False], nulls_last=True)
    return ordered.filter(~pl.col("person").is_first_distinct())["pair"]
