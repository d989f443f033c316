"""The status page: one HTML file that can be sent to a colleague and opens without a network."""

from heap_assets.report.collect import Status, collect, outcome
from heap_assets.report.page import render, status_page, write_report

__all__ = ["Status", "collect", "outcome", "render", "status_page", "write_report"]
