"""What holds of every command: exit status, JSON where it prints a table, completion, progress, a place in the docs."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from heap_assets.cli.docs import cli_page, leaves
from heap_assets.cli.main import _group as commands
from heap_assets.cli.main import main

ROOT = Path(__file__).parent.parent.parent
COMMANDS = dict(leaves(commands))
WITHOUT_A_TABLE = {
    *(
        "init",
        "schema",
        "catalogue accept",
        "reset",
        "report",
        "dev",
        "live",
        "warm",
        "completion",
        "docs",
        "decide",
        "function new",
        "signal template",
        "labels pull",
    ),
    *("sync run", "sync confirm", "sync retry", "sync resend", "sync forget"),
    *("erase confirm", "erase cancel", "erase lift"),
}
ARGUMENTS = {
    "bi": ["dbt"],
    "labels diff": ["file", "file"],
    **{f"labels {name}": ["production"] for name in ("plan", "apply", "pull")},
    "diff": [str(ROOT / "heap_assets.yaml")],
    "reset": ["pageviews", "--yes"],
    "rows": ["profiles", "unique_keys"],
    "explain": ["email:ann@acme.io"],
    "what-if": ["email=1..2"],
    "decide": ["nobody", "email:desk@acme.io"],
    "query": ["adoption"],
    "signal preview": ["high_intent"],
    "audience explain": ["hesitating_leads"],
    "audience what-if": ["hesitating_leads", "events[0].count.gte=1"],
    "completion": ["bash"],
    **{
        f"sync {name}": ["segment_identify"]
        for name in ("run", "confirm", "plan", "retry", "runs", "rejected", "check")
    },
    "sync why": ["segment_identify", "ann"],
    "sync qa": ["segment_identify", "ann"],
    "sync resend": ["segment_identify", "--yes"],
    "sync forget": ["segment_identify", "ann", "--yes"],
    "erase request": ["email:ann@acme.io"],
    "person export": ["email:ann@acme.io"],
    **{f"erase {name}": ["er-2026-01-01-0"] for name in ("show", "cancel", "proof")},
    "erase confirm": ["er-2026-01-01-0", "--yes"],
    "erase lift": ["er-2026-01-01-0", "--reason", "consent", "--yes"],
    "function new": ["clean"],
    "function test": ["clean.js", "--table", "pageviews"],
}
NEED_NO_SETTINGS = {"signal template", "init", "schema", "completion", "sync kinds", "warm", "demo"}


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Type a command and return its exit status, as the shell has it."""
    monkeypatch.setattr(sys, "argv", ["heap-assets", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_there_is_not_is_a_mistake_of_usage(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(monkeypatch, *name.split(), "--no-such-option") == 2
    assert "No such option" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - NEED_NO_SETTINGS))
def test_settings_that_are_not_there_are_a_mistake_with_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    assert status_of(monkeypatch, *name.split(), *ARGUMENTS.get(name, [])) == 2
    printed = capsys.readouterr()
    assert re.fullmatch(
        r"heap-assets: .*heap_assets.yaml does not exist: `heap-assets init` writes one.*\n", printed.err
    )
    assert printed.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(NEED_NO_SETTINGS - {"warm", "demo"}))
def test_what_needs_no_settings_is_done_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    assert status_of(monkeypatch, *name.split(), *ARGUMENTS.get(name, [])) == 0


STATUS_1 = {
    "preflight": [],
    "status": [],
    "docs": ["--check"],
    "sync resend": ["segment_identify"],
    "sync forget": ["segment_identify", "ann"],
    "erase confirm": ["er-2026-01-01-0"],
    "erase lift": ["er-2026-01-01-0", "--reason", "consent"],
}
"""Commands that say when they end with status 1, with arguments by which they do where the bucket is missing."""
STATUS_1_ELSEWHERE = {
    "reset": "asks as sync resend does",
    "diff": "test_read_only_commands",
    "catalogue diff": "test_stopped_servers",
    "publish": "test_stopped_servers",
    "sync check": "test_a_connector_of_ones_own",
    "sync qa": "test_sync_qa",
    "sync run": "test_delivery_cli",
    "sync confirm": "test_delivery_cli",
    "erase run": "test_erasure_races",
    "keys": "test_keys",
    "demo": "test_faults",
    "warm": "nowhere: there is a folder that can be written",
}


def test_the_commands_that_end_with_status_1_by_themselves_say_when() -> None:
    said = {name for name, command in COMMANDS.items() if (command.epilog or "").startswith("Status 1: ")}
    assert said == STATUS_1.keys() | STATUS_1_ELSEWHERE.keys()


@pytest.mark.parametrize("name", STATUS_1)
def test_what_is_found_or_refused_is_status_1(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("heap_assets.yaml", "heap_catalogue.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    monkeypatch.setenv("HEAP_ASSETS_DEMO", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert status_of(monkeypatch, *name.split(), *STATUS_1[name]) == 1


def test_every_command_that_prints_a_table_or_a_report_prints_json() -> None:
    assert {name for name, command in COMMANDS.items() if not _takes_json(command)} == WITHOUT_A_TABLE


def _takes_json(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_every_command_and_option_is_in_the_docs() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert page == cli_page(commands), "run `make docs`"
    options = {o for command in COMMANDS.values() for p in command.params for o in p.opts if o.startswith("--")}
    assert not [option for option in options if f"`{option}" not in page and f", {option}" not in page]


def completed(line: str, folder: Path) -> list[str]:
    """Return what bash offers after `line`, by the function that the documented line of ~/.bashrc defines."""
    place = folder / "heap-assets"
    place.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.argv[0]=\'heap-assets\'; '
                     'from heap_assets.cli.main import main; main()" "$@"\n')  # fmt: skip
    place.chmod(0o755)
    script = (
        'eval "$(heap-assets completion bash)"\n'
        f"COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n"
        '$(complete -p heap-assets | sed "s/.*-F \\([^ ]*\\).*/\\1/") heap-assets\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    bash = ["bash", "--norc", "-c", script]
    done = subprocess.run(bash, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="NOT TESTED, there is no bash: completion in a shell")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("heap-assets pre", ["preflight"]),
        ("heap-assets sync re", ["rejected", "resend", "retry"]),
        ("heap-assets completion z", ["zsh"]),
        ("heap-assets sql --", ["--csv", "--json", "--help"]),
    ],
)
def test_bash_completes_commands_options_and_values(line: str, offered: list[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == offered


@pytest.mark.parametrize(("shell", "part"), [("zsh", "#compdef heap-assets"), ("fish", "complete --no-files")])
def test_other_shells_get_their_own_script(shell: str, part: str, capsys: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert status_of(monkeypatch, "completion", shell) == 0
    assert part in capsys.readouterr().out


def test_a_terminal_sees_progress_and_a_file_does_not(tmp_path: Path) -> None:
    code = (
        "import time\nfrom heap_assets.cli.output import progress\n"
        "with progress('Counting rows'): time.sleep(0.5)\nprint('done')"
    )
    ours, theirs = pty.openpty()
    shown = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    terminal = os.read(ours, 100_000).decode()
    os.close(ours)
    assert shown.stdout == "done\n"
    assert "Counting rows" in terminal
    assert "0:00:00" in terminal
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("done\n", "")
