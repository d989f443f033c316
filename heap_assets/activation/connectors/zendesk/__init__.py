"""Zendesk: users, and what is read back."""
