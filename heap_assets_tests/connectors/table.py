"""The table in the docs of which connector passes which cases: `python -m heap_assets_tests.connectors.table`."""

from __future__ import annotations

import importlib
from pathlib import Path

from heap_assets_tests.connectors.suite import CASES, ConnectorSuite

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "connector_tests.md"
_PAGE = """# What each connector was tested with

Generated from the tests by `python -m heap_assets_tests.connectors.table`; do not edit.

Every connector passes one suite, against a local server that was written from the vendor's documents and keeps their
rules. No connector was run against the vendor itself. A dash: there is no such case, for the reason below.
"""
_AGAIN = "the row is sent again"
_TWICE = {
    "natural": ("does no harm", _AGAIN),
    "window": ("is dropped for a while", f"{_AGAIN} in that time; later it is `unknown`"),
    "none": ("counts twice", "the row is `unknown`, not sent again, and the check `nothing_unanswered` names it"),
}
"""By dedupe contract."""


def suites() -> list[type[ConnectorSuite]]:
    """Return the suites of all connectors, by name."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"{__package__}.{file.stem}")
    found, left = [], [ConnectorSuite]
    while left:
        below = left.pop().__subclasses__()
        left += below
        found += [one for one in below if one.__name__.startswith("Test")]
    return sorted(found, key=lambda one: one.__name__)


def page() -> str:
    """Return the page of docs/ with the table of connectors and cases."""
    names = {one: one.__name__.removeprefix("Test") for one in suites()}
    lines = [
        _PAGE,
        "| Case | What is tested |\n| --- | --- |",
        *(f"| `{case}` | {what} |" for case, what in CASES.items()),
    ]
    lines += [
        "",
        "| Connector | " + " | ".join(f"`{case}`" for case in CASES) + " |",
        "| --- |" + " --- |" * len(CASES),
    ]
    for one, name in names.items():
        lines.append(f"| {name} | " + " | ".join("–" if case in one.missing() else "yes" for case in CASES) + " |")
    lines.append("\n## A row that arrives twice\n\n| Connector | It | A lost answer |\n| --- | --- | --- |")
    lines += [f"| {name} | {' | '.join(_TWICE[one.dedupe])} |" for one, name in names.items()]
    lines.append("\n## What does not exist there\n\n| Connector | Case | Why |\n| --- | --- | --- |")
    lines += [f"| {name} | `{case}` | {why} |" for one, name in names.items() for case, why in one.missing().items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
