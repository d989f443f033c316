"""Mixpanel: profiles of users and of groups, and events."""
