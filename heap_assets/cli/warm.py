"""`heap-assets warm`."""

from __future__ import annotations

import time

import click

from heap_assets.identity import compile_engine


@click.command()
def warm() -> None:
    """Compile identity resolution ahead of its first run, as the last step of an image build.

    The compiled loops are kept beside the package, or in NUMBA_CACHE_DIR. Where the package is read-only later,
    they are copied to the user's cache folder when they are first needed.
    """
    begun = time.monotonic()
    folder, files = compile_engine()
    if folder is None:
        raise click.ClickException("no folder to keep compiled loops in can be written; set NUMBA_CACHE_DIR to one")
    click.echo(f"{files} compiled loops in {folder} ({time.monotonic() - begun:.0f} s)")
