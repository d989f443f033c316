"""A Salesforce org: tokens, describe, records, collections, SOQL, Bulk API 2.0, what changed since."""

from heap_assets_tests.connectors.servers.salesforce.org import SalesforceServer
from heap_assets_tests.connectors.servers.salesforce.schema import Field

__all__ = ["Field", "SalesforceServer"]
