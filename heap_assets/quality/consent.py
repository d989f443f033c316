"""Consent: nobody without it is in what a sync has sent; the rule and its check."""

from __future__ import annotations

from typing import Final

import polars as pl

from heap_assets.quality.engine import Check
from heap_assets.quality.results import CheckResult

CONSENTED: Final = "nobody_without_consent"
_WENT: Final = ("acknowledged", "sent", "unknown", "rejected")
"""Statuses of rows that went out: a row that the destination refused was shown to it too."""


def nobody_without_consent(sent: pl.DataFrame, people: pl.DataFrame) -> CheckResult:
    """Check that values were sent of those alone who consented when they were sent.

    What was cleared and who was removed is no breach: that is what a withdrawal asks for.

    Parameters
    ----------
    sent
        Rows of the changelog: `key_hash`, `op`, `status`, `hashes`, `intended_at`, and `own`, whether a row is of the
        run and day that are judged. Of others, sent live or by a killed run, a statement without a time says nothing.
    people
        `key_hash`, `consents`, `at`: time of the statement that holds, null if it has none.
    """
    has_value = pl.col("hashes").list.eval(pl.element() > 0).list.any()
    with_values = sent.filter(
        pl.col("status").is_in(_WENT),
        pl.col("op") != "withdraw",
        (pl.col("hashes").fill_null([]).list.len() == 0) | has_value,
    )
    of_people = with_values.join(people.unique("key_hash"), on="key_hash", how="left")
    stated_later = (pl.col("at") > pl.col("intended_at")).fill_null(~pl.col("own"))
    of_nobody = of_people.filter(pl.col("consents").is_null() & pl.col("own"))
    without = of_people.filter(~pl.col("consents"))
    breaches = without.filter(~stated_later)
    return CheckResult(
        passed=breaches.is_empty() and of_nobody.is_empty(),
        numbers={
            "people_sent": with_values["key_hash"].n_unique(),
            "without_consent": breaches["key_hash"].n_unique(),
            "of_nobody": of_nobody["key_hash"].n_unique(),
            "withdrawn_since": without.filter(stated_later)["key_hash"].n_unique(),
        },
        offenders=pl.concat([breaches, of_nobody]).select("key_hash").unique().sort("key_hash")
        if breaches.height + of_nobody.height
        else None,
        plain=("key_hash",),
    )


def consent_check(asset: str, purpose: str) -> Check:
    """Return the check of a sync with a purpose; the step that sends gives its result."""
    return Check(
        asset,
        CONSENTED,
        f"Nobody is in what was sent who had not consented to {purpose} when it was sent.",
        remedy="the hashes are the keys: `heap-assets rows NAME --key HASH` says who; stop the sync, see what wrote "
        "them, and have the destination delete them.",
    )
