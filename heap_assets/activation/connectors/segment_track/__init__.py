"""Segment's Track: rows of Heap's event tables."""
