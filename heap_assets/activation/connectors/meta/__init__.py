"""Meta: custom audiences."""
