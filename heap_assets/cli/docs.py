"""`heap-assets docs`: the pages of docs/ that are made from code, so that they say what it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import click

from heap_assets.cli.output import progress
from heap_assets.cli.settings_docs import connectors_pages, settings_page
from heap_assets.config import settings_path
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.generated_docs import (
    checks_document,
    failed_checks_page,
    heading_anchor,
    markdown_table,
    tables_page,
)
from heap_assets.project import Project, open_project

_PAGE = """# Command line

Generated from the commands by `make docs`; do not edit.

**Exit status.** 0: done. 1: something failed, or another system could not be reached or refused, so that trying again
later may help; where a command says with it what it looks for, that was found.
2: a mistake in the command line or in the settings, or something that is not there yet; one message says what to do.

**JSON.** Every command that prints a table takes `--json` and then prints a list of objects, one for each row; one that
prints a report of several parts prints one object. Figures are numbers, times and days are ISO 8601 in UTC, what is not
known is null. Messages go to standard error.

**Progress.** On a terminal, standard error shows what a command is busy with and for how long; elsewhere nothing.

**Completion.** `eval "$(heap-assets completion bash)"` in ~/.bashrc, `eval "$(heap-assets completion zsh)"` in
~/.zshrc, or `heap-assets completion fish | source` in ~/.config/fish/config.fish.

Which settings: heap_assets.yaml of the current folder, or the file that `HEAP_ASSETS_SETTINGS` names.
"""


@click.command(epilog="Status 1: with --check, a page is out of date.")
@click.option("--check", "only_check", is_flag=True, help="Only say which pages are out of date")
def docs(only_check: bool) -> None:
    """Write the pages of docs/ that are made from settings models, definitions, connectors and commands."""
    folder = settings_path().parent / "docs"
    outdated = 0
    with progress("Making the pages"):
        pages = generated_pages(open_project())
    for name, text in pages.items():
        path = folder / name
        if path.is_file() and path.read_text() == text:
            continue
        outdated += 1
        if only_check:
            click.echo(f"{path} is out of date: run `make docs`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            click.echo(f"Wrote {path}")
    if not outdated:
        click.echo(f"The generated pages of {folder} are up to date")
    raise SystemExit(1 if only_check and outdated else 0)


def generated_pages(project: Project) -> Mapping[str, str]:
    """Return the pages that are made from code: path below docs/ to text."""
    from heap_assets.cli.main import _group  # which knows this module

    definitions = build_definitions(project)
    return {
        "reference/cli.md": cli_page(_group),
        "checks.md": checks_document(definitions),
        "how_to/failed_checks.md": failed_checks_page(definitions),
        **connectors_pages(),
        "reference/settings.md": settings_page(type(project.settings)),
        "reference/tables.md": tables_page(definitions),
    }


def cli_page(group: click.Group) -> str:
    """Return docs/reference/cli.md for a group of commands."""
    commands = list(leaves(group))
    overview = [
        (f"[`{name}`](#{heading_anchor(_title(name))})", _paragraphs(command)[0].replace("\n", " "))
        for name, command in commands
    ]
    parts = [_PAGE.rstrip(), markdown_table(("Command", "What it does"), overview)]
    for name, command in commands:
        parts += _section(name, command)
    return "\n\n".join(parts) + "\n"


def leaves(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command of a group and of the groups in it, by its name as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def _title(name: str) -> str:
    return f"`heap-assets {name}`"


def _section(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"heap-assets {name}")
    yield f"## {_title(name)}"
    yield f"```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
    for paragraph in _paragraphs(command):
        is_code = paragraph.startswith(("\b", "heap-assets "))
        yield "```\n" + paragraph.removeprefix("\b\n") + "\n```" if is_code else paragraph
    helped = (parameter.get_help_record(context) for parameter in command.params if isinstance(parameter, click.Option))
    options = [(f"`{record[0]}`", record[1]) for record in helped if record]
    if options:
        yield markdown_table(("Option", "Meaning"), options)
    if command.epilog:
        yield command.epilog


def _paragraphs(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").split("\n\n")
