"""What commands share: a group whose help says of each all that its first sentence says, and numbers that fit."""

from __future__ import annotations

import click

COUNT = click.IntRange(0, 1_000_000_000)
"""How many rows, runs or days to show."""


class CommandGroup(click.Group):
    """Lists its commands with the first paragraph of their help, wrapped."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_paragraph(one.help or "")) for name, one in self.commands.items()])


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
