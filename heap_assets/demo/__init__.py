"""A sample company with ground truth, and local stand-ins for the servers that its data is sent to."""

from heap_assets.demo.company import Company, grow, read_company, show_warehouse, write_company
from heap_assets.demo.faults import Fault
from heap_assets.demo.plan import DemoError

__all__ = ["Company", "DemoError", "Fault", "grow", "read_company", "show_warehouse", "write_company"]
