"""Intercom: contacts and events."""
