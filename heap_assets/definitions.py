"""`defs`, as Dagster loads them."""

import dagster as dg

from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.catalogue import with_first_tables
from heap_assets.project import open_project


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that heap_assets.yaml and heap_catalogue.yaml describe.

    A deployment whose catalogue is empty takes in what the source holds first (`heap.tables.accept`).
    """
    return build_definitions(with_first_tables(open_project()))
