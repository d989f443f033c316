"""Engines that resolve links into profiles."""
