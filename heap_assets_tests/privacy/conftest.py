from heap_assets_tests.pipelines.delivery_fixtures import (
    at_three_in_the_morning,
    heap,
    heap_process,
    segment,
    segment_process,
)
from heap_assets_tests.privacy.canary import canary_base

__all__ = ["at_three_in_the_morning", "canary_base", "heap", "heap_process", "segment", "segment_process"]
