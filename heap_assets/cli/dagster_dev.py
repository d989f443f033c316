"""`python -m heap_assets.cli.dagster_dev dev …`: Dagster's own command without the warnings that are none here.

`dagster dev` calls itself superseded by `dg dev`, which a deployment does not need. And it warns of a dagster.yaml in
the folder that is not the one in use: here that one is a copy of it, and only where the two differ is there something
to be told.
"""

from __future__ import annotations

import logging
import os
import runpy
import warnings
from pathlib import Path


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether a message of Dagster's is true in this folder."""
    if not record.getMessage().startswith("Found a dagster instance configuration value"):
        return True
    used = Path(os.environ.get("DAGSTER_HOME", "")) / "dagster.yaml"
    try:
        return used.read_text() != Path("dagster.yaml").read_text()
    except OSError:
        return True


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Function `dev_command` is superseded")
    logging.getLogger("dagster").addFilter(is_worth_telling)
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)
