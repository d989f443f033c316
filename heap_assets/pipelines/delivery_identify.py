"""Our own guesses must not come back as proof: pairs sent through identify, as identity has to leave them out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from heap_assets import clock
from heap_assets.activation import sent_pairs
from heap_assets.config import HeapIdentify
from heap_assets.identity import own_identify_links
from heap_assets.pipelines.golden import standing_partition
from heap_assets.project import Project
from heap_assets.tables import USERS


@dataclass(frozen=True)
class OwnPairs:
    """Links that Heap reports only because we sent them (design.md, identity rule 3); `version` covers them."""

    frame: pl.DataFrame
    version: str

    def links(self) -> pl.LazyFrame:
        """Return type_a, value_a, type_b, value_b."""
        return self.frame.lazy()


def own_pairs(project: Project) -> OwnPairs | None:
    """Return what `heap_identify` syncs of the settings have sent, switched off since or not; None if nothing."""
    store = project.lake.store
    names = [name for name, sync in project.settings.sync.items() if isinstance(sync, HeapIdentify)]
    sent = [sent_pairs(store, name) for name in names]
    users_day = standing_partition(project.lake, USERS, clock.today())
    if not any(len(pairs) for pairs in sent) or users_day is None:
        return None
    pairs = pl.concat(sent).select(pl.col("user_id").cast(pl.Int64), "identity").unique()
    users = project.lake.scan(USERS, str(users_day)).select("user_id", "identity")
    frame = own_identify_links(pairs.lazy(), users).collect().sort(pl.all())
    return OwnPairs(frame, hashlib.sha256(repr(frame.rows()).encode()).hexdigest()[:16])
