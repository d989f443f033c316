"""A HubSpot account: objects, properties, search, custom events, static lists."""

from heap_assets_tests.connectors.servers.hubspot.account import HubSpotServer
from heap_assets_tests.connectors.servers.hubspot.properties import Property

__all__ = ["HubSpotServer", "Property"]
