"""What is taken of the news: everything, tables, or columns one by one."""

from __future__ import annotations

import pytest

from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect import Catalogue, Missing
from heap_assets.sources.heap_connect.catalogue import CatalogueTable

NEWS = Missing({"sign_up": ("plan", "cart value"), "a.b": ("x",)}, {"pageviews": ("path", "title")})


@pytest.mark.parametrize(
    ("only", "picked"),
    [
        (None, {**NEWS.tables, **NEWS.columns}),
        (["sign_up"], {"sign_up": ("plan", "cart value")}),
        (["pageviews.title"], {"pageviews": ("title",)}),
        (["pageviews.title", "pageviews.path"], {"pageviews": ("title", "path")}),
        (["sign_up.cart value", "a.b", "a.b.x"], {"sign_up": ("cart value",), "a.b": ("x",)}),
    ],
)
def test_tables_and_columns_are_picked_by_name(only: list[str] | None, picked: dict[str, tuple[str, ...]]) -> None:
    assert NEWS.selected(only) == picked


@pytest.mark.parametrize("name", ["signup", "pageviews.tite", "a"])
def test_what_is_not_new_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} brings nothing new"):
        NEWS.selected([name])


def test_a_column_taken_alone_leaves_the_others_reported() -> None:
    known = Catalogue({"pageviews": CatalogueTable("Viewed a page")}).accept(NEWS, ["pageviews.title"])
    assert known.columns("pageviews") == ["title"]
    assert known.columns("sign_up") is None
    assert known.compare({"pageviews": ["path", "title"]}).columns == {"pageviews": ("path",)}
