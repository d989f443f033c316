"""`same` decisions as authoritative links, which go to the engines with all others."""

from __future__ import annotations

from typing import Final

import polars as pl

from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import LINKS

DECISIONS_SOURCE: Final = "identity/decisions"
"""The source of these links in `identity/links` and `identity/conflicts`."""


def decision_links(rules: Rules) -> pl.DataFrame:
    """Return the links of all `same` decisions, with the schema of identity/links.

    The strongest identifier of a decision is linked to each of the others. A decision is no sighting: its links are
    without dates, so they change neither first nor last seen of an identifier.
    """
    rows = []
    for decision in rules.decisions:
        if decision.kind != "same":
            continue
        pairs = sorted({*decision.identifiers} - rules.excluded, key=lambda pair: (rules.rank(pair[0]), pair[1]))
        rows += [(*pairs[0], *pair) for pair in pairs[1:]]
    ends = pl.DataFrame(sorted({*rows}), schema=LINKS.names()[:4], orient="row")
    return ends.select(
        *(pl.col(name).cast(pl.String) for name in LINKS.names()[:4]),
        pl.lit(DECISIONS_SOURCE).alias("source"),
        pl.lit(None, LINKS["first_seen"]).alias("first_seen"),
        pl.lit(None, LINKS["last_seen"]).alias("last_seen"),
        pl.lit(1, pl.Int64).alias("count"),
        pl.lit(True).alias("authoritative"),
    )
