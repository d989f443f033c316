from heap_assets_tests.pipelines.delivery_fixtures import (
    at_three_in_the_morning,
    base,
    heap,
    heap_process,
    segment,
    segment_process,
    worlds,
)

__all__ = ["at_three_in_the_morning", "base", "heap", "heap_process", "segment", "segment_process", "worlds"]
