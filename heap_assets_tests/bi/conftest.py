"""Superset's importer is a test of its own, collected only where it is asked for: it installs Superset, for minutes."""

from __future__ import annotations

import os

collect_ignore = [] if "HEAP_ASSETS_SUPERSET" in os.environ else ["test_superset.py"]
