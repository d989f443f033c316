"""Rules of masking: by name, by form, by element; on rows as they land, and on a dry run that changes nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.cli.mask import mask
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.errors import SettingsError
from heap_assets.privacy import Masker, MaskRule, SelectorError, parsed_selector
from heap_assets.project import open_project, parse_settings
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

KEY = b"0" * 32
KEYS = ("event_id", "user_id", "time")
SETTINGS = """
start_date: 2026-01-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ./bucket}}
identity: {identifiers: [{type: heap_identity}, {type: heap_user_id}]}
privacy:
  pseudonyms: ./map
  rules:
    - {action: drop, columns: ["*password*"]}
    - {action: mask, kinds: [email, card_number, social_security_number, ip_address, phone]}
    - {action: hash, columns: [member], tables: [signup]}
    - {action: mask, selector: "input.card#pan"}
"""


def rows(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"event_id": range(len(next(iter(columns.values())))), **columns})


def test_kinds_of_values_are_masked_where_they_stand_and_what_only_looks_like_one_is_not() -> None:
    masker = Masker(
        [MaskRule("mask", kinds=("email", "card_number", "social_security_number", "phone"))], KEY, ["signup"], KEYS
    )
    frame = rows(
        note=[
            "mail ann@x.example now",
            "paid with 4111 1111 1111 1111.",
            "4111 1111 1111 1112",
            "ssn 123-45-6789!",
            "000-12-3456",
        ],
        phone=["+49 151 5550123", None, "call me", "1", "2026"],
    )
    hits = masker.applied(frame)
    assert hits.rows["note"].to_list() == [
        "mail [email] now",
        "paid with [card_number].",
        "4111 1111 1111 1112",
        "ssn [social_security_number]!",
        "000-12-3456",
    ]
    assert hits.rows["phone"].to_list() == ["[phone]", None, "call me", "1", "2026"]
    assert dict(hits.cells) == {(0, "note"): 3, (0, "phone"): 1}


@given(st.lists(st.text(min_size=1), min_size=1))
def test_pseudonyms_are_the_same_for_equal_values_and_tell_others_apart(values: list[str]) -> None:
    rule = MaskRule("hash", columns=("member",))
    first = Masker([rule], KEY, ["a"], KEYS).applied(rows(member=values))
    second = Masker([rule], KEY, ["b"], KEYS).applied(rows(member=values[::-1]))
    assert first.rows["member"].to_list() == second.rows["member"].to_list()[::-1]
    assert first.rows["member"].n_unique() == len(set(values))
    assert first.pseudonyms == dict(zip(values, first.rows["member"], strict=True))
    assert (
        Masker([rule], b"1" * 32, ["a"], KEYS).applied(rows(member=values)).rows["member"][0] != first.rows["member"][0]
    )


def test_keys_are_never_touched_and_numbers_stay_numbers_when_they_are_dropped() -> None:
    frame = rows(user_id=[1, 2], amount=[3, 4])
    hits = Masker([MaskRule("drop", columns=("*",))], KEY, ["a"], KEYS).applied(frame)
    assert hits.rows.schema == frame.schema
    assert hits.rows.rows() == [(0, 1, None), (1, 2, None)]


@pytest.mark.parametrize(
    ("selector", "matched"),
    [("input", [0, 1]), ("#pan", [0]), (".card", [0, 2]), ("input.card#pan", [0]), ("INPUT.card", [0]), ("p.x", [])],
)
def test_a_selector_is_matched_with_the_element_alone(selector: str, matched: list[int]) -> None:
    frame = rows(
        target_tag=["input", "input", "div"], target_id=["#pan", None, "x"], target_class=["card big", "", "card"],
        target_text=["4111", "hello", "text"],
    )  # fmt: skip
    hits = Masker([MaskRule("mask", selector=parsed_selector(selector))], KEY, ["click"], KEYS).applied(frame)
    assert hits.rows.with_row_index().filter(target_text="[masked]")["index"].to_list() == matched
    assert (
        Masker([MaskRule("mask", selector=parsed_selector(selector))], KEY, ["a"], KEYS)
        .applied(frame.drop("target_tag", "target_id", "target_class"))
        .cells
        == {}
    )


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("form input", "an ancestor"),
        ("form > input", "an ancestor"),
        ("input[type=password]", "attributes"),
        ("a:hover", "the state"),
        ("a, b", "two rules"),
        ("", "no selector"),
    ],
)
def test_a_selector_that_needs_more_than_the_element_is_refused_with_that_reason(selector: str, why: str) -> None:
    with pytest.raises(SelectorError, match=why):
        parsed_selector(selector)


def project_of(tmp_path: Path, settings: str = SETTINGS):  # type: ignore[no-untyped-def]
    (tmp_path / "heap_catalogue.yaml").write_text(
        "signup: {display_name: Signed up, columns: {note: {description: x, pii: false}}}\n"
    )
    file = tmp_path / "heap_assets.yaml"
    file.write_text(settings)
    return open_project(parse_settings(settings, file))


def land(tmp_path: Path, settings: str = SETTINGS):  # type: ignore[no-untyped-def]
    bucket = Bucket(tmp_path / "bucket")
    signup = [
        event(1, "2026-02-01 10:00:00", 5, member="m-1", user_password="hunter2", note="mail zed@x.example"),
        event(2, "no time", 6, member="m-2", user_password="hunter3", note="mail yan@x.example"),
    ]
    bucket.dump(1, "2026-02-02T02:00:00", signup=signup, users=[{"user_id": 5, "last_modified": "2026-02-01 00:00:00"}])
    project = project_of(tmp_path, settings)
    project.landing.land(bucket.source, 1)
    return project


def test_rows_land_masked_those_that_are_set_aside_too(tmp_path: Path) -> None:
    project = land(tmp_path)
    record = project.landing.records()[1].tables["signup"]
    assert record.counts.masked == 6
    content = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*.parquet"))
    stored = [pl.read_parquet(path) for path in (tmp_path / "lake/_landing/signup").rglob("*.parquet")]
    text = content + "".join(frame.write_ndjson() for frame in stored).encode()
    for value in (b"hunter", b"@x.example", b"m-1", b"m-2"):
        assert value not in text
    assert b"[email]" in text
    pairs = pl.concat([pl.read_parquet(path) for path in (tmp_path / "map").glob("*.parquet")])
    assert set(pairs["value"]) == {"m-1", "m-2"}
    assert all(pseudonym.encode() in text for pseudonym in pairs["pseudonym"])


def test_a_rule_that_fails_refuses_the_table_and_names_no_value(tmp_path: Path) -> None:
    project = land(tmp_path, SETTINGS.replace("action: mask, kinds", "action: fail, kinds"))
    failure = project.landing.records()[1].tables["signup"].failure
    assert failure is not None
    assert failure.reason == "privacy.rules[1] refuses signup: 2 values of its column note"
    assert "users" in project.landing.tables()


def test_a_dry_run_counts_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of(tmp_path)
    frame = rows(user_id=[1], member=["m-1"], note=["mail zed@x.example"])
    project.lake.write("heap/events/signup", "2026-02-01", frame)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "heap_assets.yaml"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = CliRunner().invoke(mask, catch_exceptions=False).output
    assert [line.split() for line in said.splitlines()[1:]] == [
        ["signup", "2026-02-01", "privacy.rules[1]", "mask", "note", "1"],
        ["signup", "2026-02-01", "privacy.rules[2]", "hash", "member", "1"],
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_selector_of_the_settings_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"privacy.rules\[3\].selector: .* needs an ancestor"):
        project_of(tmp_path, SETTINGS.replace("input.card#pan", "form input"))
