"""Iterable: users, events, static lists."""
