"""Descriptions of the columns that Heap exports, and which hold personal data (heap.md 2.7, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS


@dataclass(frozen=True)
class CatalogueColumn:
    """A column: what it means, and whether it may name a person."""

    description: str = ""
    pii: bool = False


_EVENT_COLUMNS: Mapping[str, CatalogueColumn] = {
    "event_id": CatalogueColumn("Number of the event, unique together with user_id within its table."),
    "user_id": CatalogueColumn("Heap's number of the user, as exported: migrations are not applied."),
    "session_id": CatalogueColumn("Number of the session the event happened in."),
    "time": CatalogueColumn("When the event happened, UTC."),
    "session_time": CatalogueColumn("Legacy; use time."),
    "type": CatalogueColumn("Kind of autocaptured action: view page, click, submit, change, touch, or a custom name."),
    "library": CatalogueColumn("Where it was captured: web, ios, android or server."),
    "platform": CatalogueColumn("Operating system and version."),
    "device_type": CatalogueColumn("Desktop, Mobile or Tablet."),
    "country": CatalogueColumn("Country of the IP address."),
    "region": CatalogueColumn("Region of the IP address."),
    "city": CatalogueColumn("City of the IP address."),
    "ip": CatalogueColumn("IP address.", pii=True),
    "browser_ip": CatalogueColumn("IP address of the browser.", pii=True),
    "referrer": CatalogueColumn("Address of the page that linked to the session's first page."),
    "landing_page": CatalogueColumn("First page of the session."),
    "landing_page_query": CatalogueColumn("Query of the session's first page."),
    "landing_page_hash": CatalogueColumn("Fragment of the session's first page."),
    "browser": CatalogueColumn("Browser and version."),
    "search_keyword": CatalogueColumn("Search term that led to the session."),
    "utm_source": CatalogueColumn("Campaign source of the session."),
    "utm_campaign": CatalogueColumn("Campaign of the session."),
    "utm_medium": CatalogueColumn("Campaign medium of the session."),
    "utm_term": CatalogueColumn("Campaign term of the session."),
    "utm_content": CatalogueColumn("Campaign content of the session."),
    "device": CatalogueColumn("Model of the device."),
    "device_id": CatalogueColumn("Identifier of the device.", pii=True),
    "carrier": CatalogueColumn("Mobile carrier."),
    "app_name": CatalogueColumn("Name of the mobile application."),
    "app_version": CatalogueColumn("Version of the mobile application."),
    "domain": CatalogueColumn("Domain of the page."),
    "path": CatalogueColumn("Path of the page."),
    "hash": CatalogueColumn("Fragment of the page."),
    "query": CatalogueColumn("Query of the page."),
    "title": CatalogueColumn("Title of the page."),
    "href": CatalogueColumn("Target of the clicked link."),
    "view_controller": CatalogueColumn("Name of the mobile view controller."),
    "action_method": CatalogueColumn("Name of the iOS action method."),
    "screen_a11y_id": CatalogueColumn("Accessibility identifier of the screen."),
    "screen_ally_id": CatalogueColumn("Accessibility identifier of the screen (older spelling)."),
    "screen_a11y_label": CatalogueColumn("Accessibility label of the screen."),
    "screen_ally_label": CatalogueColumn("Accessibility label of the screen (older spelling)."),
    "target_text": CatalogueColumn("Text of the element.", pii=True),
    "target_tag": CatalogueColumn("HTML tag of the element."),
    "target_id": CatalogueColumn("HTML id of the element."),
    "target_class": CatalogueColumn("HTML classes of the element."),
    "target_view_class": CatalogueColumn("Class of the touched view."),
    "target_view_name": CatalogueColumn("Name of the touched view."),
    "target_a11y_id": CatalogueColumn("Accessibility identifier of the element."),
    "target_ally_id": CatalogueColumn("Accessibility identifier of the element (older spelling)."),
    "target_a11y_label": CatalogueColumn("Accessibility label of the element."),
    "target_ally_label": CatalogueColumn("Accessibility label of the element (older spelling)."),
    "heap_device_id": CatalogueColumn("Heap's identifier of the device.", pii=True),
    "heap_device": CatalogueColumn("Heap's name of the device."),
    "heap_previous_page": CatalogueColumn("Page viewed before this one."),
    "previous_page": CatalogueColumn("Page viewed before this one."),
    "heap_app_name": CatalogueColumn("Name of the application."),
    "heap_app_version": CatalogueColumn("Version of the application."),
    "sent_by": CatalogueColumn("heap_assets on events that this platform sent; such events are left out of links."),
}
_USER_COLUMNS: Mapping[str, CatalogueColumn] = {
    "user_id": CatalogueColumn("Heap's number of the user."),
    "identity": CatalogueColumn("Identity given by identify, case-sensitive.", pii=True),
    "handle": CatalogueColumn("Handle of the user.", pii=True),
    "email": CatalogueColumn("Email of the user.", pii=True),
    "joindate": CatalogueColumn("When the user was first seen, UTC."),
    "last_modified": CatalogueColumn("When the user was last changed, UTC; the newest row of a user stands."),
    "migrated_to": CatalogueColumn("user_id at the end of the user's migrations; null unless the user migrated away."),
}
_MIGRATION_COLUMNS: Mapping[str, CatalogueColumn] = {
    "from_user_id": CatalogueColumn("user_id that was migrated away."),
    "to_user_id": CatalogueColumn("user_id it was migrated to, as exported."),
    "resolved_to": CatalogueColumn("user_id at the end of the chain of migrations."),
    "time": CatalogueColumn("When the migration happened, UTC."),
    "cycle": CatalogueColumn("Whether the chain runs in a circle; it is then cut at the smallest user_id."),
}

_PERSONAL_WORDS = (
    "email", "phone", "mobile_number", "first_name", "last_name", "full_name", "surname", "address", "birth", "ssn",
)  # fmt: skip


def built_in_columns(table: str) -> Mapping[str, CatalogueColumn]:
    """Return Heap's own columns of a table; anything else in it is a custom property."""
    if table == USERS:
        return _USER_COLUMNS
    return _MIGRATION_COLUMNS if table == USER_MIGRATIONS else _EVENT_COLUMNS


def described(table: str, column: str) -> CatalogueColumn:
    """Describe a column; of a custom property only a guess from its name whether it is personal."""
    guess = CatalogueColumn(pii=any(word in column.lower() for word in _PERSONAL_WORDS))
    return built_in_columns(table).get(column, guess)
