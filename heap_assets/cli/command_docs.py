"""The reference page of the command line, made from the commands: usage, options, exit status."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from heap_assets.orchestration.markdown import heading_anchor, markdown_table

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
