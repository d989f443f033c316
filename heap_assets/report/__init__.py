"""The status page: one HTML file that can be sent to a colleague and opens without a network."""

from heap_assets.report.collect import Status, collect
from heap_assets.report.page import render
from heap_assets.report.write import write_report

__all__ = ["Status", "collect", "render", "write_report"]
