"""What Heap's identities are decides what `init`, `discover` and `check` propose to map them to."""

from __future__ import annotations

import polars as pl
import pytest

from heap_assets.identity.normalise import IdentityValues, identity_values


def test_identities_that_are_addresses_are_proposed_as_both_types() -> None:
    found = identity_values(pl.Series([" Ann@Acme.io", "bob@x.io", "bob@x.io", None, "", "null", "cid"]))
    assert found == IdentityValues(values=3, emails=2)
    assert found.types == ("heap_identity", "email")
    assert found.summary == (
        "2 of 3 Heap identities (67%) are email addresses: "
        "map heap.identifiers.users.identity to [heap_identity, email]"
    )


@pytest.mark.parametrize(
    "values", [["u1", "u2", "u3"], [], [None], [1, 2], ["a@b.io", *(f"u{n}" for n in range(100))]], ids=str
)
def test_identities_of_another_kind_stay_what_they_are(values: list[object]) -> None:
    found = identity_values(pl.Series(values))
    assert found.types == ("heap_identity",)
    assert found.summary.endswith("are email addresses")
