"""`heap-assets schema`: editors accept what is right and refuse a misspelt key, as a JSON Schema validator does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from heap_assets.cli.main import _group as commands
from heap_assets.config import settings_path
from heap_assets.yaml_core import core, read_yaml

ROOT = Path(__file__).parent.parent.parent
EVERY_KEY = ROOT / "heap_assets_tests" / "config" / "every_key.yaml"
BUCKET, NOWHERE = ["--bucket", "heap-rs3-acme"], ["--endpoint-url", "http://127.0.0.1:9"]
NAMED_BY_USERS = ("traits", "sync", "sources", "publish", "tables", "identifiers", "columns", "leave_out", "audiences",
                  "features", "properties", "nulls", "options", "staging_options", "headers", "event_names", "users",
                  "events", "shared_above", "reverse_etl", "transform", "enrich", "models", "scores",
                  "weights", "reports", "environments", "body", "values")  # fmt: skip
"""Sections whose keys are names that users choose."""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    printed = CliRunner().invoke(commands, ["schema", "--out", "-"])
    assert printed.exit_code == 0, printed.output
    document: dict[str, Any] = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    return document


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def as_editors_read(text: str) -> Any:
    """Read YAML by its core schema, as an editor does."""
    return core(read_yaml(text, "heap_assets.yaml"))


@pytest.mark.parametrize("path", [ROOT / "heap_assets.yaml", EVERY_KEY], ids=lambda path: path.name)
def test_settings_that_are_right_are_accepted(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(as_editors_read(path.read_text()))] == []


@pytest.mark.parametrize("options", [[], [*BUCKET, *NOWHERE], ["--folder", "."]], ids=str)
def test_what_init_writes_names_its_schema_and_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], schema: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    for name in ("HEAP_APP_ID", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "1")
    done = CliRunner().invoke(commands, ["init", *options])
    assert done.exit_code == 0, done.output
    text = settings_path().read_text()
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=./")
    beside = json.loads((tmp_path / first.partition("=")[2]).read_text())
    assert beside == schema
    assert list(jsonschema.Draft202012Validator(beside).iter_errors(as_editors_read(text))) == []


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the places of all keys of settings, those that users choose left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        place = (*path, key)
        free = {"audiences", "leave_out", "options", "signals", "analytics"} & {*place[:-1]}
        if isinstance(key, str) and not free and (not path or path[-1] not in NAMED_BY_USERS):
            yield place
        yield from keys(entry, place)


DOCUMENT = as_editors_read(EVERY_KEY.read_text())


@pytest.mark.parametrize("place", list(keys(DOCUMENT)), ids=lambda place: ".".join(map(str, place)))
def test_a_misspelt_key_is_refused(validator: jsonschema.Draft202012Validator, place: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for part in place[:-1]:
        holder = holder[part]
    holder[f"{place[-1]}x"] = holder[place[-1]]
    assert not validator.is_valid(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("heap", "region"), "mars"),
        (("heap", "cadence_hours"), 0),
        (("heap", "cadence_hours"), "often"),
        (("identity", "identifiers"), []),
        (("sync", "heap_events", "kind"), "heap_evnts"),
        (("sync", "own", "kind"), None),
        (("start_date",), "soon"),
        (("warehouse", "kind"), "oracle"),
        (("checks", "duplicate_profiles"), "few"),
        (("alerts",), [{"kind": "pigeon"}]),
        (("publish", "Reports"), {"kind": "postgres", "dsn": "${SECRET}"}),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    validator: jsonschema.Draft202012Validator, key: tuple[str, ...], value: object
) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder = document
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = value
    assert not validator.is_valid(document)


@pytest.mark.parametrize(
    "key", [("heap", "region"), ("heap", "cadence_hours"), ("start_date",), ("keep", "month_ends")]
)
def test_a_variable_may_stand_for_any_value(validator: jsonschema.Draft202012Validator, key: tuple[str, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder = document
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = "${FROM_THE_ENVIRONMENT:-1}"
    assert list(validator.iter_errors(document)) == []


def test_a_sync_is_of_the_kind_that_it_is_called_or_that_it_names(validator: jsonschema.Draft202012Validator) -> None:
    document = copy.deepcopy(DOCUMENT)
    hook = document["sync"]["hook"]
    document["sync"]["heap_events"] = hook
    assert validator.is_valid(document)
    document["sync"]["heap_events"] = {name: value for name, value in hook.items() if name != "kind"}
    assert not validator.is_valid(document)


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    models = {"": schema, **schema["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, model in models.items()
        for key, value in model.get("properties", {}).items()
        if "const" not in value and not models.get(str(value.get("$ref")).rpartition("/")[2], value).get("description")
    ]
    assert not bare
    assert schema["properties"]["checks"]["properties"]["duplicate_profiles"]["default"] == 0.02
    assert schema["$defs"]["HeapSettings"]["properties"]["cadence_hours"]["default"] == 24
