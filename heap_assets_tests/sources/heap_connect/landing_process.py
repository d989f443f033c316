"""Lands a bucket as a process of its own, so that it can be killed: bucket folder, lake folder."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig
from heap_assets.storage import Store


def main() -> None:
    landing = Landing(Store(sys.argv[2]), LandingConfig(start_date=date(2026, 1, 1)))
    source = FolderSource(sys.argv[1])
    print("ready", flush=True)
    for manifest in landing.pending(source):
        landing.land(source, manifest)
    Path(sys.argv[2], "finished").touch()


if __name__ == "__main__":
    main()
