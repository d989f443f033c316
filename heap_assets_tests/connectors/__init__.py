"""Tests of the connectors to other vendors' systems, and the local servers that stand in for the vendors."""
