"""What each asset does, put together from the domain packages; no Dagster here, so the command line uses it too."""
