"""Pipedrive: persons, organizations and deals."""
