"""Heap's identify: joins an anonymous user to an identity, irreversibly (heap.md 1.7). Off by default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Connector, Requirement
from heap_assets.activation.connectors.heap import IDENTITY_UNITS, JUNK_IDENTITIES, HeapApp, HeapDestination, ToHeap
from heap_assets.activation.connectors.rows import newest, newest_users
from heap_assets.activation.engine.accounts import all_ledgers
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.hashing import salt
from heap_assets.activation.engine.lease import Lease
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.log import INTENT_SCHEMA, OUTCOME_SCHEMA, Log, fold
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.errors import MissingInputError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID
from heap_assets.storage import Store, state_keys
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS

PER_MONTH = 10
"""user_ids an identity takes in a month; Heap silently ignores the eleventh (heap.md 1.7)."""
_MONTH = timedelta(days=31)
_PAIR = "\x1f"


class HeapIdentifySync(ToHeap):
    """Joins anonymous users to an identity, for ever: off unless `enabled: true`."""

    kind: Literal["heap_identify"] = "heap_identify"
    mode: Literal["insert"] = "insert"
    source: Literal["profiles"] = "profiles"
    properties: dict[str, str] = Field(default={}, max_length=0, description="Identify takes none")
    enabled: bool = Field(default=False, description="Identify cannot be undone at Heap")
    stands_days: int = Field(default=14, ge=14, description="How long a join must have stood; 14 at least")

    @property
    def scheduled(self) -> bool:
        """Whether it runs by itself: not before it is switched on."""
        return self.enabled and self.schedule is not None


class HeapIdentifyConnector(Connector[HeapIdentifySync]):
    """Anonymous users of a profile to its identity, once their join is old enough."""

    settings_model = HeapIdentifySync

    def destination(self, table: str = "") -> HeapIdentify:
        return HeapIdentify(HeapApp.of(self.deployment.settings.heap), enabled=self.settings.enabled)

    def inputs(self) -> list[str]:
        return [PROFILES, GRAPH, USERS, MIGRATIONS]

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        yield from super().requirements(day)
        if self.settings.enabled and self._graph_then(day) is None:
            yield self._no_graph_then(day)

    def rows(self, day: date, table: str = "") -> pl.LazyFrame:
        lake, then = self.deployment.lake, self._graph_then(day)
        if then is None:
            raise MissingInputError(self._no_graph_then(day))
        return identify_candidates(
            lake.scan(GRAPH, str(day)),
            lake.scan(GRAPH, str(then)),
            lake.scan(PROFILES, str(day)),
            newest_users(self.deployment),
            user_id_type=HEAP_USER_ID,
            identity_type=HEAP_IDENTITY,
        )

    def before_sending(self, run_id: str) -> int:
        """Acknowledge the pairs that Heap's export confirms by now; returns how many."""
        store = self.deployment.lake.store
        if not self.settings.enabled or not store.list(f"{state_keys.SYNC}/{self.ledger_folder()}/log"):
            return 0
        migrations = newest(self.deployment, MIGRATIONS)
        return confirm_identified(store, self.spec(), migrations, newest_users(self.deployment), run_id)

    def own_links(self) -> pl.DataFrame:
        """Return the pairs that were sent, even if the sync is switched off: Heap has them only from us."""
        return sent_pairs(self.deployment.lake.store, self.name)

    def _graph_then(self, day: date) -> date | None:
        """Return the newest graph that is old enough to prove the age of joins."""
        return self.deployment.lake.newest_partition(GRAPH, day - timedelta(days=self.settings.stands_days))

    def _no_graph_then(self, day: date) -> str:
        return f"{GRAPH} has no partition of {self.settings.stands_days} days before {day}: joins must have stood"


class HeapIdentify(HeapDestination):
    """Sends (user_id, identity) pairs, each once. Rows come from :func:`identify_candidates`.

    A pair is `sent` until :func:`confirm_identified` finds it in an export: Heap answers 200 to calls it drops.
    """

    kind = "heap_identify"
    mode = Mode.INSERT
    path = "/api/v1/identify"
    required = ("event_key", "user_id")
    accepted = "sent"
    limits = Limits(batch_rows=1, key_units=IDENTITY_UNITS, junk_keys=JUNK_IDENTITIES)

    def __init__(self, app: HeapApp, *, enabled: bool = False) -> None:
        super().__init__(app)
        self._enabled = enabled

    def precondition_error(self) -> str | None:
        if self._enabled:
            return None
        return "identify cannot be undone at Heap, so it is off; read docs/delivery.md before you switch it on"

    def held_rows(self, rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.Series:
        """Hold what Heap would silently drop: a second identity for a user_id, an eleventh user_id in a month."""
        sent = _pairs(ledger.filter(pl.col("status").is_in(["sent", "acknowledged", "unknown"])))
        owners = sent.group_by("user_id").agg(pl.col("identity").first().alias("taken_by"))
        recent = sent.filter(pl.col("acknowledged_at").fill_null(datetime.now(UTC)) > datetime.now(UTC) - _MONTH)
        used = recent.group_by("identity").agg(used=pl.len())
        pairs = rows.select("key").with_row_index("at")
        pairs = _pairs(pairs).join(owners, on="user_id", how="left").join(used, on="identity", how="left").sort("at")
        repeated = pl.col("taken_by") == pl.col("identity")
        number = pl.int_range(1, pl.len() + 1).over("identity") + pl.col("used").fill_null(0)
        return pairs.select(
            reason=pl.when(pl.col("user_id").n_unique().over("user_id") != pl.len().over("user_id"))
            .then(pl.lit("two identities want this user_id"))
            .when(pl.col("taken_by").is_not_null() & ~repeated)
            .then(pl.lit("this user_id was sent to another identity"))
            .when((number > PER_MONTH) & ~repeated.fill_null(value=False))
            .then(pl.lit("its identity took ten user_ids this month"))
        )["reason"]

    def element(self, row: Row) -> dict[str, Any]:
        return {"identity": row.person, "user_id": str(row.extra["user_id"])}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post(None, elements)


def identify_candidates(
    graph: pl.LazyFrame,
    graph_then: pl.LazyFrame,
    profiles: pl.LazyFrame,
    users: pl.LazyFrame,
    *,
    user_id_type: str = "heap_user_id",
    identity_type: str = "heap_identity",
) -> pl.LazyFrame:
    """Return `key` (the identity), `user_id`, `event_key`, `profile_id` of the pairs that may be sent.

    They are anonymous, unshared, without conflicts, and joined for at least 14 days.

    Parameters
    ----------
    graph, graph_then
        `identity/graph` of today and of `stands_days` ago (design.md, Sync: Identify).
    profiles
        `profile_id`, `heap_identities`, `conflicts`.
    users
        Newest `heap/users`: `user_id`, `identity`, `migrated_to`.

    """
    anonymous = users.filter(pl.col("identity").is_null(), pl.col("migrated_to").is_null())
    anonymous = anonymous.select(identifier=pl.col("user_id").cast(pl.String))
    single = profiles.filter(pl.col("heap_identities").list.len() == 1, pl.col("conflicts").fill_null(0) == 0)
    single = single.select("profile_id", identity=pl.col("heap_identities").list.first())
    exported = users.filter(pl.col("migrated_to").is_null()).select("identity").drop_nulls().unique()
    single = single.join(exported, on="identity", how="semi")
    unshared = pl.col("shared").fill_null(value=False).not_() & pl.col("profile_id").is_not_null()
    devices = graph.filter(pl.col("identifier_type") == user_id_type, unshared)
    devices = devices.join(anonymous, on="identifier", how="semi").select("identifier", "profile_id")
    before = graph_then.filter(unshared).select("identifier_type", "identifier", then="profile_id")
    devices_then = before.filter(pl.col("identifier_type") == user_id_type).select("identifier", "then")
    people_then = before.filter(pl.col("identifier_type") == identity_type).select(identity="identifier", then="then")
    pairs = devices.join(single, on="profile_id").join(devices_then, on="identifier")
    pairs = pairs.join(people_then, on=["identity", "then"], how="semi")
    return pairs.select(
        key="identity",
        user_id="identifier",
        event_key=pl.concat_str("identifier", pl.lit(_PAIR), "identity"),
        profile_id="profile_id",
    ).sort("event_key")


def sent_pairs(store: Store, sync: str) -> pl.DataFrame:
    """Return `user_id`, `identity`, `status`, `acknowledged_at` of all pairs that were sent."""
    logs = [Log(store, folder) for folder in all_ledgers(store, sync)]
    ledger = pl.concat([fold(log, log.ledger()).frame for log in logs], how="diagonal")
    return _pairs(ledger.filter(pl.col("status").is_in(["sent", "acknowledged", "unknown"]))).drop("key")


def confirm_identified(store: Store, spec: SyncSpec, migrations: pl.LazyFrame, users: pl.LazyFrame, run_id: str) -> int:
    """Acknowledge the sent pairs that show in an export; returns how many did.

    `migrations`: `heap/user_migrations`: `from_user_id`, `resolved_to`. `users`: `heap/users`: `user_id`, `identity`.
    """
    salt(store, spec.salt)
    homes = users.select(resolved_to="user_id", identity="identity").drop_nulls()
    shown = migrations.join(homes, on="resolved_to").select("identity", user_id=pl.col("from_user_id").cast(pl.String))
    with Lease(store, spec.folder, run_id, spec.lease_ttl) as lease:
        log = Log(store, spec.folder, lease.fence)
        before = log.ledger()
        ledger = fold(log, before).frame
        sent = _pairs(ledger.filter(pl.col("status").is_in(["sent", "unknown"])))
        confirmed = sent.join(shown.unique().collect(), on=["user_id", "identity"], how="semi")
        if len(confirmed):
            _acknowledge(log, confirmed["key"], run_id)
            log.save(fold(log, before), spec.compact_after)
    return len(confirmed)


def _acknowledge(log: Log, keys: pl.Series, run_id: str) -> None:
    name = log.batch()
    numbered = keys.to_frame("key").with_row_index("row")
    facts = {"batch": name, "op": "confirm", "run_id": run_id, "fence": log.fence, "at": datetime.now(UTC)}
    intent = numbered.with_columns(pl.lit(v, INTENT_SCHEMA[c]).alias(c) for c, v in facts.items())
    missing = [pl.lit(None, t).alias(c) for c, t in INTENT_SCHEMA.items() if c not in intent.columns]
    log.append(name, "intent", intent.with_columns(missing).select(*INTENT_SCHEMA))
    outcome = numbered.select("row").with_columns(
        batch=pl.lit(name), status=pl.lit("acknowledged"), answered_at=pl.lit(datetime.now(UTC))
    )
    missing = [pl.lit(None, t).alias(c) for c, t in OUTCOME_SCHEMA.items() if c not in outcome.columns]
    log.append(
        name, "outcome", outcome.with_columns(missing).select(pl.col(c).cast(t) for c, t in OUTCOME_SCHEMA.items())
    )


def _pairs(ledger: pl.DataFrame) -> pl.DataFrame:
    parts = pl.col("key").str.split_exact(_PAIR, 1).struct
    return ledger.with_columns(user_id=parts.field("field_0"), identity=parts.field("field_1")).select(
        *(c for c in ("at", "key", "status", "acknowledged_at") if c in ledger.columns), "user_id", "identity"
    )
