"""Whatever a customer calls a column, it can be published, and no two columns become one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.sources.warehouse.names import published_names, safe_name

OWN = ("partition_day", "profile_id", "resolved_user_id")
NAMES = st.one_of(
    st.text(max_size=90),
    st.sampled_from(
        ["cart value", "cart_value", "Cart.Value", "CART_VALUE", "profile_id", "Profile_Id", "partition_day", "", " ",
         "ctid", "_PARTITIONTIME", "_table_x", "цена", "цвет", "価格", "1", "property_profile_id", "a" * 63, "a" * 64]
    ),
)  # fmt: skip


@given(names=st.lists(NAMES, max_size=12), longest=st.sampled_from([63, 300]))
def test_every_name_is_taken_by_every_engine_and_no_two_are_one(names: list[str], longest: int) -> None:
    found = published_names(names, reserved=OWN, longest=longest)
    assert list(found) == list(dict.fromkeys(names))
    assert len({name.casefold() for name in (*found.values(), *OWN)}) == len(found) + len(OWN)
    for name, published in found.items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", published)
        assert len(published) <= longest
        assert not published.upper().startswith(("_TABLE_", "_FILE_", "_PARTITION", "_CHANGE_", "_ROW_TIMESTAMP"))
        if published != name and name.casefold() not in OWN:
            assert safe_name(name, longest) != name or name.casefold() in {n.casefold() for n in {*names} - {name}}


@given(first=st.lists(NAMES, max_size=8), later=st.lists(NAMES, max_size=8))
def test_a_name_that_was_published_stays_whatever_comes_later(first: list[str], later: list[str]) -> None:
    known = published_names(first, reserved=OWN)
    found = published_names([*later, *first], reserved=OWN, published=known)
    assert found.items() >= known.items()
    assert len({name.casefold() for name in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("names", "published"),
    [
        (["cart value", "price (€)", "café.size"], ["cart_value", "price", "cafe_size"]),
        (["cart value", "cart_value"], ["cart_value_59030d", "cart_value"]),
        (["Plan", "plan"], ["Plan", "plan_64879f"]),
        (["profile_id", "partition_day", "ctid"], ["property_profile_id", "property_partition_day", "property_ctid"]),
        (["_TABLE_", "_PARTITIONTIME"], ["property__TABLE_", "property__PARTITIONTIME"]),
        (["_FILE_NAME", "_CHANGE_TYPE"], ["property__FILE_NAME", "property__CHANGE_TYPE"]),
        (["_Change_Sequence_Number", "__root__x"], ["property__Change_Sequence_Number", "property___root__x"]),
        (["цена", "1st", "  "], ["u0446u0435u043du0430", "_1st", "_"]),
        (["x" * 70], ["x" * 56 + "_" + "c71bd1"]),
    ],
)
def test_what_names_become(names: list[str], published: list[str]) -> None:
    assert list(published_names(names, reserved=OWN).values()) == published
