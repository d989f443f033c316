"""Mutated manifests end in a landing or a clear refusal; `make torture` tries thousands of them."""

from __future__ import annotations

from pathlib import Path

from heap_assets_tests.torture.manifests import try_manifests


def test_mutated_manifests_stop_nothing_else(tmp_path: Path) -> None:
    ended, wrong = try_manifests(tmp_path, 150, seed=3)
    assert not wrong
    assert len(ended) >= 3, "all of them ended alike: nothing was tried"
