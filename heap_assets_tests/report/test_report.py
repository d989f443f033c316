"""The page tells what is stored, is whole in itself, and gives nobody away."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from heap_assets.quality.result_store import record
from heap_assets.quality.results import CheckResult, Severity, could_not_evaluate, nothing_to_compare
from heap_assets.report import collect, render, write_report
from heap_assets.storage import Lake

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
TODAY = date(2026, 11, 20)


def told(lake: Lake, asset: str, check: str, day: str, result: CheckResult, **options: object) -> None:
    """Store a result the way that a step does."""
    fields: dict[str, object] = {"severity": Severity.ERROR, "blocking": False, "rule": f"{check} holds."} | options
    record(lake.store, result, asset=asset, check=check, partition=day, version="v", **fields)  # type: ignore[arg-type]


def company(lake: Lake, days: int = 30) -> None:
    """Store a month of results of a company with a few troubles on its newest day."""
    for back in range(days, -1, -1):
        day, newest, n = str(TODAY - timedelta(days=back)), back == 0, days - back
        for index in range(14):
            rows = round(4000 / (index + 1) * (1 + 0.3 * math.sin(n * 0.9)) + 9 * n)
            table = f"heap/events/table_{index}"
            bad = newest and index == 2
            told(lake, table, "volume_as_usual", day, CheckResult(not bad, {"rows": rows}), severity=Severity.WARN)
            told(lake, table, "unique_keys", day, CheckResult(True, {"rows": rows}), blocking=True)
            leak = newest and index == 1
            found = pl.DataFrame({"property": ["message"], "kind": ["email"], "value": ["ann@acme.test"]})
            result = CheckResult(
                not leak, {"properties_with_personal_data": int(leak)}, offenders=found if leak else None
            )
            told(lake, table, "no_personal_data", day, result, blocking=True)
        people = {
            "profiles": 2000 + n * 9,
            "identified_profiles": 900 + n * 5,
            "profiles_on_several_identities": 20 + n,
        }
        told(lake, "profiles", "one_identity_per_profile", day, CheckResult(not newest, people), blocking=True)
        twins = {"profiles_with_anonymous_twin": 60 - n}
        told(lake, "profiles", "no_anonymous_twins", day, CheckResult(True, twins), severity=Severity.WARN)
        match = {"matched_crm_id": 0.61 + n / 500, "matched_customer_id": 0.7 - (n > 25) * 0.2}
        told(lake, "identity/graph", "matched_as_before", day, CheckResult(n < 26, match), severity=Severity.WARN)
        sizes = {"1": 300, "2": 500, "3": 640, "5": 410, "10": 80, "20": 3}
        size = CheckResult(True, {"largest_profile": 31}, memory={"sizes": sizes})
        told(lake, "identity/graph", "not_over_merged", day, size, severity=Severity.WARN)
        told(lake, "identity/conflicts", "conflicts_as_usual", day, CheckResult(True, {"conflicts": 40 + n % 5}))
        told(lake, "identity/shared", "shared_as_usual", day, CheckResult(True, {"shared_values": 12}))
        told(lake, "warehouse/crm_contacts", "not_shrunk", day, CheckResult(True, {"rows": 1500 + n}), blocking=True)
        run = {
            "sync": "heap_user_properties",
            "day": date.fromisoformat(day),
            "status": "succeeded",
            "reason": None,
            "finished_at": NOW - timedelta(days=back),
            "planned": 120,
            "sent": 118,
            "rejected": 2,
            "unchanged": 800,
        }
        lake.store.sink(f"_sync/heap_user_properties/runs/{day}/{n:010d}.parquet", pl.DataFrame([run]))
    for asset, hours in (("heap/pageviews", 9.0), ("warehouse/support_tickets", 216.0), ("heap/users", 8.0)):
        recent = CheckResult(
            hours < 66, {"hours_behind": hours, "allowed_hours": 66.0}, {"newest_row": "2026-11-11T23:10"}
        )
        told(lake, asset, "newest_row_is_recent", "all", recent)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


def test_the_page_tells_what_fails_how_new_how_many_and_what_was_sent(lake: Lake) -> None:
    company(lake)
    status = collect(lake, NOW)
    assert [(v.asset, v.check) for v in status.failing] == [
        ("heap/events/table_1", "no_personal_data"),
        ("profiles", "one_identity_per_profile"),
        ("warehouse/support_tickets", "newest_row_is_recent"),
        ("heap/events/table_2", "volume_as_usual"),
        ("identity/graph", "matched_as_before"),
    ]
    page = render(status)
    for part in (
        "3 of 52 checks fail, 2 warn",
        "2 of them block",
        "newest_<wbr>row_<wbr>is_<wbr>recent",
        "People of each system that Heap knows too",
        "Profiles by number of identifiers",
        "heap_<wbr>user_<wbr>properties",
        "20 to 49",
    ):
        assert part in page
    assert status.figures["duplicated"] == 50


def test_what_is_not_judged_has_neither_passed_nor_failed(lake: Lake) -> None:
    day = "2026-11-01"
    for check, result in (
        ("unique_keys", CheckResult(True)),
        ("not_shrunk", nothing_to_compare("there is no earlier snapshot")),
        ("newest_row_is_recent", could_not_evaluate("the column is text")),
    ):
        record(
            lake.store, result, asset="warehouse/crm", check=check, partition=day, version=None,
            severity=Severity.ERROR, blocking=False,
        )  # fmt: skip
    status = collect(lake, datetime(2026, 11, 2, tzinfo=UTC))
    assert status.failing == []
    assert [result.check for result in status.unjudged] == ["newest_row_is_recent", "not_shrunk"]
    assert status.strips["warehouse/crm"][day] == "pass"
    page = render(status)
    assert "All 1 checks pass, 2 are not judged" in page
    assert "there is no earlier snapshot" in page
    assert "1 of 3 pass, 2 not judged" in page


def test_the_page_is_whole_in_itself_and_gives_nobody_away(lake: Lake, tmp_path: Path) -> None:
    company(lake, days=3)
    page = write_report(lake, tmp_path / "out" / "status.html", now=NOW).read_text()
    assert "ann@" not in page
    assert not re.search(r"https?://", page)
    assert "<script" not in page
    assert "url(" not in page


def test_names_cannot_break_the_page(lake: Lake) -> None:
    odd = CheckResult(passed=False, numbers={"rows": 1}, notes={"new": "<script>alert(1)</script>"})
    told(lake, "heap/events/a", "volume_as_usual", str(TODAY), odd, rule="<b>Odd</b>.")
    page = render(collect(lake, NOW))
    assert "<script>" not in page
    assert "<b>Odd" not in page


def test_an_empty_lake_has_a_page_too(lake: Lake) -> None:
    assert "Nothing has been judged yet." in render(collect(lake, NOW))


def test_every_tag_is_closed(lake: Lake) -> None:
    company(lake, days=2)
    open_tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "br", "wbr"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Tags().feed(render(collect(lake, NOW)))
    assert open_tags == []
