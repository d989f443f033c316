"""Where data comes from: Heap Connect dumps, Heap exports in BigQuery, and warehouses."""
