"""Delivery: difference, ledger, log, lease, rate limits and HTTP, the same for every connector."""
