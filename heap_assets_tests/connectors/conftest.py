import pytest

pytest.register_assert_rewrite("heap_assets_tests.connectors.kit", "heap_assets_tests.connectors.suite")
