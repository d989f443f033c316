"""`defs`, as Dagster loads them."""

import dagster as dg

from heap_assets.orchestration.definitions import load_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that heap_assets.yaml and heap_catalogue.yaml describe."""
    return load_definitions()
