"""Salesforce Marketing Cloud: rows of data extensions, and contacts that enter journeys."""
