"""The service `heap-assets live`: takes events in, keeps them before it answers, and lets profiles follow at once."""

from heap_assets.live.follower import LiveLoop
from heap_assets.live.page import LivePage
from heap_assets.live.service import LiveService, Reporter, http_server, serve

__all__ = ["LiveLoop", "LivePage", "LiveService", "Reporter", "http_server", "serve"]
