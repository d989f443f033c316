"""Pipedrive: persons and organizations."""
