from heap_assets_tests.pipelines.delivery_fixtures import (
    at_three_in_the_morning,
    heap,
    heap_process,
    segment,
    segment_process,
)
from heap_assets_tests.privacy.canary import canary_base
from heap_assets_tests.sources.warehouse.conftest import bigquery_emulator, postgres, postgres_cluster

__all__ = [
    "at_three_in_the_morning",
    "bigquery_emulator",
    "canary_base",
    "heap",
    "heap_process",
    "postgres",
    "postgres_cluster",
    "segment",
    "segment_process",
]
