"""`python -m …dg_commands [[…], …]`: runs commands of `dg` in one process, and prints exit code and output of each."""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

if __name__ == "__main__":
    dg, results = create_dg_cli(), []
    for command in json.loads(sys.argv[1]):
        result = CliRunner().invoke(dg, command)
        results.append([result.exit_code, result.stdout, result.stderr or repr(result.exception)])
    print("\n" + json.dumps(results))
