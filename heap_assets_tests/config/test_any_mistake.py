"""Whatever is wrong in heap_assets.yaml, it is one message that names the place; nothing else ever escapes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from heap_assets import redaction
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.yaml_core import Unquoted, read_yaml
from heap_assets_tests.examples import examples

FULL = (Path(__file__).parent / "every_key.yaml").read_text()
SECRET = "tok-4f9c2a7be1"
DOCUMENT = read_yaml(FULL, "every_key.yaml")
NAMED_BY_USERS = {
    "checks", "columns", "event_names", "events", "features", "headers", "identifiers", "leave_out", "nulls", "options",
    "properties", "publish", "sources", "staging_options", "sync", "tables", "traits", "users", "pageviews", "*",
    "shared_above", "user_properties", "audiences", "reverse_etl", "transform", "scores", "weights", "signals",
    "analytics", "models", "environments", "personal",
}  # fmt: skip
"""Sections whose keys are names of tables, columns and the like, not of settings."""
NOT_OURS = re.compile(r"0x[0-9a-f]{8}|pydantic|NoneType|<class|dictionary|instance of|discriminator|Unquoted|function-")
"""Words of the libraries, which say nothing to whoever wrote the file."""
ODD = st.sampled_from(
    [None, [], {}, "", " ", "every day", "${NOT_SET}", "${", "${SECRET}", "a" * 3000, "é☃", "a\nb", "a\x07b", ["x"]]
    + [[None], [[["x"]]], {"a": None}, {"a": {"b": ["c"]}}, "[", "(", "*", "!", "2026-02-30", "9999-12-31"]
    + ["../..", "http://", "http://[::1", "https://a b", "s3://", "profiles", "heap", "events", "custom"]
    + [Unquoted(text) for text in ("-1", "0", "1.5", "1e400", ".nan", "true", "9" * 20, "1" * 5000)]
)  # fmt: skip
FEW = settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value below `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield (*path, key)
        yield from places(entry, (*path, key))


PLACES = list(places(DOCUMENT))
KEYS = [
    path
    for path in PLACES
    if isinstance(path[-1], str) and not {*map(str, path[-2:-1])} & NAMED_BY_USERS and path[0] != "checks"
    and not ({"audiences", "leave_out", "signals", "analytics"} & {*map(str, path[:-1])} or path[-1] == "kind")
]  # fmt: skip


def at(path: tuple[str | int, ...]) -> tuple[dict[Any, Any], Any]:
    """Return a copy of the document, and the mapping or list in it that holds the place."""
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for part in path[:-1]:
        holder = holder[part]
    return document, holder


def written(value: Any) -> str:
    """Write a document in YAML's flow style, which keeps what is quoted and what is not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value) if isinstance(value, Unquoted) else json.dumps(value)


def outcome(text: str) -> str:
    """Return the message that settings are refused with, "" if they are taken; anything else is an error."""
    try:
        parse_settings(text, Path("/somewhere/heap_assets.yaml"))
    except SettingsError as error:
        message = str(error)
    else:
        return ""
    assert message.isprintable(), message
    assert message.startswith("heap_assets.yaml"), message
    assert len(message) < 1500, message
    assert SECRET not in message
    assert not NOT_OURS.search(message), message
    return message


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    # what stands for a secret here must not be blanked in the messages of other tests
    monkeypatch.setattr(redaction, "_secrets", type(redaction._secrets)())


def test_every_key_is_understood() -> None:
    assert outcome(FULL) == outcome(written(DOCUMENT)) == ""


@FEW
@given(path=st.sampled_from(PLACES), value=ODD)
@example(path=("sync", "heap_user_properties", "properties"), value={})
def test_another_value(path: tuple[str | int, ...], value: Any) -> None:
    document, holder = at(path)
    holder[path[-1]] = value
    outcome(written(document))


@FEW
@given(path=st.sampled_from(PLACES), other=st.sampled_from(PLACES))
def test_a_value_at_the_place_of_another(path: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    document, holder = at(path)
    holder[path[-1]] = at(other)[1][other[-1]]
    outcome(written(document))


@settings(FEW, max_examples=15)
@given(path=st.sampled_from(KEYS))
def test_a_misspelt_key_is_named(path: tuple[str | int, ...]) -> None:
    document, holder = at(path)
    holder[f"{path[-1]}x"] = holder.pop(path[-1])
    assert f"{path[-1]}x is not a known key. Known: " in outcome(written(document))


@FEW
@given(st.data())
def test_any_damage_to_the_text(data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(FULL)))
    end = data.draw(st.integers(begin, min(begin + 60, len(FULL))) | st.just(begin))
    more = data.draw(st.text(st.sampled_from("{}[]:,'\"\t\n#&*!|>%@`-?\x00\x1b\u2028é "), max_size=3))
    outcome(FULL[:begin] + more + FULL[end:])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kind: s3,",
            "kind: s4,",
            "heap.source.kind is 's4'; expected: one of 'folder', 's3', 'files', 'bigquery', 'warehouse'",
        ),
        ("kind: s3,", "", "heap.source.kind is missing"),
        ("stop: true", "stop: maybe", "heap.quota.stop is 'maybe'; expected: true or false"),
        ("since: 2026-01-01", "since: soon", "since is 'soon'; expected: 'beginning' or a day such as 2026-01-31"),
        ("shared_above: 1}", "shared_above: no}", "shared_above is 'no'; expected: a whole number or keys"),
        ("{snapshot_days: 35", "[35]\nkeeps: {snapshot_days: 35", "keeps is not a known key"),
        ('pattern: "^c"', 'pattern: "("', "identity.identifiers[1]: identifier type crm_id: '(' is no regular expr"),
        ("app_id: 11", "app_id: ١١", "digits"),
        ("cadence_hours: 24", "cadence_hours: !!int 24", "could not determine a constructor for the tag"),
        ("plan: pro", "plan: p\x1bro", "line 7: the character U+001B is not allowed in YAML"),
        (
            "exclude_events: [",
            "exclude_events: 3\n      events2: [",
            "profiles.audiences.hesitating.events2 is unknown",
        ),
        ("events: [{type: pageviews", "events: [3, {type: pageviews", "events[0] is '3', expected a mapping."),
    ],
)
def test_the_message_says_what_was_expected(old: str, new: str, message: str) -> None:
    assert old in FULL
    assert message in outcome(FULL.replace(old, new, 1))
