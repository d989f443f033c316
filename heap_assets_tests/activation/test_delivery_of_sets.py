"""Audiences as sets: who entered and who left since what was acknowledged; consent; how values and identifiers look."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import delivery_kit as kit
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Call, Say, scripted

from heap_assets.activation import (
    NORMALISERS,
    BaseDestination,
    Exchange,
    Limits,
    Mode,
    Recipe,
    Request,
    Response,
    Row,
    Status,
    SyncReport,
    SyncSpec,
    ValueRules,
    Verdict,
    deliver,
)
from heap_assets.activation.engine.value_rules import sha256_hex
from heap_assets.errors import SettingsError
from heap_assets.storage import Store


class Audience(BaseDestination):
    """Adds and removes are calls of their own."""

    kind, mode = "audience", Mode.SET
    limits = Limits(batch_rows=3)
    recipes: Mapping[str, Recipe] = {"EMAIL": Recipe("email"), "PHONE": Recipe("phone_digits")}

    def __init__(self, url: str) -> None:
        self.url = url

    def element(self, row: Row) -> Any:
        return {"id": row.key, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        assert len({row.removed for row in rows}) == 1
        body = b"[" + b",".join(elements) + b"]"
        return Request(f"{self.url}/members", body, "DELETE" if rows[0].removed else "POST")


class Replaced(Audience):
    """Can only be given whole: one session of ordered batches."""

    replaces = True

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        members = [element for element, row in zip(elements, rows, strict=True) if not row.removed]
        parts = [members[at : at + 2] for at in range(0, len(members), 2)] or [[]]
        for number, part in enumerate(parts, 1):
            path = f"/replace?seq={number}&last={int(number == len(parts))}"
            response = yield Request(self.url + path, b"[" + b",".join(part) + b"]")
        return self.verdict(response, rows)


class Members:
    """What the vendor holds."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.session: dict[str, dict[str, Any]] = {}

    def __call__(self, call: Call) -> Say:
        rows = {row.pop("id"): row for row in call.json}
        if call.path == "/replace":
            self.session = {**(self.session if call.query["seq"] != "1" else {}), **rows}
            if call.query["last"] == "1":
                self.held = self.session
        elif call.method == "POST":
            self.held |= rows
        else:
            self.held = {key: row for key, row in self.held.items() if key not in rows}
        return Say(200, {})


def members(*names: str, **columns: list[Any]) -> pl.DataFrame:
    frame = pl.DataFrame({"key": list(names), "email": [f"{name}@x.example" for name in names]})
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def send(url: str, lake: Store, rows: pl.DataFrame, kind: type[Audience] = Audience, **choices: Any) -> SyncReport:
    spec = SyncSpec("users", choices.pop("properties", {"EMAIL": "email"}), retry=kit.QUICK, **choices)
    return deliver(spec, kind(url), rows.lazy(), lake, kit.DAY, "r", confirmed=True)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_those_who_entered_are_added_and_those_who_left_are_removed(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        assert send(server.url, lake, members("a", "b", "c", "d")).sent == 4
        assert send(server.url, lake, members("a", "b", "c", "d")).requests == 0
        report = send(server.url, lake, members("b", "c", "e"))
    assert (report.added, report.removed, report.unchanged) == (1, 2, 2)
    assert [call.method for call in server.calls[2:]] == ["DELETE", "POST"]
    assert vendor.held == {name: {"EMAIL": sha(f"{name}@x.example")} for name in "bce"}
    kit.assert_ledger_is_the_log(lake)


def test_who_came_back_is_added_again_and_a_set_without_properties_is_one_too(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        for names in ("ab", "a", "ab", "", "b"):
            rows = members(*names).with_columns(pl.col("key", "email").cast(pl.String))
            send(server.url, lake, rows, properties={})
            assert vendor.held == {name: {} for name in names}


def test_who_is_known_to_be_no_member_is_removed_with_what_is_known_of_him(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        send(server.url, lake, members("a", "b", member=[True, True]))
        send(server.url, lake, members("a", "b", "c", member=[True, False, False]))
    assert server.calls[-1].method == "DELETE"
    assert server.calls[-1].json == [{"id": "b", "EMAIL": sha("b@x.example")}]
    assert set(vendor.held) == {"a"}


def test_without_consent_nobody_is_added_and_who_withdraws_it_is_removed(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        first = send(server.url, lake, members("a", "b", "c", ok=[True, None, False]), consent="ok")
        assert (first.sent, first.no_consent, set(vendor.held)) == (1, 2, {"a"})
        second = send(server.url, lake, members("a", "b", "c", ok=[False, True, False]), consent="ok")
        assert (second.sent, second.removed, set(vendor.held)) == (2, 1, {"b"})
        with pytest.raises(SettingsError, match=r"consent is 'email', which is String"):
            send(server.url, lake, members("a"), consent="email")


def test_without_consent_an_upsert_sends_nothing_of_a_person_and_withdraws_nothing(lake: Store) -> None:
    class Upsert(Audience):
        mode = Mode.UPSERT

    vendor = Members()
    with scripted(vendor) as server:
        send(server.url, lake, members("a", "b", ok=[True, True]), Upsert, consent="ok")
        changed = members("a", "b", ok=[True, False]).with_columns(email=pl.lit("new@x.example"))
        report = send(server.url, lake, changed, Upsert, consent="ok")
    assert (report.sent, report.no_consent, report.withdrawn) == (1, 1, 0)
    assert vendor.held == {"a": {"EMAIL": sha("new@x.example")}, "b": {"EMAIL": sha("b@x.example")}}


def test_a_set_that_is_replaced_is_given_whole_in_one_ordered_session(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        send(server.url, lake, members(*"abcde"), Replaced)
        assert [call.query for call in server.calls] == [
            {"seq": "1", "last": "0"}, {"seq": "2", "last": "0"}, {"seq": "3", "last": "1"},
        ]  # fmt: skip
        assert send(server.url, lake, members(*"abcde"), Replaced).requests == 0
        report = send(server.url, lake, members(*"bcdef"), Replaced)
        assert (report.added, report.removed, report.unchanged, set(vendor.held)) == (1, 1, 4, set("bcdef"))
        assert send(server.url, lake, members(*"bcdef"), Replaced).requests == 0
    kit.assert_ledger_is_the_log(lake)


def test_a_set_that_goes_whole_is_never_sent_in_parts_when_it_is_refused(lake: Store) -> None:
    class Refused(Replaced):
        def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
            return Verdict(rest="not_applied", reason="too small")

    vendor = Members()
    with scripted(vendor) as server:
        report = send(server.url, lake, members(*"abcde"), Refused)
        assert (report.status, report.reason) == (Status.STOPPED, "the set was refused: too small")
        assert [call.query["seq"] for call in server.calls] == ["1", "2", "3"]
        assert send(server.url, lake, members(*"abcde"), Replaced).sent == 5
    assert set(vendor.held) == set("abcde")


class ByEmail(Audience):
    """The key is an identifier."""

    key_recipe = Recipe("email")

    def element(self, row: Row) -> Any:
        return {"id": row.identifier, **row.values}


def test_a_key_that_is_an_identifier_goes_as_its_hash_also_when_nothing_else_is_known(lake: Store) -> None:
    vendor = Members()
    with scripted(vendor) as server:
        keys = [" Ann@X.example", "bob@x.example", "BOB@x.example", "nobody", sha("c"), "dan@x.example"]
        report = send(server.url, lake, pl.DataFrame({"key": keys}), ByEmail, properties={})
        assert report.invalid_reasons == {
            "another key is the same once both are normalised": 2, "key is hashed already": 1, "key is no email": 1,
        }  # fmt: skip
        assert set(vendor.held) == {sha("ann@x.example"), sha("dan@x.example")}
        send(server.url, lake, pl.DataFrame({"key": keys[-1:]}), ByEmail, properties={})
        assert set(vendor.held) == {sha("dan@x.example")}


def test_rows_that_are_counted_and_not_named_are_rejections_of_the_run(lake: Store) -> None:
    class Counts(Audience):
        def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
            return Verdict(unnamed={"too old": 1})

    with scripted(Members()) as server:
        report = send(server.url, lake, members(*"abcde"), Counts)
        assert (report.status, report.sent, report.rejected) == (Status.PARTIAL, 3, 2)
        assert report.rejections == {"too old": 2}
        assert send(server.url, lake, members(*"abcde"), Counts).requests == 0


@settings(max_examples=15, deadline=None)
@given(
    rounds=st.lists(st.sets(st.sampled_from("abcdefgh")), min_size=1, max_size=5),
    refuse=st.sets(st.integers(1, 12)),
    kind=st.sampled_from([Audience, Replaced]),
)
def test_whatever_is_refused_on_the_way_the_set_ends_as_it_should_be(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[set[str]], refuse: set[int], kind: type[Audience]
) -> None:
    vendor, lake = Members(), kit.store(tmp_path_factory.mktemp("lake"))

    def answer(call: Call) -> Say:
        return Say(503, {}) if len(server.calls) in refuse else vendor(call)

    with scripted(answer) as server:
        for names in rounds:
            rows = members(*sorted(names)).with_columns(pl.col("key", "email").cast(pl.String))
            send(server.url, lake, rows, kind)
            server.answer = vendor
            send(server.url, lake, rows, kind)
            assert set(vendor.held) == names
            server.answer = answer
    kit.assert_ledger_is_the_log(lake)


def test_identifiers_are_hashed_once_and_never_twice(lake: Store) -> None:
    vendor = Members()
    rows = members("a", "b", "c").with_columns(
        email=pl.Series([" Ann@X.example ", sha("b@x.example"), "nobody"]),
        phone=pl.Series(["+49 (151) 234-5678", None, "0151 2345678"]),
    )
    properties = {"EMAIL": "email", "PHONE": "phone"}
    with scripted(vendor) as server:
        report = send(server.url, lake, rows, properties=properties)
        assert report.invalid_reasons == {"EMAIL is hashed already: list it under `hashed`": 1}
        assert vendor.held == {"a": {"EMAIL": sha("ann@x.example"), "PHONE": sha("491512345678")}, "c": {}}
        hashed = rows.with_columns(email=pl.Series([sha("a").upper(), sha("b"), "plain@x.example"]))
        send(
            server.url, kit.store(Path(lake.url) / "other"), hashed, properties=properties, hashed=frozenset({"EMAIL"})
        )
    assert [vendor.held[name].get("EMAIL") for name in "abc"] == [sha("a"), sha("b"), None]


@pytest.mark.parametrize(
    ("recipe", "value", "expected"),
    [
        ("email", "  Alex.Z+news@Example.COM ", "alex.z+news@example.com"),
        ("email", "two@at@x", None),
        ("email_without_dots", "Jeffer.Son.Lov+x@GMail.com", "jeffersonlov+x@gmail.com"),
        ("email_without_dots", "a.b@example.com", "a.b@example.com"),
        ("email_without_suffix", "Jeffer.Son.Lov+x@GMail.com", "jeffersonlov@gmail.com"),
        ("email_without_suffix", "a.b+c@example.com", "a.b+c@example.com"),
        ("phone_e164", "1 (800) 555-0100", None),
        ("phone_e164", "+1 (800) 555-0100", "+18005550100"),
        ("phone_e164", "0049 151 2345678", "+491512345678"),
        ("phone_digits", "+1-800-555-0100", "18005550100"),
        ("name", " Ößtürk ", "ößtürk"),
        ("name_without_punctuation", "O'Neil-Smith.", "oneilsmith"),
        ("first_letter", "  Ann", "a"),
        ("gender", "Female", "f"),
        ("gender", "diverse", None),
        ("city", "St. Louis 2", "stlouis"),
        ("country", "DE", "de"),
        ("country", "Germany", None),
        ("country_upper", "de", "DE"),
        ("postal_code", " SW1A-1 AA", "sw1a1aa"),
        ("year", "1984", "1984"),
        ("year", "84", None),
        ("two_digits", " 3 ", "03"),
        ("two_digits", "2026-03", None),
    ],
)
def test_each_recipe_writes_an_identifier_as_its_vendor_does(recipe: str, value: str, expected: str | None) -> None:
    written = pl.DataFrame({"v": [value, None]}).select(v=NORMALISERS[recipe](pl.col("v")))["v"].to_list()
    assert written == [expected, None]


def test_hashes_are_those_of_published_examples() -> None:
    digests = sha256_hex(pl.Series(["alexz@example.com", "+18005550100", None])).to_list()
    assert [digest and digest[:16] for digest in digests] == ["509e933019bb285a", "fb4f73a6ec5fdb70", None]


class Typed(Audience):
    mode = Mode.UPSERT
    recipes: Mapping[str, Recipe] = {}
    values = ValueRules("", "text", "text", "ms", "%d.%m.%Y", longest=4, too_long="truncate", name=r"[a-z_]+")


def test_values_look_as_the_destination_takes_them(lake: Store) -> None:
    vendor = Members()
    rows = pl.DataFrame(
        {
            "key": ["a"],
            "flag": [True],
            "seats": [7],
            "at": [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)],
            "on": [date(2026, 1, 2)],
            "text": ["äöü€😀x"],
        }
    )
    names = {name: name for name in ("flag", "seats", "at", "on", "text")}
    with scripted(vendor) as server:
        send(server.url, lake, rows, Typed, properties=names)
        expected = {"flag": "true", "seats": "7", "at": 1767323045000, "on": "02.01.2026", "text": "äöü€"}
        assert vendor.held == {"a": expected}
        send(server.url, lake, rows.with_columns(flag=pl.lit(None, pl.Boolean)), Typed, properties=names)
        assert vendor.held == {"a": {**expected, "flag": ""}}
        with pytest.raises(SettingsError, match=r"'Flag' has a name that the destination does not take"):
            send(server.url, lake, rows, Typed, properties={"Flag": "flag"})


@given(text=st.text(max_size=12), longest=st.integers(0, 8), unit=st.sampled_from(["characters", "utf16", "bytes"]))
def test_a_text_is_cut_at_a_character_and_is_as_long_as_may_be(text: str, longest: int, unit: Any) -> None:
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return
    code, width = {"characters": ("utf-32-le", 4), "utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}[unit]
    rules = ValueRules(longest=longest, unit=unit, too_long="truncate")
    frame = pl.DataFrame({"v": [text]}, schema={"v": pl.String})
    [cut] = frame.select(rules.applied(pl.col("v"), pl.String(), lambda: pl.col("v")))["v"]
    assert text.startswith(cut)
    assert len(cut.encode(code)) <= longest * width
    assert cut == text or len(text[: len(cut) + 1].encode(code)) > longest * width
