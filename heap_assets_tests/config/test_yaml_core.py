"""Settings files are YAML 1.2, and a value is what its reader asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.yaml_core import Unquoted, core, line_of, read_large_yaml, read_yaml, unquoted, write_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NO", "NO"), ("off", "off"), ("yes", "yes"), ("y", "y"), ("12:30", "12:30"), ("190:20:30", "190:20:30"),
        ("1_000", "1_000"), ("2026-11-01", "2026-11-01"), ("2026-13-01", "2026-13-01"), ("0b1", "0b1"),
        ("01234", 1234), ("1.10", 1.1), ("0o17", 15), ("0x1F", 31), ("-7", -7), ("1e3", 1000.0), (".5", 0.5),
        ("-.inf", float("-inf")), ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ('"5"', "5"), ("'true'", "true"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(written: str, value: object) -> None:
    read = core(read_yaml(f"key: {written}", "file"))["key"]
    assert (read, type(read)) == (value, type(value))


@given(st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{0,6})?(e[0-9]{1,2})?", fullmatch=True))
def test_an_unquoted_number_keeps_its_text(text: str) -> None:
    read = read_yaml(f"key: {text}", "file")["key"]
    assert (str(read), isinstance(read, Unquoted)) == (text, True)
    assert read.value == float(text) if "." in text or "e" in text else read.value == int(text)


@pytest.mark.parametrize(
    "digits", ["1" * 5_000, "-" + "1" * 401, "0x" + "f" * 5_000, "1." + "1" * 5_000, "1e" + "9" * 5_000]
)
def test_a_number_that_nobody_means_is_text(digits: str) -> None:
    """Python converts no decimal of more than 4,300 digits."""
    assert core(read_yaml(f"key: {digits}", "file"))["key"] == digits
    assert core(read_yaml(f"key: {'1' * 400}", "file"))["key"] == int("1" * 400)


@example("\x85")
@given(
    st.recursive(st.text() | st.none(), lambda leaf: st.lists(leaf) | st.dictionaries(st.text(), leaf), max_leaves=8)
)
def test_what_is_written_is_read_as_it_was(document: object) -> None:
    assert read_yaml(write_yaml(document), "file") == document
    assert read_large_yaml(write_yaml(document), "file") == document


@pytest.mark.parametrize("name", ["heap_catalogue.yaml", "heap_assets.yaml"])
def test_a_large_file_is_read_as_any_other(name: str) -> None:
    text = (Path(__file__).parent.parent.parent / name).read_text()
    plain, fast = read_yaml(text, name), read_large_yaml(text, name)
    assert core(fast) == core(plain)
    assert fast == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "file, line 4: the key 'c' stands twice, first on line 3"),
        ("a: 1\n'a': 2", "file, line 2: the key 'a' stands twice, first on line 1"),
        ("a: {b: 1, b: 1}", "file, line 1: the key 'b' stands twice"),
        ("a: 1\nb: [", "file, line 2: "),
        ("? [x]\n: 1", "file, line 1: a key is a list or a mapping"),
        ("a: !python/name:os.system x", "file, line 1: could not determine a constructor"),
        ("a: 1\nb: \x00", "file, line 2: the character U+0000"),
        ("[" * 5000, "file is not YAML"),
    ],
)
def test_a_mistake_names_file_and_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_large_yaml(text, "file")
    with pytest.raises(SettingsError, match=re.escape(str(caught.value))):
        read_yaml(text, "file")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_merge_keys_are_followed_and_overridden() -> None:
    assert read_yaml("base: &b {x: a, y: b}\nnext: {<<: *b, y: c}", "file")["next"] == {"x": "a", "y": "c"}


def test_the_line_of_a_path_is_that_of_its_deepest_part() -> None:
    text = "a:\n  b:\n    - c: 1\n    - d: 2\n"
    assert [line_of(text, path) for path in (("a", "b", 1, "d"), ("a", "b", 5), ("a", "x"), ("x",))] == [4, 2, 1, None]


def test_filled_in_text_counts_as_unquoted() -> None:
    assert [type(unquoted(text)) for text in ("01234", "NO", "true")] == [Unquoted, str, Unquoted]


def test_a_catalogue_may_have_tables_and_columns_called_no_or_on(tmp_path: Path) -> None:
    file = tmp_path / "heap_catalogue.yaml"
    file.write_text("no:\n  display_name: No\n  columns:\n    on: {description: 007, pii: true}\n    1.10:\n")
    known = Catalogue.load(file).tables["no"].columns
    assert {name: (column.description, column.pii) for name, column in known.items()} == {
        "on": ("007", True),
        "1.10": ("", False),
    }
    file.write_text("no:\n  columns:\n    on: {pii: maybe}\n")
    with pytest.raises(SettingsError, match=r"no\.columns\.on\.pii is 'maybe'; expected true or false"):
        Catalogue.load(file)
