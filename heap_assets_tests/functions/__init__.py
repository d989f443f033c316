"""Users' JavaScript functions: hostile scripts, kills, results, settings."""
