"""The demo, live: its settings with an inbox and a sync that follows it, and people who do something every second."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from heap_assets.errors import MissingInputError
from heap_assets.project import Project
from heap_assets.tables import PROFILES

WRITE_KEY_VARIABLE = "HEAP_ASSETS_DEMO_WRITE_KEY"
_INBOX = """
inbox:
  sources: {web: {kind: tracking, write_keys: ["${HEAP_ASSETS_DEMO_WRITE_KEY}"]}}
  identifiers: {user_id: crm_id, anonymous_id: device_id}
  tables: {identify: {columns: {plan: text, email: text}, identifiers: {email: email}}}

identity:
"""
_PLANS = ("free", "starter", "team", "business")
_EVENTS = ("Pricing Viewed", "Report Opened", "Teammate Invited")
_SECONDS = 0.7


def live_settings(settings: Path, folder: Path) -> Path:
    """Write the demo's settings with an inbox beside its data, and return the file."""
    os.environ.setdefault(WRITE_KEY_VARIABLE, secrets.token_hex(16))
    text = settings.read_text()
    text = text.replace("\nidentity:\n", _INBOX, 1)
    text = text.replace(
        "    plan: {from: [billing_customers.plan]", "    plan: {from: [inbox/users.plan, billing_customers.plan]"
    )
    text = text.replace("  heap_user_properties:", "  heap_user_properties:\n    live: true", 1)
    file = folder / "heap_assets_live.yaml"
    file.write_text(text)
    catalogue = settings.with_name("heap_catalogue.yaml")
    file.with_name(catalogue.name).write_bytes(catalogue.read_bytes())
    return file


def people_of(project: Project) -> list[tuple[str, str]]:
    """Return the CRM id and an email of people whom Heap knows.

    Raises
    ------
    MissingInputError
        If the demo was not run.
    """
    days = project.lake.partitions(PROFILES)
    if not days:
        raise MissingInputError("there are no people yet: run `heap-assets demo` first")
    rows = project.lake.scan(PROFILES, days[-1]).filter(pl.col("heap_identity").is_not_null()).select("identifiers")
    people = []
    for identifiers in rows.collect()["identifiers"].to_list():
        values = {one["type"]: one["value"] for one in identifiers}
        if "crm_id" in values and "email" in values:
            people.append((values["crm_id"], values["email"]))
    return people


def post_events(address: str, people: list[tuple[str, str]], stopped: threading.Event) -> None:
    """Post what people do: most look around, some upgrade, until `stopped`."""
    dice = random.Random()
    with httpx.Client(base_url=address, auth=(os.environ[WRITE_KEY_VARIABLE], ""), trust_env=False) as client:
        while not stopped.wait(dice.uniform(0.2, 2 * _SECONDS)):
            person, email = dice.choice(people)
            call: dict[str, Any] = {"userId": person, "messageId": f"demo-{time.time_ns()}"}
            if dice.random() < 0.4:
                path, call = "/v1/identify", call | {"traits": {"plan": dice.choice(_PLANS), "email": email}}
            else:
                path, call = "/v1/track", call | {"event": dice.choice(_EVENTS)}
            with contextlib.suppress(httpx.TransportError):  # the service ends before those who post to it
                client.post(path, json=call)
