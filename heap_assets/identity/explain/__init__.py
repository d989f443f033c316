"""Why two identifiers are, or are not, one person; what other rules would do; how well tables match."""
