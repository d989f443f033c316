"""`defs`, as Dagster loads them."""

from dataclasses import replace

import dagster as dg

from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.catalogue import accept_first
from heap_assets.project import open_project


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that heap_assets.yaml and heap_catalogue.yaml describe.

    A deployment whose catalogue is empty takes in what the source holds first (`heap.tables.accept`).
    """
    project = open_project()
    news = accept_first(project)
    return build_definitions(replace(project, catalogue=news.catalogue) if news else project)
