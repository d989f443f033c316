"""`python -m heap_assets.cli.dagster_dev dev …`: Dagster's own command without two warnings.

`dagster dev` calls itself superseded by `dg dev`, which a deployment does not need. And it warns of a dagster.yaml in
the folder that is not the one in use: here the one in use is a copy of it, unless the two differ.
"""

from __future__ import annotations

import logging
import os
import runpy
import warnings
from pathlib import Path


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Return False for the warning about a dagster.yaml that equals the one in use."""
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
