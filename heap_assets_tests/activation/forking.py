"""Runs in processes of their own, to be killed: forked from one that has loaded its libraries and never used them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def fork_runs(run: Callable[[str], object]) -> None:
    """Fork a run for each line of standard input.

    Prints `pid <number>`, from the run `status <what it returns>` if it gets that far, then `end`.
    """
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                print(f"status {run(line.strip())}", flush=True)
                code = 0
            finally:
                os._exit(code)
        print(f"pid {child}", flush=True)
        os.waitpid(child, 0)
        print("end", flush=True)
