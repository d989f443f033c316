"""What the values of Heap's identity column are, so that the settings can map them to what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from heap_assets.identity.normalise import normalised, reason
from heap_assets.identity.rules import EMAIL, HEAP_IDENTITY, IdentifierRule, Rules

_WORTH_A_MAPPING: Final = 0.05
"""Share of email addresses from which a mapping to both types is proposed; values that are none are refused as emails
and counted, so the mapping costs nothing."""


@dataclass(frozen=True)
class IdentityValues:
    """How many different identities were looked at, and how many of them are email addresses."""

    values: int
    emails: int

    @property
    def share(self) -> float:
        """Share of email addresses, 0 of no values."""
        return self.emails / self.values if self.values else 0.0

    @property
    def types(self) -> tuple[str, ...]:
        """The identifier types to map the column to, strongest first."""
        return (HEAP_IDENTITY, EMAIL) if self.share >= _WORTH_A_MAPPING else (HEAP_IDENTITY,)

    @property
    def summary(self) -> str:
        """One sentence without a value, for people."""
        said = f"{self.emails:,} of {self.values:,} Heap identities ({self.share:.0%}) are email addresses"
        if EMAIL in self.types:
            return f"{said}: map heap.identifiers.users.identity to [heap_identity, email]"
        return said


def identity_values(identities: pl.Series) -> IdentityValues:
    """Look at values of the column `identity` of Heap's users; null, blank and junk ones do not count.

    An address is what the default rule of type email takes for one, whatever the settings say.
    """
    rule = IdentifierRule(EMAIL)
    rules = Rules((rule, IdentifierRule(HEAP_IDENTITY)))
    counts = (
        identities.cast(pl.String)
        .alias("identity")
        .to_frame()
        .lazy()
        .unique()
        .filter(reason(pl.col("identity"), rules[HEAP_IDENTITY], rules).is_null())
        .select(address=normalised(pl.col("identity"), rule.normaliser))
        .select(values=pl.len(), emails=reason(pl.col("address"), rule, rules).is_null().sum())
        .collect()
    )
    values, emails = counts.row(0)
    return IdentityValues(values, emails)
