"""What `make torture` names exists, and the commands of docs/reliability.md can be pasted as they stand."""

from __future__ import annotations

import re
import shlex

import pytest

from heap_assets_tests.torture.__main__ import PARTS, ROOT, TESTS, arguments

GUIDE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r'`make torture ARGS="([^"`]+)"`', GUIDE)))


@pytest.mark.parametrize("name", TESTS)
def test_the_files_of_a_test_exist_and_read_how_much_is_asked(name: str) -> None:
    _, files, variable, count = TESTS[name]
    sources = [(ROOT / "heap_assets_tests" / file).read_text(encoding="utf-8") for file in files]
    assert all("\ndef test_" in source for source in sources)
    assert any(variable in source for source in sources)
    assert not count or getattr(arguments([]), count) > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_guide_is_one(command: str) -> None:
    assert set(arguments(shlex.split(command)).only or []) <= set(PARTS)


def test_the_guide_has_commands_and_the_table_has_no_other() -> None:
    assert len(COMMANDS) > 10
    assert not re.findall(r"^\|[^|]*\| `(?!make torture ARGS=)[^`]*`", GUIDE, re.MULTILINE)
