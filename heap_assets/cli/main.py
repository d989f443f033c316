"""The group of commands, each imported when it is called so that `--help` is instant; and shell completion."""

from __future__ import annotations

import errno
import importlib
import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

from heap_assets import __version__
from heap_assets.errors import HeapAssetsError
from heap_assets.redaction import redact, redacted_exception

_COMMANDS = {
    "init": ("heap_assets.cli.setup", "Write a commented heap_assets.yaml to start from"),
    "check": ("heap_assets.cli.setup", "Read heap_assets.yaml and print what was understood"),
    "schema": ("heap_assets.cli.setup", "Write the JSON Schema of heap_assets.yaml, for editors"),
    "preflight": ("heap_assets.cli.sources", "Try every connection and permission, one result each"),
    "discover": ("heap_assets.cli.sources", "Show the tables, columns and dumps that Heap delivers"),
    "browse": ("heap_assets.cli.sources", "Show warehouse tables and propose identifier mappings"),
    "catalogue": ("heap_assets.cli.landed", "Compare heap_catalogue.yaml with what was landed; accept what is new"),
    "status": ("heap_assets.cli.status", "Show what is pending, running, ok, failed, waiting or not judged"),
    "rejected": ("heap_assets.cli.landed", "Show files and rows that could not be landed, and why"),
    "usage": ("heap_assets.cli.landed", "Show the month's rows against the plan's quota"),
    "reset": ("heap_assets.cli.landed", "Forget what was landed of one table, so that it is taken anew"),
    "rows": ("heap_assets.cli.rows", "Show the rows behind what a check or a sync shows as hashes"),
    "explain": ("heap_assets.cli.rows", "Say why two identifiers are one person, or why not"),
    "what-if": ("heap_assets.cli.rows", "Say what other merge limits would change, without writing"),
    "review": ("heap_assets.cli.review", "Show what people should decide about identities, the most important first"),
    "decide": ("heap_assets.cli.review", "Write down that identifiers are the same person, or apart, or nobody"),
    "audience": ("heap_assets.cli.audience", "Say how large audiences are, who is in one and why, and what-if"),
    "model": ("heap_assets.cli.model", "Show a sample of a model, a table made by SQL or a function"),
    "query": ("heap_assets.cli.query", "Answer a named question over events and people, or print its SQL"),
    "signal": ("heap_assets.cli.signal", "Show what signals fire, try one on a day, or begin one from a template"),
    "function": ("heap_assets.cli.functions", "Try a JavaScript function on rows of a day, or begin a new one"),
    "diff": ("heap_assets.cli.diff", "Say what another settings file would change, without writing"),
    "prune": ("heap_assets.cli.tables", "Delete days that `keep` no longer asks for, or say which"),
    "sync": ("heap_assets.cli.sync", "Plan, run, confirm; retry rejected rows, resend, forget a key"),
    "erase": ("heap_assets.cli.erase", "Erase people from everything that is kept, with a proof"),
    "keys": ("heap_assets.cli.keys", "Show which credentials have to be replaced"),
    "findings": ("heap_assets.cli.mask", "Search the newest days for personal data, without writing"),
    "mask": ("heap_assets.cli.mask", "Count what the rules of privacy.rules would change, without writing"),
    "person": ("heap_assets.cli.person", "Export what is held of a person; list who got what"),
    "publish": ("heap_assets.cli.publish", "Put new days into the warehouses of the settings, or say what would be"),
    "labels": ("heap_assets.cli.labels", "Hold Heap's labels against a reviewed file: diff, plan, apply, pull"),
    "bi": ("heap_assets.cli.bi", "Write files that tell a BI tool or dbt of the published tables"),
    "sql": ("heap_assets.cli.tables", "Query every table of the lake, read-only"),
    "report": ("heap_assets.cli.tables", "Write a status page that can be sent to a colleague"),
    "demo": ("heap_assets.cli.demo", "Do the whole job on a sample company with truth"),
    "dev": ("heap_assets.cli.dev", "Open the Dagster UI, with the demo's local servers if there are any"),
    "live": ("heap_assets.cli.live", "Take events in over HTTP as they happen, and let profiles follow"),
    "warm": ("heap_assets.cli.tables", "Compile ahead, for an image build"),
    "completion": ("heap_assets.cli.main", "Print what bash, zsh or fish complete commands by"),
    "docs": ("heap_assets.cli.docs", "Write the generated pages of docs/"),
}

_OF_MAINTAINERS = ("docs",)


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command from the list alone: to import them all takes seconds."""
        shown = {name: text for name, (_, text) in _COMMANDS.items() if name not in _OF_MAINTAINERS}
        items = [CompletionItem(name, help=text) for name, text in shown.items() if name.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items() if name not in _OF_MAINTAINERS])


_OF_POLARS = "object-store error"
"""How Polars' errors about an object store begin, of any class."""
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE}


@click.group(cls=_Lazy)
@click.version_option(__version__)
def _group() -> None:
    """Make Heap and the warehouse agree about who a customer is."""


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell completes `heap-assets` by: a line for its start-up file.

    \b
    eval "$(heap-assets completion bash)"      in ~/.bashrc
    eval "$(heap-assets completion zsh)"       in ~/.zshrc
    heap-assets completion fish | source       in ~/.config/fish/config.fish
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(context.find_root().command, {}, "heap-assets", "_HEAP_ASSETS_COMPLETE").source())


def main() -> None:
    """Run a command; what the user can act on ends with one message, never with a traceback.

    Status 2 is a mistake of the user, or something that is not there yet; 1 says that the other side (a source, a
    destination, the lake) could not be reached or refused, so that trying again later may help.
    """
    try:
        _group(standalone_mode=True)
    except HeapAssetsError as error:
        click.echo(f"heap-assets: {error}", err=True)
        sys.exit(error.exit_status)
    except Exception as error:
        if type(error).__module__.startswith("obstore") or str(error).startswith(_OF_POLARS):
            click.echo(f"heap-assets: the lake cannot be reached: {redact(str(error)).splitlines()[0]}", err=True)
            sys.exit(1)
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"heap-assets: {redact(where + str(error.strerror))}", err=True)
            sys.exit(1)
        fault = redacted_exception(error)  # a fault of ours: its place is shown, and no value that it quotes
    else:
        return
    raise fault
