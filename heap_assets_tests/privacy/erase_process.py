"""A process that erases what is confirmed in the lake of a settings file, to be killed at any moment."""

from __future__ import annotations

import sys
from pathlib import Path

from heap_assets.pipelines import erasure
from heap_assets.project import open_project, parse_settings

if __name__ == "__main__":
    path = Path(sys.argv[1])
    project = open_project(parse_settings(path.read_text(), path))
    print("begun", flush=True)
    print(dict(erasure.run(project, "killed").requests), flush=True)
