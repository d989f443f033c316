from heap_assets_tests.pipelines.delivery_fixtures import heap, heap_process

__all__ = ["heap", "heap_process"]
