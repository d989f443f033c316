"""The hand-made lake of four people with an inbox beside it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets_tests.pipelines.delivery_world import SETTINGS, World
from heap_assets_tests.sources.inbox.test_messages_tables import post

INBOX = """
inbox:
  sources:
    web: {kind: tracking, write_keys: ["${HEAP_ASSETS_TEST_WRITE_KEY}"]}
    shop: {kind: webhook, secrets: ["${HEAP_ASSETS_TEST_WRITE_KEY}"], id: order}
  identifiers: {user_id: crm_id, anonymous_id: visitor, previous_id: visitor}
  tables:
    identify: {columns: {email: text, plan: text}, identifiers: {email: email}}
    group: {columns: {tier: text}}
    track: {columns: {total: number}}
"""
INBOX_ASSETS = [f"inbox/{name}" for name in ("track", "identify", "group", "page", "screen", "alias", "delete", "shop")]
FOLDED = ["inbox/users", "inbox/accounts"]


class InboxWorld(World):
    """A world whose settings have an inbox; the newest plan of CRM and inbox counts."""

    inbox = INBOX
    suppressed = ""

    def choose(self, syncs: str) -> World:
        text = SETTINGS.format(heap=self.heap)
        text = text.replace("    plan: {from: [contacts.plan]}", "    plan: {from: [inbox/users.plan, contacts.plan]}")
        text = text.replace(
            "    account: {from: [contacts.account_id]}", "    account: {from: [inbox/users.account_id]}"
        )
        text = text.replace("    - {type: heap_user_id, shared_above: 1}", _TYPES)
        if self.suppressed:
            text = text.replace(
                "identity:\n  identifiers:", f"identity:\n  suppressed: {self.suppressed}\n  identifiers:"
            )
        text += "\n".join(f"  {line}" for line in syncs.splitlines()) + f"\n{self.inbox}\n{self.more}\n"
        path = self.folder / "heap_assets.yaml"
        path.write_text(text)
        settings = parse_settings(text, path)
        self.project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url))
        self._job = None
        return self

    def post(self, *calls: dict[str, Any], received: datetime) -> None:
        """Land calls as one segment of messages."""
        post(self.lake.store, *calls, received=received)


_TYPES = """\
    - {type: heap_user_id, shared_above: 1}
    - {type: visitor, max_per_profile: 5}"""
