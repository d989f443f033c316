"""What lies in real buckets besides dumps, and must not be taken for one (heap.md 2.2)."""

from datetime import datetime, timedelta
from pathlib import Path

from heap_assets.demo.chance import guid
from heap_assets.demo.files import put
from heap_assets.demo.plan import Plan


def write_leftovers(bucket: Path, plan: Plan, *, now: datetime | None = None) -> None:
    """Write a manifest that another consumer has copied aside, and a dump that Heap has begun and not finished."""
    first, begun = plan.dump_id(plan.history_end), plan.dump_id(plan.last_day + 1)
    manifest = bucket / f"manifests/sync_{first}.json"
    written = plan.written_at(plan.last_day, now=now)
    put(bucket / f"imported_manifests/sync_{first}.json", manifest.read_bytes(), written)
    name = f"part-00000-{guid(plan.seed, begun, 'unfinished')}-c000.avro"
    put(bucket / f"sync_{begun}/pageviews/{name}", b"Obj\x01", written - timedelta(minutes=1))
