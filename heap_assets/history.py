"""The name by which `dagster.yaml` knows the event log storage."""

from heap_assets.orchestration.event_log import EventLog

__all__ = ["EventLog"]
