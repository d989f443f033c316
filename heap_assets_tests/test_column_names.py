"""A column may be called like one of ours: each has a name of its own, and it can be told which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heap_assets.values import apart, original, set_apart

OWN = ("migrated_to", "profile_id")
NAMES = st.builds(
    lambda times, name, tail: "property_" * times + name + tail,
    st.integers(0, 3),
    st.sampled_from([*OWN, "Migrated_To", "PROFILE_ID", "plan", ""]),
    st.sampled_from(["", "_", "x"]),
)


@given(st.sets(NAMES))
def test_no_two_become_one_none_takes_ours_and_each_leads_back(names: set[str]) -> None:
    under = [apart(name, OWN) for name in names]
    assert len({*under}) == len(names)
    assert not {name.casefold() for name in under} & {*OWN}
    assert {original(name, OWN) for name in under} == names
    assert set_apart(names, OWN) == {name: new for name, new in zip(names, under, strict=True) if new != name}
