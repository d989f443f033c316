"""Marketo Engage: leads and static lists."""
