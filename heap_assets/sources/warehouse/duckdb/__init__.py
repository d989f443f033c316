"""DuckDB files as warehouses."""
