"""A package folder that nobody can write into, as in a container image: a read-only mount of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import heap_assets

PACKAGE = Path(heap_assets.__file__).parent
_MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def read_only_package() -> Sequence[str]:
    """Return the command below which the package is read-only; skip where that cannot be made."""
    within = ["unshare", "--mount", "sh", "-c", _MOUNTED, str(PACKAGE)]
    if os.getuid() != 0 or subprocess.run([*within, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no read-only mount can be made here (root only): a read-only package was NOT tested")
    return within
