"""The hand-made lake of four people with an inbox beside it."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from heap_assets.pipelines.inbox import folded_day, message_day, unbuilt_inbox_days
from heap_assets.pipelines.people import identity_of_day, profiles_of_day
from heap_assets.pipelines.table import Task
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.inbox import Arrival, Sizes, call_messages
from heap_assets.storage import Lake
from heap_assets.tables import RESOLVED
from heap_assets_tests.pipelines.delivery_world import DAY, SETTINGS, World, at
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
        text = text.replace("\nprofiles:\n", f"\nprofiles:\n{self.profiles}")
        text += "\n".join(f"  {line}" for line in syncs.splitlines()) + f"\n{self.inbox}\n{self.more}\n"
        path = self.folder / "heap_assets.yaml"
        path.write_text(text)
        settings = parse_settings(text, path)
        self.project = Project(
            settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url, settings.lake.options)
        )
        self._job = None
        return self

    def post(self, *calls: dict[str, Any], received: datetime) -> None:
        """Land calls as one segment of messages."""
        post(self.lake.store, *calls, received=received)


KEY = "wk-live-loop-5530"
SYNC = """\
crm:
  {kind: webhook, mode: upsert, source: profiles, key: crm_id, url: RECEIVER, live: true, properties: {Plan: plan}}"""


def arrival(*calls: dict[str, Any]) -> Arrival:
    received = at(DAY, 22)
    messages = [m for call in calls for m in call_messages(call, "", received, Sizes(), 100)]
    return Arrival("web", received, messages)


def identify(number: int, person: str, **traits: Any) -> dict[str, Any]:
    stamp = (datetime(2026, 11, 20, 12, tzinfo=UTC) + timedelta(milliseconds=100 * number)).isoformat()
    return {"type": "identify", "messageId": f"i{number}", "userId": person, "timestamp": stamp, "traits": traits}


def build(world: InboxWorld, *, judge: bool = False) -> None:
    """Compute the batch day as its assets do: tables of the inbox, graph, profiles; `judge`: their checks pass."""
    for _ in range(2):
        for asset, days in unbuilt_inbox_days(world.project).items():
            for day in sorted(days):
                task = Task(world.project, day, world.folder / "scratch")
                if asset in INBOX_ASSETS or (asset in FOLDED and day <= DAY):
                    rows = message_day(task, asset) if asset in INBOX_ASSETS else folded_day(task, asset)
                    world.lake.write(asset, str(day), rows.frame, rows.inputs, notes=rows.notes)
    for asset, table in identity_of_day(world.project, DAY).items():
        world.lake.write(asset, str(DAY), table.frame, table.inputs, notes=table.notes)
    profiles = profiles_of_day(world.project, DAY)
    world.lake.write("profiles", str(DAY), profiles.frame, profiles.inputs, notes=profiles.notes)
    for asset in (*INBOX_ASSETS, *FOLDED, *RESOLVED, "profiles") if judge else ():
        if world.lake.find(asset, str(DAY)):
            world.judge(asset, DAY)


def copy_of(world: World, folder: Path, syncs: str, **more: str) -> InboxWorld:
    """Return the same lake in a folder of its own, with other syncs."""
    shutil.copytree(world.folder / "lake", folder / "lake", copy_function=os.link)
    return InboxWorld(folder, syncs, **more)


_TYPES = """\
    - {type: heap_user_id, shared_above: 1}
    - {type: visitor, max_per_profile: 5}"""
