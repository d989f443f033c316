"""The command line, `heap-assets`: everything that is not a click in the Dagster UI."""

from heap_assets.cli.main import main

__all__ = ["main"]
