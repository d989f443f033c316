"""`defs`, as Dagster loads them."""

from dataclasses import replace

import dagster as dg

from heap_assets.assets.definitions import build_definitions
from heap_assets.platform import open_platform
from heap_assets.steps.catalogue import accept_first


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that heap_assets.yaml and heap_catalogue.yaml describe.

    A deployment whose catalogue is empty takes in what the source holds first (`heap.tables.accept`).
    """
    platform = open_platform()
    news = accept_first(platform)
    return build_definitions(replace(platform, catalogue=news.catalogue) if news else platform)
