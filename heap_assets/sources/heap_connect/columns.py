"""What is known of the columns that Heap exports: descriptions and marks of personal data (heap.md 2.7, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS


@dataclass(frozen=True)
class ColumnKnowledge:
    """What a column means, and whether it may name a person."""

    description: str
    pii: bool = False


_EVENT_COLUMNS: Mapping[str, ColumnKnowledge] = {
    "event_id": ColumnKnowledge("Number of the event, unique together with user_id within its table."),
    "user_id": ColumnKnowledge("Heap's number of the user, as exported: migrations are not applied."),
    "session_id": ColumnKnowledge("Number of the session the event happened in."),
    "time": ColumnKnowledge("When the event happened, UTC."),
    "session_time": ColumnKnowledge("Legacy; use time."),
    "type": ColumnKnowledge("Kind of autocaptured action: view page, click, submit, change, touch, or a custom name."),
    "library": ColumnKnowledge("Where it was captured: web, ios, android or server."),
    "platform": ColumnKnowledge("Operating system and version."),
    "device_type": ColumnKnowledge("Desktop, Mobile or Tablet."),
    "country": ColumnKnowledge("Country of the IP address."),
    "region": ColumnKnowledge("Region of the IP address."),
    "city": ColumnKnowledge("City of the IP address."),
    "ip": ColumnKnowledge("IP address.", pii=True),
    "browser_ip": ColumnKnowledge("IP address of the browser.", pii=True),
    "referrer": ColumnKnowledge("Address of the page that linked to the session's first page."),
    "landing_page": ColumnKnowledge("First page of the session."),
    "landing_page_query": ColumnKnowledge("Query of the session's first page."),
    "landing_page_hash": ColumnKnowledge("Fragment of the session's first page."),
    "browser": ColumnKnowledge("Browser and version."),
    "search_keyword": ColumnKnowledge("Search term that led to the session."),
    "utm_source": ColumnKnowledge("Campaign source of the session."),
    "utm_campaign": ColumnKnowledge("Campaign of the session."),
    "utm_medium": ColumnKnowledge("Campaign medium of the session."),
    "utm_term": ColumnKnowledge("Campaign term of the session."),
    "utm_content": ColumnKnowledge("Campaign content of the session."),
    "device": ColumnKnowledge("Model of the device."),
    "device_id": ColumnKnowledge("Identifier of the device.", pii=True),
    "carrier": ColumnKnowledge("Mobile carrier."),
    "app_name": ColumnKnowledge("Name of the mobile application."),
    "app_version": ColumnKnowledge("Version of the mobile application."),
    "domain": ColumnKnowledge("Domain of the page."),
    "path": ColumnKnowledge("Path of the page."),
    "hash": ColumnKnowledge("Fragment of the page."),
    "query": ColumnKnowledge("Query of the page."),
    "title": ColumnKnowledge("Title of the page."),
    "href": ColumnKnowledge("Target of the clicked link."),
    "view_controller": ColumnKnowledge("Name of the mobile view controller."),
    "action_method": ColumnKnowledge("Name of the iOS action method."),
    "screen_a11y_id": ColumnKnowledge("Accessibility identifier of the screen."),
    "screen_ally_id": ColumnKnowledge("Accessibility identifier of the screen (older spelling)."),
    "screen_a11y_label": ColumnKnowledge("Accessibility label of the screen."),
    "screen_ally_label": ColumnKnowledge("Accessibility label of the screen (older spelling)."),
    "target_text": ColumnKnowledge("Text of the element.", pii=True),
    "target_tag": ColumnKnowledge("HTML tag of the element."),
    "target_id": ColumnKnowledge("HTML id of the element."),
    "target_class": ColumnKnowledge("HTML classes of the element."),
    "target_view_class": ColumnKnowledge("Class of the touched view."),
    "target_view_name": ColumnKnowledge("Name of the touched view."),
    "target_a11y_id": ColumnKnowledge("Accessibility identifier of the element."),
    "target_ally_id": ColumnKnowledge("Accessibility identifier of the element (older spelling)."),
    "target_a11y_label": ColumnKnowledge("Accessibility label of the element."),
    "target_ally_label": ColumnKnowledge("Accessibility label of the element (older spelling)."),
    "heap_device_id": ColumnKnowledge("Heap's identifier of the device.", pii=True),
    "heap_device": ColumnKnowledge("Heap's name of the device."),
    "heap_previous_page": ColumnKnowledge("Page viewed before this one."),
    "previous_page": ColumnKnowledge("Page viewed before this one."),
    "heap_app_name": ColumnKnowledge("Name of the application."),
    "heap_app_version": ColumnKnowledge("Version of the application."),
    "sent_by": ColumnKnowledge("heap_assets on events that this platform sent; such events are left out of links."),
}
_USER_COLUMNS: Mapping[str, ColumnKnowledge] = {
    "user_id": ColumnKnowledge("Heap's number of the user."),
    "identity": ColumnKnowledge("Identity given by identify, case-sensitive.", pii=True),
    "handle": ColumnKnowledge("Handle of the user.", pii=True),
    "email": ColumnKnowledge("Email of the user.", pii=True),
    "joindate": ColumnKnowledge("When the user was first seen, UTC."),
    "last_modified": ColumnKnowledge("When the user was last changed, UTC; the newest row of a user stands."),
    "migrated_to": ColumnKnowledge("user_id at the end of the user's migrations; null unless the user migrated away."),
}
_MIGRATION_COLUMNS: Mapping[str, ColumnKnowledge] = {
    "from_user_id": ColumnKnowledge("user_id that was migrated away."),
    "to_user_id": ColumnKnowledge("user_id it was migrated to, as exported."),
    "resolved_to": ColumnKnowledge("user_id at the end of the chain of migrations."),
    "time": ColumnKnowledge("When the migration happened, UTC."),
    "cycle": ColumnKnowledge("Whether the chain runs in a circle; it is then cut at the smallest user_id."),
}

_PERSONAL_WORDS = (
    "email", "phone", "mobile_number", "first_name", "last_name", "full_name", "surname", "address", "birth", "ssn",
)  # fmt: skip


def known_columns(table: str) -> Mapping[str, ColumnKnowledge]:
    """Return Heap's own columns of a table; anything else in it is a custom property."""
    if table == USERS:
        return _USER_COLUMNS
    return _MIGRATION_COLUMNS if table == USER_MIGRATIONS else _EVENT_COLUMNS


def knowledge_of(table: str, column: str) -> ColumnKnowledge:
    """Describe a column; of a custom property only a guess from its name whether it is personal."""
    known = known_columns(table).get(column)
    if known is not None:
        return known
    return ColumnKnowledge("", pii=any(word in column.lower() for word in _PERSONAL_WORDS))
