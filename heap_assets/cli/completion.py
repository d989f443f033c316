"""`heap-assets completion`: what shells complete commands, options and their values by."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell completes `heap-assets` by: a line for its start-up file.

    \b
    eval "$(heap-assets completion bash)"      in ~/.bashrc
    eval "$(heap-assets completion zsh)"       in ~/.zshrc
    heap-assets completion fish | source       in ~/.config/fish/config.fish
    """
    known = get_completion_class(shell)
    assert known is not None
    click.echo(known(context.find_root().command, {}, "heap-assets", "_HEAP_ASSETS_COMPLETE").source())
