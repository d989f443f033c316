"""The Dagster layer: one file per asset group, thin; together they read like the lineage graph."""
