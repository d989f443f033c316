from __future__ import annotations

import os

collect_ignore = [] if "HEAP_ASSETS_FOREIGN_LIVE" in os.environ else ["test_live_messages.py"]
"""Minutes long: only where the number of companies is named."""
